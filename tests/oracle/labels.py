"""Labels, naively: every impression looks at every action, and every orphan at every impression."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import pandas as pd

from features.schema import Catalog, label_name, mask_name
from features.spec import Label
from tests.oracle.events import Row, happened, rows_of, units


@dataclass(frozen=True, kw_only=True)
class LabelRules:
    """The knobs of `features.spark.labels.labels`."""

    label_delay_days: int
    attribution_hours: int
    conversions_imply_enter: bool
    max_room_age_days: int | None = None

    @property
    def window(self) -> dt.timedelta:
        return dt.timedelta(hours=self.attribution_hours)

    def cutoff(self, shown: Row) -> dt.date:
        return shown["ts"].date() + dt.timedelta(days=self.label_delay_days)  # type: ignore[no-any-return]


def expected_labels(catalog: Catalog, logs: dict[str, pd.DataFrame], rules: LabelRules) -> dict[int, dict[str, int]]:
    """impression_id → label_*, mask_* and flag_* columns."""
    impressions, actions = rows_of(logs["impressions"]), rows_of(logs["actions"])
    rooms = rows_of(logs["rooms"])
    found = {}
    for shown in impressions:
        counted = [_counted(action, shown, impressions, rooms, rules) for action in actions]
        found[shown["impression_id"]] = _judge(catalog, [c for c in counted if c is not None], rules)
    return found


def _counted(
    action: Row, shown: Row, impressions: list[Row], rooms: list[Row], rules: LabelRules
) -> dict[str, Any] | None:
    cutoff = rules.cutoff(shown)
    if action["dt"] > cutoff or action["ts"] < shown["ts"]:
        return None
    window_end = shown["ts"] + rules.window
    is_late = action["ts"] >= window_end
    amount = action["value"]
    if action["impression_id"] is None:
        if is_late or _owner(action, impressions, cutoff) != shown["impression_id"]:
            return None
    elif action["impression_id"] != shown["impression_id"]:
        return None
    if is_late:
        begin = action["ts"] - dt.timedelta(milliseconds=units(amount, 1000))
        if action["action"] != "watch" or begin >= window_end:
            return None
        amount = (window_end - begin) // dt.timedelta(milliseconds=1) / 1000
    ended = _room_end(shown, rooms, cutoff, rules.max_room_age_days)
    room_ended = ended is not None and action["ts"] >= ended - dt.timedelta(seconds=1)
    return {
        "action": action["action"],
        "amount": amount,
        "cut": action["action"] == "watch" and (is_late or room_ended),
    }


def _owner(action: Row, impressions: list[Row], cutoff: dt.date) -> int | None:
    earlier = [
        (shown["ts"], shown["impression_id"])
        for shown in impressions
        if (shown["user_id"], shown["room_id"]) == (action["user_id"], action["room_id"])
        and shown["ts"] <= action["ts"]
        and shown["dt"] <= cutoff
    ]
    return max(earlier)[1] if earlier else None


def _room_end(shown: Row, rooms: list[Row], cutoff: dt.date, max_age_days: int | None) -> pd.Timestamp | None:
    oldest = dt.date.min if max_age_days is None else cutoff - dt.timedelta(days=max_age_days)
    ends = [
        (room["dt"], happened(room), room["ended_at"])
        for room in rooms
        if room["room_id"] == shown["room_id"] and oldest <= room["dt"] <= cutoff and room["ended_at"] is not None
    ]
    return max(ends)[2] if ends else None


def _judge(catalog: Catalog, counted: list[dict[str, Any]], rules: LabelRules) -> dict[str, int]:
    did = {row["action"] for row in counted}
    conversions = {label.action for label in catalog.labels if label.space == "entered"}
    orphaned = bool(did & conversions) and "enter" not in did
    entered = "enter" in did or (orphaned and rules.conversions_imply_enter)
    row: dict[str, int] = {}
    flags = {"flag_conversion_without_enter": int(orphaned)}
    for label in catalog.labels:
        positive, masked = _rule(label, counted, entered, conversions)
        if label.space == "entered" and not entered:
            positive, masked = False, "outside"
        row[label_name(label.name)] = int(positive and masked is None)
        row[mask_name(label.name)] = int(masked is None)
        if label.positive_from is not None:
            flags |= {f"flag_{label.name}_{why}": int(masked == why) for why in ("between", "cut_off", "missing")}
    return row | flags


def _rule(label: Label, counted: list[dict[str, Any]], entered: bool, conversions: set[str]) -> tuple[bool, str | None]:
    """Positive or not, and why it is masked."""
    rows = [row for row in counted if row["action"] == label.action]
    if label.positive_from is None:
        if label.action == "enter":
            return entered, None
        return bool(rows) and (entered or label.action not in conversions), None
    amount = sum(units(row["amount"], 1000) for row in rows)
    if label.action == "watch" and entered and not rows:
        return False, "missing"
    if amount >= label.positive_from * 1000:
        return True, None
    if any(row["cut"] for row in rows):
        return False, "cut_off"
    is_negative = label.negative_to is None or amount <= label.negative_to * 1000
    return False, None if is_negative else "between"
