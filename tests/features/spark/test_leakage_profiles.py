"""Leakage by mutation: what happened or arrived on or after D changes no as-of feature of D.

Log k and its mutated copy are computed by the same job, under ids that lie apart; each has a day D of its own.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest

from features.schema import load_catalog
from features.spark.snapshots import SNAPSHOT_TABLES, choose_snapshots, snapshot_features
from features.spec import TILED_ENTITIES, Entity
from tests.features.mutation import mutated_from
from tests.features.random_logs import LOG_STRIDE, LogShape, joined, moved, random_logs, to_spark
from tests.features.spark.profile_rows import SparkProfiles, by_day_and_key
from tests.features.spark.short_windows import SHORT_WINDOWS

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from tests.oracle.profiles import ProfileRows

pytestmark = pytest.mark.spark

CUTS = {seed: LogShape().first_day + dt.timedelta(days=2 + seed % 6) for seed in range(100, 112)}
"""Seed of the log → its day D."""
LATER = dt.timedelta(days=3)


def log_number(key: tuple[object, ...]) -> int:
    owner = next(part for part in key if isinstance(part, int))
    return owner // LOG_STRIDE


def of_log(rows: ProfileRows, number: int, day: dt.date) -> dict[tuple[object, ...], tuple[object, ...]]:
    """The rows of one log as of one day, under the ids the log had before it was moved."""
    return {
        tuple(part - number * LOG_STRIDE if isinstance(part, int) else part for part in key): values
        for (at, key), values in rows.items()
        if at == day and log_number(key) == number
    }


@pytest.fixture(scope="module")
def computed(spark: SparkSession) -> SparkProfiles:
    logs = [random_logs(seed) for seed in CUTS]
    mutants = [mutated_from(log, day, seed) for log, (seed, day) in zip(logs, CUTS.items(), strict=True)]
    both = joined(moved(log, place * LOG_STRIDE) for place, log in enumerate([*logs, *mutants]))
    return SparkProfiles(spark, both, partitions=3)


@pytest.mark.parametrize("entity", TILED_ENTITIES)
def test_the_future_changes_no_profile(computed: SparkProfiles, entity: Entity) -> None:
    days = sorted({*CUTS.values(), *(day + LATER for day in CUTS.values())})
    rows = computed.rows(entity, SHORT_WINDOWS, days)
    changed_later = 0
    for place, day in enumerate(CUTS.values()):
        before, after = of_log(rows, place, day), of_log(rows, place + len(CUTS), day)
        assert before, f"log {place} has no profile on {day}: the trial shows nothing"
        assert after == before
        changed_later += of_log(rows, place, day + LATER) != of_log(rows, place + len(CUTS), day + LATER)
    assert changed_later == len(CUTS), "a mutation that changes nothing afterwards proves nothing"


@pytest.mark.parametrize("entity", list(SNAPSHOT_TABLES))
def test_the_future_changes_no_snapshot_feature(spark: SparkSession, entity: Entity) -> None:
    table, day = SNAPSHOT_TABLES[entity], LogShape().first_day + dt.timedelta(days=4)
    found = []
    for logs in (random_logs(100), mutated_from(random_logs(100), day, 100)):
        partitions = set(logs[table]["dt"])
        chosen = choose_snapshots(table, partitions, days=[day, day + LATER], max_age_days=10)
        raw = to_spark(spark, {table: logs[table]})[table]
        frame = snapshot_features(entity, catalog=load_catalog(), snapshots=raw, chosen=chosen)
        found.append(by_day_and_key(frame, entity))
    today, later = ([{k: v for k, v in rows.items() if k[0] == at} for rows in found] for at in (day, day + LATER))
    assert today[0] == today[1]
    assert today[0]
    assert later[0] != later[1]
