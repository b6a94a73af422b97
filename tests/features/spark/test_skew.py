"""One user and one room with four fifths of all rows: the same rows as the oracle's, and no join that they could sink.

A hot key lies in one partition and spans many Arrow batches; the batches are made so small here that it does.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

from features.schema import load_catalog
from features.spark.action_events import action_events
from features.spark.recent_actions import action_tiles, as_stored, recent_actions
from features.spark.room_state import room_state
from features.spark.sequences import sequences
from tests.features.random_logs import LogShape, RawLogs, random_logs, to_spark
from tests.features.spark.test_recent_actions import states_of
from tests.features.spark.test_sequences import by_impression
from tests.oracle.recent_actions import expected_recent
from tests.oracle.room_state import expected_room_state
from tests.oracle.sequences import expected_sequences

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.spark

BATCH_ROWS = "spark.sql.execution.arrow.maxRecordsPerBatch"
LAG_S = 60
ANY_JOIN = re.compile(r"\w*(?:Join|CartesianProduct)\b")


@pytest.fixture(scope="module")
def hot() -> RawLogs:
    """User 1 and room 1 have four fifths of impressions and actions, beside forty users and rooms."""
    logs = random_logs(7, LogShape(users=40, rooms=40, anchors=10, impressions=400, quiet_share=0))
    rng = np.random.default_rng(7)
    anchor = int(logs["rooms"].loc[logs["rooms"]["room_id"] == 1, "anchor_id"].iloc[0])
    for table in ("impressions", "actions"):
        is_hot = rng.random(len(logs[table])) < 0.8
        for column, value in (("user_id", 1), ("room_id", 1), ("anchor_id", anchor)):
            logs[table][column] = logs[table][column].mask(is_hot, value)
    return logs


@pytest.fixture
def small_batches(spark: SparkSession) -> Iterator[None]:
    before = spark.conf.get(BATCH_ROWS)
    spark.conf.set(BATCH_ROWS, "16")
    yield
    spark.conf.set(BATCH_ROWS, before or "10000")


def frames_of(spark: SparkSession, logs: RawLogs) -> dict[str, DataFrame]:
    """Everything that is computed in event time, of the tables as Spark has them."""
    tables = to_spark(spark, logs)
    shown, actions, rooms = tables["impressions"], tables["actions"], tables["rooms"]
    days = [max(logs["actions"]["dt"])]
    arrivals = [days[0] - dt.timedelta(days=back) for back in range(1, 31)]
    events = action_events(load_catalog(), actions, rooms)
    tiles = action_tiles(load_catalog(), events, days=arrivals, event_lag_s=LAG_S)
    return {
        "sequences": sequences(load_catalog(), shown, actions, rooms, LAG_S),
        "room state": room_state(load_catalog(), shown, tables["room_stats"], rooms, LAG_S),
        "recent actions": recent_actions(load_catalog(), as_stored(tiles), days=days, event_lag_s=LAG_S),
    }


def test_a_hot_key_gives_the_rows_of_the_oracle(spark: SparkSession, hot: RawLogs, small_batches: None) -> None:
    frames = frames_of(spark, hot)
    days = [max(hot["actions"]["dt"])]
    assert by_impression(frames["sequences"]) == expected_sequences(load_catalog(), hot, LAG_S)
    assert by_impression(frames["room state"]) == expected_room_state(load_catalog(), hot, LAG_S)
    assert states_of(frames["recent actions"], days) == expected_recent(load_catalog(), hot, days, LAG_S)
    assert (hot["actions"]["user_id"] == 1).mean() > 0.7


def test_event_time_joins_nothing(spark: SparkSession, hot: RawLogs) -> None:
    """A range join would be a nested loop, or pair all minutes of a room with all its impressions."""
    for name, frame in frames_of(spark, hot).items():
        plan = frame._jdf.queryExecution().executedPlan().toString()
        assert "PythonMapInArrow" in plan or "MapInArrow" in plan, f"{name}: the plan is not what this test reads"
        assert ANY_JOIN.findall(plan) == [], name
    joined = frames_of(spark, hot)["sequences"].crossJoin(spark.range(2))
    assert ANY_JOIN.search(joined._jdf.queryExecution().executedPlan().toString()), "the pattern finds no join"
