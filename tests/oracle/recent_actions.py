"""The last actions of each user before a day, naively: every action is looked at for every day."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pandas as pd

from features.schema import Catalog
from tests.oracle.events import Row, rows_of
from tests.oracle.sequences import category_then

State = dict[tuple[int, str], list[tuple[Any, ...]]]


def expected_recent(catalog: Catalog, logs: dict[str, pd.DataFrame], days: list[dt.date], lag_s: int) -> list[State]:
    """Per day: (user_id, action) → (ts, action_id, anchor_id, category, value), oldest first; only keys with some."""
    actions, rooms = rows_of(logs["actions"]), rows_of(logs["rooms"])
    for action in actions:
        action["category"] = category_then(action, rooms)
    return [_before(catalog, actions, day, lag_s) for day in days]


def _before(catalog: Catalog, actions: list[Row], day: dt.date, lag_s: int) -> State:
    found: State = {}
    midnight = pd.Timestamp(day)
    for kind in {sequence.action for sequence in catalog.sequences}:
        length = max(s.length for s in catalog.sequences if s.action == kind)
        age = dt.timedelta(days=max(s.max_age_days for s in catalog.sequences if s.action == kind))
        known = [row for row in actions if row["action"] == kind and row["dt"] < day and row["ts"] >= midnight - age]
        for user in {row["user_id"] for row in known}:
            own = sorted((r for r in known if r["user_id"] == user), key=lambda r: (r["ts"], r["action_id"]))
            settled = [row for row in own if row["ts"] < midnight - dt.timedelta(seconds=lag_s)]
            found[user, kind] = [_kept(row) for row in (*settled[-length:], *own[len(settled) :])]
    return found


def _kept(row: Row) -> tuple[Any, ...]:
    return row["ts"], row["action_id"], row["anchor_id"], row["category"], row["value"] or 0.0
