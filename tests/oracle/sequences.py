"""Sequences, naively: every impression looks at every action."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pandas as pd

from features.schema import Catalog, sequence_name
from tests.oracle.events import Row, happened, newest_room_row, rows_of, units


def expected_sequences(
    catalog: Catalog, logs: dict[str, pd.DataFrame], event_lag_s: int, max_room_age_days: int | None = None
) -> dict[int, dict[str, list[Any]]]:
    """impression_id → column → values, newest first."""
    actions, rooms = rows_of(logs["actions"]), rows_of(logs["rooms"])
    for action in actions:
        action["category"] = category_then(action, rooms, max_room_age_days)
    return {shown["impression_id"]: _of(catalog, shown, actions, event_lag_s) for shown in rows_of(logs["impressions"])}


def category_then(action: Row, rooms: list[Row], max_room_age_days: int | None = None) -> str:
    """The category of an action's room by the rows that arrived by the action's day and had happened by its ts."""
    oldest = dt.date.min if max_room_age_days is None else action["dt"] - dt.timedelta(days=max_room_age_days)
    known = [
        room
        for room in rooms
        if room["room_id"] == action["room_id"]
        and oldest <= room["dt"] <= action["dt"]
        and happened(room) <= action["ts"]
    ]
    newest = newest_room_row(known, ("category",))
    return "" if newest is None or newest["category"] is None else newest["category"]


def _of(catalog: Catalog, shown: Row, actions: list[Row], event_lag_s: int) -> dict[str, list[Any]]:
    found = {}
    for sequence in catalog.sequences:
        seen = [
            action
            for action in actions
            if action["action"] == sequence.action
            and action["user_id"] == shown["user_id"]
            and action["dt"] <= shown["ts"].date()
            and action["ts"] < shown["ts"] - dt.timedelta(seconds=event_lag_s)
            and shown["ts"] - action["ts"] <= dt.timedelta(days=sequence.max_age_days)
        ]
        newest = sorted(seen, key=lambda action: (action["ts"], action["action_id"]), reverse=True)[: sequence.length]
        for field in sequence.fields:
            name = sequence_name(sequence.name, field.name)
            found[name] = [_value(field.source, action, shown) for action in newest]
    return found


def _value(source: str, action: Row, shown: Row) -> Any:
    if source == "age_s":
        return (shown["ts"] - action["ts"]) // dt.timedelta(seconds=1)
    if source == "watch_ms":
        return units(action["value"], 1000)
    if source == "coins":
        return units(action["value"], 1)
    return action[source]
