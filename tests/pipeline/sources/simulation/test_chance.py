"""Draws depend on (seed, stream, key) only, and are spread as they claim."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pytest
from pyspark.sql import functions as F

from pipeline.sources.simulation.chance import ID_BITS, Chance

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROWS = 20_000
FIVE_SIGMA = 5.0


@pytest.fixture(scope="module")
def draws(spark: SparkSession) -> pd.DataFrame:
    chance, key = Chance(seed=1), F.col("id")
    rows = (
        spark.range(ROWS, numPartitions=3)
        .select(
            key,
            chance.uniform("a", key).alias("a"),
            chance.uniform("b", key).alias("b"),
            Chance(seed=2).uniform("a", key).alias("other_seed"),
            chance.normal("n", key).alias("normal"),
            chance.below("k", 7, key).alias("below"),
            chance.permuted_id("thing", key).alias("thing_id"),
        )
        .collect()
    )
    return pd.DataFrame([row.asDict() for row in rows])


def test_uniforms_are_uniform(draws: pd.DataFrame) -> None:
    deciles = (draws["a"] * 10).astype(int).value_counts()
    expected = ROWS / 10
    assert draws["a"].between(0.0, 1.0, inclusive="neither").all()
    assert sorted(deciles.index) == list(range(10))
    assert ((deciles - expected).abs() < FIVE_SIGMA * expected**0.5).all()


@pytest.mark.parametrize("other", ["b", "other_seed"])
def test_streams_and_seeds_are_unrelated(draws: pd.DataFrame, other: str) -> None:
    assert abs(draws["a"].corr(draws[other])) < FIVE_SIGMA / ROWS**0.5


def test_normals_are_normal(draws: pd.DataFrame) -> None:
    normal = draws["normal"]
    assert abs(normal.mean()) < FIVE_SIGMA / ROWS**0.5
    assert abs(float(normal.std()) ** 2 - 1.0) < FIVE_SIGMA * (2.0 / ROWS) ** 0.5
    assert abs((normal.abs() > 1.959964).mean() - 0.05) < FIVE_SIGMA * (0.05 * 0.95 / ROWS) ** 0.5


def test_below_reaches_every_value_and_not_the_bound(draws: pd.DataFrame) -> None:
    assert sorted(draws["below"].unique()) == list(range(7))


def test_ids_are_distinct_scattered_and_beyond_float64(draws: pd.DataFrame) -> None:
    ids = draws["thing_id"]
    assert ids.is_unique
    assert ids.between(0, 2**ID_BITS - 1).all()
    assert (ids > 2**53).mean() > 0.95
    assert abs(ids.astype(float).corr(draws["id"].astype(float))) < FIVE_SIGMA / ROWS**0.5


def test_draws_ignore_the_partitioning(spark: SparkSession) -> None:
    chance, key = Chance(seed=1), F.col("id")
    draws = [
        sorted(spark.range(1000, numPartitions=parts).select(key, chance.normal("n", key)).collect())
        for parts in (1, 7)
    ]
    assert draws[0] == draws[1]
