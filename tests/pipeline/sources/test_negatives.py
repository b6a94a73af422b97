"""Sampled negatives: which items, how many, the same however the rows lie."""

from __future__ import annotations

import collections
import datetime as dt

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.sources.negatives import NegativesConf, drawable_items, sample_negatives
from tests.pipeline.raw_rows import day

CONF = NegativesConf(ratio=1.5, seed=3, pool_days=2)
DAYS, USERS, PER_DAY = 5, 20, 120


def _positives(spark: SparkSession) -> DataFrame:
    """Each day 120 rows by 20 users; item k is bought about twice as often as item 2k, and items drift by the day."""
    rows = spark.range(DAYS * PER_DAY)
    number = F.col("id") % PER_DAY
    on = F.floor(F.col("id") / PER_DAY).cast("int")
    return rows.select(
        (F.col("id") + 1000).alias("key"),
        F.pmod(F.col("id") * 7, F.lit(USERS)).alias("user_id"),
        (on * 10 + F.floor(F.pow(F.lit(2.0), number / 20))).cast("bigint").alias("item"),
        F.date_add(F.lit(day(0)), on).alias("day"),
    )


def _sample(positives: DataFrame, conf: NegativesConf = CONF) -> set[tuple[int, int, int, int, dt.date]]:
    wanted = positives.where(F.col("day") >= F.lit(day(2))).select("key", "user_id", "day")
    return {tuple(row) for row in sample_negatives(positives, wanted, conf).collect()}


@pytest.fixture(scope="module")
def bought(spark: SparkSession) -> list[tuple[int, int, int, dt.date]]:
    return [tuple(row) for row in _positives(spark).collect()]


@pytest.fixture(scope="module")
def drawn(spark: SparkSession) -> set[tuple[int, int, int, int, dt.date]]:
    return _sample(_positives(spark))


def test_the_same_whatever_the_partitions_and_their_order(
    spark: SparkSession, drawn: set[tuple[int, int, int, int, dt.date]]
) -> None:
    shuffled = _positives(spark).orderBy(F.rand(5)).repartition(7)
    assert _sample(shuffled) == drawn


def test_another_seed_draws_others(spark: SparkSession, drawn: set[tuple[int, int, int, int, dt.date]]) -> None:
    assert _sample(_positives(spark), CONF.model_copy(update={"seed": 4})) != drawn


def test_items_were_seen_in_the_days_before_and_on_no_other(
    bought: list[tuple[int, int, int, dt.date]], drawn: set[tuple[int, int, int, int, dt.date]]
) -> None:
    seen = collections.defaultdict(set)
    for _, _, item, on in bought:
        seen[on].add(item)
    for _, _, _, item, on in drawn:
        assert any(item in seen[on - dt.timedelta(days=back)] for back in range(1, CONF.pool_days + 1))


def test_never_a_positive_of_the_same_user_and_day(
    bought: list[tuple[int, int, int, dt.date]], drawn: set[tuple[int, int, int, int, dt.date]]
) -> None:
    positive = {(user, item, on) for _, user, item, on in bought}
    assert not positive & {(user, item, on) for _, _, user, item, on in drawn}


def test_keys_are_unique_and_belong_to_a_positive_of_the_user(
    bought: list[tuple[int, int, int, dt.date]], drawn: set[tuple[int, int, int, int, dt.date]]
) -> None:
    assert len({key for key, *_ in drawn}) == len(drawn)
    owner = {key: (user, on) for key, user, _, on in bought}
    assert all(owner[positive_key] == (user, on) for _, positive_key, user, _, on in drawn)


def test_ratio_is_kept_on_average_and_per_positive(drawn: set[tuple[int, int, int, int, dt.date]]) -> None:
    per_positive = collections.Counter(positive_key for _, positive_key, *_ in drawn)
    assert set(per_positive.values()) == {1, 2}
    assert len(drawn) / (3 * PER_DAY) == pytest.approx(CONF.ratio, abs=0.1)


def test_popular_items_are_drawn_more(spark: SparkSession) -> None:
    """With no rejections to speak of, an item's share of the draws is its share of the pool."""
    pool = spark.range(1000).select(
        F.col("id").alias("key"),
        F.lit(1).cast("bigint").alias("user_id"),
        F.when(F.col("id") < 800, 1).otherwise(2).cast("bigint").alias("item"),
        F.lit(day(0)).alias("day"),
    )
    asked = spark.range(1000).select(
        (F.col("id") + 5000).alias("key"),
        (F.col("id") + 100).alias("user_id"),
        F.lit(3).cast("bigint").alias("item"),
        F.lit(day(1)).alias("day"),
    )
    conf = NegativesConf(ratio=2, seed=1)
    found = sample_negatives(pool.unionByName(asked), asked.select("key", "user_id", "day"), conf).collect()
    shares = collections.Counter(row["item"] for row in found)
    assert set(shares) == {1, 2}
    assert shares[1] / len(found) == pytest.approx(0.8, abs=0.04)


def test_a_first_day_has_no_pool_and_no_negatives(spark: SparkSession) -> None:
    positives = _positives(spark)
    wanted = positives.where(F.col("day") == F.lit(day(0))).select("key", "user_id", "day")
    assert sample_negatives(positives, wanted, CONF).count() == 0


def test_drawable_items_are_those_of_the_days_before(
    spark: SparkSession, bought: list[tuple[int, int, int, dt.date]]
) -> None:
    found = {tuple(row) for row in drawable_items(_positives(spark), CONF).select("day", "item").collect()}
    assert found == {(on + dt.timedelta(days=ahead), item) for _, _, item, on in bought for ahead in (1, 2)}
