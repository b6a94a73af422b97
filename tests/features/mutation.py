"""What may never matter as of day D, changed at random: rows that happened or arrived on or after D."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd

from tests.features.random_logs import RawLogs

EVENT_TIME = {"impressions": "ts", "actions": "ts", "rooms": "started_at", "room_stats": "minute"}
FIXED = {
    "impressions": {"impression_id"},
    "actions": {"action_id", "impression_id"},
    "users": {"user_id"},
    "anchors": {"anchor_id"},
    "rooms": {"ended_at"},
    "room_stats": {"room_id"},
}
"""Columns that a change leaves as they are, besides `dt` and the event time: keys, and ends that follow starts."""
LOG_KEYS = {"impressions": "impression_id", "actions": "action_id"}


def mutated_from(logs: RawLogs, day: dt.date, seed: int) -> RawLogs:
    """The logs with a third of the rows that `day` must not see deleted, a third changed, and new ones added.

    New rows are copies of rows that `day` may see, moved so that they happen on `day` or later, or (late rows) that
    they only arrive then. A room may get a row with another category, an end, or another anchor.
    """
    rng = np.random.default_rng(seed)
    return {name: _mutated(name, frame, day, rng) for name, frame in logs.items()}


def _mutated(name: str, frame: pd.DataFrame, day: dt.date, rng: np.random.Generator) -> pd.DataFrame:
    hidden = _hidden(name, frame, day)
    seen, unseen = frame[~hidden], frame[hidden]
    fate = rng.integers(3, size=len(unseen))
    changed = _changed(name, unseen[fate == 1], rng)
    parts = [seen, unseen[fate == 2], changed]
    if name in EVENT_TIME and len(seen):
        parts.append(_moved_after(name, seen.sample(n=min(8, len(seen)), random_state=1), day, rng))
    types = frame.dtypes.to_dict()
    mutated: pd.DataFrame = pd.concat([part.astype(types) for part in parts if len(part)], ignore_index=True)
    return mutated


def _hidden(name: str, frame: pd.DataFrame, day: dt.date) -> pd.Series[bool]:
    late = frame["dt"] >= day
    return late | (frame[EVENT_TIME[name]] >= pd.Timestamp(day)) if name in EVENT_TIME else late


def _changed(name: str, rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Every column that is not fixed gets another row's value; amounts grow."""
    rows = rows.copy()
    fixed = {*FIXED[name], "dt", EVENT_TIME.get(name)}
    for column in [column for column in rows.columns if column not in fixed]:
        rows[column] = rows[column].array[rng.permutation(len(rows))]
    for amount in {"value", "viewers", "entries", "comments", "gift_coins"} & set(rows.columns):
        rows[amount] = rows[amount] + 1
    return rows


def _moved_after(name: str, rows: pd.DataFrame, day: dt.date, rng: np.random.Generator) -> pd.DataFrame:
    """Copies that `day` must not see; the event time moves for half of them, the arrival for all."""
    rows, time = rows.copy(), EVENT_TIME[name]
    moves = rng.random(len(rows)) < 0.5
    midnight = pd.Timestamp(day).as_unit("us")
    rows[time] = rows[time].where(~moves, midnight + pd.to_timedelta(rng.integers(0, 3 * 86_400, len(rows)), unit="s"))
    happened = [moment.date() for moment in rows[time]]
    rows["dt"] = [max(day, at) + dt.timedelta(days=int(rng.integers(3))) for at in happened]
    if name in LOG_KEYS:
        rows[LOG_KEYS[name]] += 500_000
    if name == "rooms":
        rows["category"] = "mutated"
        rows["ended_at"] = rows["started_at"] + pd.Timedelta(minutes=7)
        rows["anchor_id"] = rows["anchor_id"].to_numpy()[rng.permutation(len(rows))]
    if name == "room_stats":
        rows = rows[~moves]
    return rows
