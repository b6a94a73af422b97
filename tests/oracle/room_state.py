"""Room state, naively: every impression looks at every minute and at every row of its room."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pandas as pd

from features.schema import Catalog
from features.spec import Entity, Feature, RoomAge, RoomField, RoomLast, RoomSum
from tests.oracle.events import Row, happened, newest_room_row, rows_of

MINUTE = dt.timedelta(minutes=1)


def expected_room_state(
    catalog: Catalog, logs: dict[str, pd.DataFrame], event_lag_s: int, max_room_age_days: int | None = None
) -> dict[int, dict[str, Any]]:
    """impression_id → feature → value."""
    minutes, rooms = rows_of(logs["room_stats"]), rows_of(logs["rooms"])
    found = {}
    for shown in rows_of(logs["impressions"]):
        cutoff = shown["ts"] - dt.timedelta(seconds=event_lag_s)
        known = [row for row in rooms if _arrived(row, shown) and happened(row) < cutoff]
        if max_room_age_days is not None:
            known = [row for row in known if row["dt"] >= shown["ts"].date() - dt.timedelta(days=max_room_age_days)]
        heat = [row for row in minutes if _arrived(row, shown) and row["minute"] + MINUTE < cutoff]
        newest = newest_room_row(known, ("started_at", "category", "content"))
        found[shown["impression_id"]] = {
            feature.name: _value(feature, shown["ts"], cutoff, newest, heat)
            for feature in catalog.of_entity(Entity.ROOM)
        }
    return found


def _arrived(row: Row, shown: Row) -> bool:
    return bool(row["room_id"] == shown["room_id"] and row["dt"] <= shown["ts"].date())


def _value(feature: Feature, ts: pd.Timestamp, cutoff: pd.Timestamp, newest: Row | None, heat: list[Row]) -> Any:
    value: Any = None
    span = getattr(feature.op, "minutes", 0)
    recent = [row for row in heat if row["minute"] + MINUTE > cutoff - span * MINUTE]
    match feature.op:
        case RoomLast(column=column) if recent:
            value = max(recent, key=lambda row: row["minute"])[column]
        case RoomSum(column=column) if recent:
            value = sum(row[column] for row in recent)
        case RoomField(column=column) if newest is not None:
            value = newest[column]
        case RoomAge() if newest is not None:
            value = (ts - newest["started_at"]) // MINUTE
    return feature.default if value is None else value
