"""Room state against the naive oracle, whatever the partitions."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from features.schema import Catalog, load_catalog
from features.spark.room_state import room_state
from features.spec import Dense, DType, Entity, Feature, RoomLast, RoomSum
from tests.features.random_logs import RawLogs, many_logs, to_spark
from tests.features.spark.test_sequences import SHUFFLE_PARTITIONS, Rows, by_impression
from tests.oracle.room_state import expected_room_state

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SEEDS = range(20, 32)


def long_windows() -> Catalog:
    """The catalog, with sums long enough for the sparse minutes of random logs, and defaults other than 0."""
    catalog = load_catalog()
    common = {"entity": Entity.ROOM, "dtype": DType.BIGINT, "encoding": Dense(), "doc": ""}
    more = (
        Feature(name="comments_600m", op=RoomSum(column="comments", minutes=600), default=-7, **common),  # type: ignore[arg-type]
        Feature(name="last_entries", op=RoomLast(column="entries", minutes=600), default=-1, **common),  # type: ignore[arg-type]
    )
    return dataclasses.replace(catalog, features=(*catalog.features, *more))


def compute(
    spark: SparkSession,
    logs: RawLogs,
    event_lag_s: int,
    partitions: int | None = None,
    max_room_age_days: int | None = None,
) -> Rows:
    tables = to_spark(spark, logs)
    if partitions is not None:
        tables = {name: table.repartition(partitions) for name, table in tables.items()}
    found = room_state(
        long_windows(),
        tables["impressions"],
        tables["room_stats"],
        tables["rooms"],
        event_lag_s,
        max_room_age_days,
    )
    return by_impression(found)


@pytest.fixture(scope="module")
def logs() -> RawLogs:
    return many_logs(SEEDS)


@pytest.mark.spark
@pytest.mark.parametrize("event_lag_s", [0, 1740])
def test_room_state_equals_the_oracle(spark: SparkSession, logs: RawLogs, event_lag_s: int) -> None:
    expected = expected_room_state(long_windows(), logs, event_lag_s)
    assert compute(spark, logs, event_lag_s) == expected
    values = pd.DataFrame.from_dict(expected, orient="index")
    assert values["category"].nunique() >= 4
    assert (values.drop(columns=["category", "room_content"]).nunique() > 5).all(), "the logs do not exercise rooms"


@pytest.mark.spark
def test_rooms_whose_rows_are_too_old_are_unknown(spark: SparkSession, logs: RawLogs) -> None:
    expected = expected_room_state(long_windows(), logs, 0, max_room_age_days=1)
    assert compute(spark, logs, 0, max_room_age_days=1) == expected
    assert expected != expected_room_state(long_windows(), logs, 0)


@pytest.mark.spark
def test_partitions_do_not_matter(spark: SparkSession, logs: RawLogs) -> None:
    before = spark.conf.get(SHUFFLE_PARTITIONS)
    found = []
    try:
        for partitions in (1, 7):
            spark.conf.set(SHUFFLE_PARTITIONS, str(partitions))
            found.append(compute(spark, logs, 60, partitions))
    finally:
        spark.conf.set(SHUFFLE_PARTITIONS, before or "4")
    assert found[0] == found[1]
