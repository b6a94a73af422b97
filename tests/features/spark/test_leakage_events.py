"""Leakage by mutation: what an impression may not see can be deleted, changed or added, and nothing moves.

1. a probe: one impression of a random log, its day D and its cutoff ts − event_lag
2. the log as it is, and three mutations of everything that the probe may not see (and of nothing else)
3. all copies of all probes side by side (ids moved apart), one Spark call per stage
4. the probe's row must be the same in all four; and what it may see, deleted, must change some probe's row
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from features.schema import load_catalog
from features.spark.room_state import room_state
from features.spark.sequences import sequences
from tests.features.random_logs import LOG_STRIDE, RawLogs, joined, moved, random_logs, to_spark
from tests.features.spark.test_sequences import by_impression

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

EVENT_LAG_S = 60
MINUTE = dt.timedelta(minutes=1)
EVENT_TABLES = ("actions", "rooms", "room_stats")


@dataclass(frozen=True)
class Probe:
    """An impression and what the event clock lets it see."""

    logs: RawLogs
    impression_id: int
    ts: pd.Timestamp

    @property
    def cutoff(self) -> pd.Timestamp:
        return self.ts - dt.timedelta(seconds=EVENT_LAG_S)

    def sees(self, table: str, frame: pd.DataFrame) -> pd.Series:
        """Which rows arrived by D and were complete before the cutoff."""
        complete = {
            "actions": lambda: frame["ts"],
            "rooms": lambda: frame[["started_at", "ended_at"]].max(axis=1),
            "room_stats": lambda: frame["minute"] + MINUTE,
        }[table]()
        return (frame["dt"] <= self.ts.date()) & (complete < self.cutoff)

    def mutated(self, change: Callable[[Probe, str, pd.DataFrame], pd.DataFrame]) -> RawLogs:
        return self.logs | {table: change(self, table, self.logs[table]) for table in EVENT_TABLES}


def deleted(probe: Probe, table: str, frame: pd.DataFrame) -> pd.DataFrame:
    return frame[probe.sees(table, frame)]


def changed(probe: Probe, table: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Other values, categories and counts in every row out of sight."""
    hidden = ~probe.sees(table, frame)
    changes: dict[str, dict[str, Any]] = {
        "actions": {"value": 9_999.0, "anchor_id": 999},
        "rooms": {"category": "changed"},
        "room_stats": {"viewers": 9_999, "entries": 9_999, "comments": 9_999, "gift_coins": 9_999},
    }
    return frame.assign(**{column: frame[column].mask(hidden, value) for column, value in changes[table].items()})


def added(probe: Probe, table: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Every visible row twice more: once complete exactly at the cutoff, once arriving the day after D."""
    seen = frame[probe.sees(table, frame)]
    day = probe.ts.date()
    at_cutoff: dict[str, dict[str, Any]] = {
        "actions": {"ts": probe.cutoff, "value": 8_888.0},
        "rooms": {"ended_at": probe.cutoff, "category": "added"},
        "room_stats": {"minute": probe.cutoff - MINUTE, "viewers": 8_888, "entries": 8_888},
    }
    late = {"dt": day + dt.timedelta(days=1)}
    copies = [seen.assign(dt=day, **at_cutoff[table]), seen.assign(**late)]
    if table == "actions":
        copies = [copy.assign(action_id=copy["action_id"] + 100_000 * (k + 1)) for k, copy in enumerate(copies)]
    kept = [part for part in (frame, *copies) if len(part)]
    return pd.concat(kept, ignore_index=True).astype(frame.dtypes.to_dict())


def history_deleted(probe: Probe, table: str, frame: pd.DataFrame) -> pd.DataFrame:
    """The control: everything that may be seen."""
    return frame[~probe.sees(table, frame)]


MUTATIONS = (deleted, changed, added, history_deleted)


def probes() -> list[Probe]:
    """Of each log the impressions in the middle of its days, where there is a past and a future."""
    found = []
    for seed in range(60, 66):
        logs = random_logs(seed)
        for place in (0.4, 0.6, 0.8):
            shown = logs["impressions"].sort_values(["ts", "impression_id"]).iloc[int(place * len(logs["impressions"]))]
            found.append(Probe(logs, int(shown["impression_id"]), shown["ts"]))
    return found


@pytest.mark.spark
def test_what_an_impression_may_not_see_changes_nothing(spark: SparkSession) -> None:
    cases = probes()
    copies = [copy for probe in cases for copy in (probe.logs, *(probe.mutated(change) for change in MUTATIONS))]
    tables = to_spark(spark, joined(moved(copy, place * LOG_STRIDE) for place, copy in enumerate(copies)))
    shown, rooms = tables["impressions"], tables["rooms"]
    history = by_impression(sequences(load_catalog(), shown, tables["actions"], rooms, EVENT_LAG_S))
    state = by_impression(room_state(load_catalog(), shown, tables["room_stats"], rooms, EVENT_LAG_S))
    moving = 0
    for number, probe in enumerate(cases):
        places = range(number * (1 + len(MUTATIONS)), (number + 1) * (1 + len(MUTATIONS)))
        ids = [probe.impression_id + place * LOG_STRIDE for place in places]
        rows = [_own_ids(history[i] | state[i], i // LOG_STRIDE) for i in ids]
        base, *mutated, without_history = rows
        for change, row in zip(MUTATIONS, mutated, strict=False):
            assert row == base, f"{change.__name__} rows out of sight moved impression {probe.impression_id}"
        moving += without_history != base
    assert moving > len(cases) / 2, "the probes see too little to prove anything"


def _own_ids(row: dict[str, Any], place: int) -> dict[str, Any]:
    """Anchor ids moved back to the log's own."""
    return {
        name: [value - place * LOG_STRIDE for value in values] if name.endswith("_anchor") else values
        for name, values in row.items()
    }
