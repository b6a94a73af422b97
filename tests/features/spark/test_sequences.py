"""Sequences against the naive oracle, alone against in bulk, and one user with a million events."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from features.schema import Catalog, load_catalog, sequence_name
from features.spark.asof_merge import AT, DAY, KIND, ORDER, QUERY, Chunk
from features.spark.event_time import DAY_MICROS, MICROS
from features.spark.sequences import SequenceKernel, output_schema, sequences
from tests.features.random_logs import RawLogs, many_logs, to_spark
from tests.oracle.sequences import expected_sequences

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SEEDS = range(12)
SHUFFLE_PARTITIONS = "spark.sql.shuffle.partitions"
Rows = dict[int, dict[str, Any]]


def short_and_long() -> Catalog:
    """The catalog, and each of its sequences once more: so short and young that length and age cut it."""
    catalog = load_catalog()
    short = (dataclasses.replace(s, name=f"{s.name}_short", length=2, max_age_days=1) for s in catalog.sequences)
    return dataclasses.replace(catalog, sequences=(*catalog.sequences, *short))


def compute(spark: SparkSession, logs: RawLogs, event_lag_s: int, partitions: int | None = None) -> Rows:
    tables = to_spark(spark, logs)
    if partitions is not None:
        tables = {name: table.repartition(partitions) for name, table in tables.items()}
    found = sequences(short_and_long(), tables["impressions"], tables["actions"], tables["rooms"], event_lag_s)
    return by_impression(found)


def by_impression(found: DataFrame) -> Rows:
    """Rows as dictionaries; fails on a repeated impression."""
    rows = [row.asDict() for row in found.collect()]
    keyed = {row.pop("impression_id"): row for row in rows}
    assert len(keyed) == len(rows)
    return keyed


@pytest.fixture(scope="module")
def logs() -> RawLogs:
    return many_logs(SEEDS)


@pytest.mark.spark
@pytest.mark.parametrize("event_lag_s", [0, 1800])
def test_sequences_equal_the_oracle(spark: SparkSession, logs: RawLogs, event_lag_s: int) -> None:
    expected = expected_sequences(short_and_long(), logs, event_lag_s)
    assert compute(spark, logs, event_lag_s) == expected
    lengths = {len(row["watched_anchor"]) for row in expected.values()}
    assert {0, 1, 2, 3} <= lengths, "the logs do not exercise sequences"


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


def million_events(users: int) -> Chunk:
    """One million watches of the last 20 days spread over `users`, and 2,000 impressions on two days."""
    events, queries = 1_000_000, 2_000
    start = 19_000 * DAY_MICROS
    kind = np.repeat([0, QUERY], [events, queries])
    user = np.concatenate((np.arange(events) % users, np.arange(queries) % users))
    at = np.concatenate(
        (start + np.arange(events) * (18 * DAY_MICROS // events), np.full(queries, start + 20 * DAY_MICROS))
    )
    day = np.concatenate((np.full(events, 19_000), 19_020 + np.arange(queries) % 2))
    order = np.lexsort((at, kind, user))
    columns = {
        KIND: kind,
        AT: at,
        DAY: day,
        ORDER: np.arange(events + queries),
        "impression_id": np.arange(events + queries),
        "anchor_id": np.arange(events + queries),
        "value": np.ones(events + queries),
    }
    table = pa.table({name: values[order] for name, values in columns.items()})
    table = table.append_column("category", pa.array(["music"] * table.num_rows))
    return Chunk(table=table, segment=user[order], kind=kind[order])


@pytest.mark.parametrize("users", [1, 1_000])
def test_a_user_with_a_million_events(users: int) -> None:
    catalog = load_catalog()
    kernel = SequenceKernel(sequences=catalog.sequences, kinds={"watch": 0, "gift": 1}, lag=60 * MICROS)
    batches = list(kernel(million_events(users)))
    assert sum(batch.num_rows for batch in batches) == 2_000
    name = sequence_name("watched", "anchor")
    for batch in batches:
        newest = batch.column(name).to_pylist()
        assert all(len(row) == 50 and row == sorted(row, reverse=True) for row in newest)
        assert batch.schema.names == output_schema(catalog).names
