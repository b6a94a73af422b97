"""Profiles by the book: for each day and key, read the raw rows again and apply the definition. No tiles, no Spark.

Input are the frames of tests/features/random_logs.py: naive times in the business time zone, `dt` the arrival day.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pandas as pd

from features.spec import (
    MEASURES,
    ActiveDays,
    DaysSinceLast,
    DistinctPartners,
    Entity,
    Feature,
    Measure,
    OnAir,
    Rate,
    Snapshot,
    SnapshotAge,
    Sum,
    TopCategory,
)

Key = tuple[object, ...]
ProfileRows = dict[tuple[dt.date, Key], tuple[object, ...]]
ONE_DAY = dt.timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Event:
    """One raw row of the logs; `action` is None for an impression."""

    user_id: int
    anchor_id: int
    room_id: int
    happened: dt.date
    arrived: dt.date
    action: str | None
    value: float
    category: str

    def key(self, entity: Entity) -> Key:
        """Values of the entity's key columns."""
        return tuple(getattr(self, name) for name in entity.keys)

    def amount(self, measure: Measure) -> int:
        """What the row adds to a measure."""
        if self.action != measure.action:
            return 0
        if measure.value_scale is None:
            return 1
        return int(Decimal(self.value * measure.value_scale).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def events(logs: Mapping[str, pd.DataFrame]) -> list[Event]:
    """All rows of the logs that somebody saw or did."""
    rooms = logs["rooms"].to_dict("records")
    by_room: dict[int, list[dict[Any, Any]]] = defaultdict(list)
    for room in rooms:
        by_room[room["room_id"]].append(room)
    return [_event(row, by_room) for row in _log_rows(logs)]


def _log_rows(logs: Mapping[str, pd.DataFrame]) -> Iterator[dict[Any, Any]]:
    for row in logs["impressions"].to_dict("records"):
        if row.get("sampled_negative") is not True:
            yield {**row, "action": None, "value": 0.0}
    yield from logs["actions"].to_dict("records")


def _event(row: dict[Any, Any], by_room: Mapping[int, list[dict[Any, Any]]]) -> Event:
    room = newest_room(by_room.get(row["room_id"], []), row["dt"])
    known = room is not None and not pd.isna(room["category"])
    return Event(
        user_id=row["user_id"],
        anchor_id=row["anchor_id"],
        room_id=row["room_id"],
        happened=row["ts"].date(),
        arrived=row["dt"],
        action=row["action"],
        value=row["value"],
        category=room["category"] if room is not None and known else "",
    )


def newest_room(rows: Sequence[dict[Any, Any]], cutoff: dt.date) -> dict[Any, Any] | None:
    """Of the rows of one room that arrived by the cutoff: those with an end first, then the last to arrive; what is
    still equal, by the values, null smallest."""
    known = [row for row in rows if row["dt"] <= cutoff]

    def order(row: dict[Any, Any]) -> tuple[object, ...]:
        ended = not pd.isna(row["ended_at"])
        category = "" if pd.isna(row["category"]) else row["category"]
        happened = max(row["started_at"], row["ended_at"]) if ended else row["started_at"]
        return (ended, row["dt"], happened, category)

    return max(known, key=order, default=None)


def profiles(
    entity: Entity, features: Sequence[Feature], logs: Mapping[str, pd.DataFrame], days: Sequence[dt.date]
) -> ProfileRows:
    """(day, key) → values of `features`, for every key whose longest window has a row, or was on air."""
    longest = max(feature.days or 0 for feature in features)
    by_key: dict[Key, list[Event]] = defaultdict(list)
    for event in events(logs):
        by_key[event.key(entity)].append(event)
    rooms: dict[int, list[dict[Any, Any]]] = defaultdict(list)
    for room in logs["rooms"].to_dict("records"):
        rooms[room["room_id"]].append(room)
    found: ProfileRows = {}
    for day in days:
        on_air = _sessions(rooms, day) if entity is Entity.ANCHOR else {}
        for key in {*by_key, *on_air}:
            seen = [event for event in by_key.get(key, ()) if event.happened < day and event.arrived < day]
            values = tuple(_value(feature, entity, seen, on_air.get(key, []), day) for feature in features)
            aired = any(value for feature, value in zip(features, values, strict=True) if isinstance(feature.op, OnAir))
            if aired or any(event.happened >= day - longest * ONE_DAY for event in seen):
                found[day, key] = values
    return found


def _value(
    feature: Feature, entity: Entity, seen: Sequence[Event], on_air: Sequence[dict[Any, Any]], day: dt.date
) -> object:
    op = feature.op
    window = [event for event in seen if event.happened >= day - (feature.days or 0) * ONE_DAY]
    if isinstance(op, Sum):
        return _sum(window, op.measure)
    if isinstance(op, Rate):
        return (_sum(window, op.numerator) + op.prior * op.strength) / (_sum(window, op.denominator) + op.strength)
    if isinstance(op, ActiveDays):
        return len(_active_days(window, op.measure))
    if isinstance(op, DaysSinceLast):
        active = _active_days(window, op.measure)
        return (day - max(active)).days if active else op.days + 1
    if isinstance(op, DistinctPartners):
        partner = "anchor_id" if entity is Entity.USER else "user_id"
        return len({getattr(event, partner) for event in window if event.amount(op.measure) > 0})
    if isinstance(op, TopCategory):
        sums = {c: _sum([e for e in window if e.category == c], op.measure) for c in {e.category for e in window}}
        best = sorted((category for category, total in sums.items() if total > 0), key=lambda c: (-sums[c], c))
        return best[0] if best else feature.default
    assert isinstance(op, OnAir)
    return sum(_on_air_ms(op, room, day) for room in on_air)


def _sum(window: Sequence[Event], measure: Measure) -> int:
    return sum(event.amount(measure) for event in window)


def _active_days(window: Sequence[Event], measure: Measure) -> set[dt.date]:
    return {event.happened for event in window if event.amount(measure) > 0}


def _sessions(rooms: Mapping[int, list[dict[Any, Any]]], day: dt.date) -> dict[Key, list[dict[Any, Any]]]:
    """(anchor_id,) → the rooms that were known before `day`, each as it was known then."""
    found: dict[Key, list[dict[Any, Any]]] = defaultdict(list)
    for rows in rooms.values():
        room = newest_room(rows, day - ONE_DAY)
        if room is not None:
            found[(room["anchor_id"],)].append(room)
    return found


def _on_air_ms(op: OnAir, room: dict[Any, Any], day: dt.date) -> int:
    end_of_window = pd.Timestamp(day)
    start_of_window = pd.Timestamp(day - op.days * ONE_DAY)
    ended = end_of_window if pd.isna(room["ended_at"]) else room["ended_at"]
    ended = min(ended, room["started_at"] + pd.Timedelta(hours=op.max_session_hours), end_of_window)
    return max(0, _ms(ended) - _ms(max(room["started_at"], start_of_window)))


def _ms(moment: pd.Timestamp) -> int:
    return moment.as_unit("ns").value // 1_000_000


def tiles(entity: Entity, logs: Mapping[str, pd.DataFrame]) -> dict[tuple[object, ...], tuple[int, ...]]:
    """(keys..., e, a) → every measure."""
    groups: dict[tuple[object, ...], list[Event]] = defaultdict(list)
    for event in events(logs):
        groups[(*event.key(entity), event.happened, event.arrived)].append(event)
    return {key: tuple(_sum(group, measure) for measure in MEASURES) for key, group in groups.items()}


def snapshots(
    entity: Entity, features: Sequence[Feature], frame: pd.DataFrame, chosen: Mapping[dt.date, dt.date]
) -> ProfileRows:
    """(day, key) → values of the snapshot features in the partition chosen for the day."""
    return {
        (day, tuple(row[name] for name in entity.keys)): tuple(_snapshot_value(f, row, day) for f in features)
        for day, partition in chosen.items()
        for row in frame[frame["dt"] == partition].to_dict("records")
    }


def _snapshot_value(feature: Feature, row: dict[Any, Any], day: dt.date) -> object:
    op = feature.op
    assert isinstance(op, Snapshot | SnapshotAge)
    value = row[op.column]
    if pd.isna(value):
        return feature.default
    if isinstance(op, SnapshotAge):
        age = (day - value).days
        return age if age >= 0 else feature.default
    return value
