"""Sampled negatives for logs without exposures: items seen in the days before, drawn by popularity.

A row of the 7 days before is drawn uniformly, and its item is the negative: that is a draw by popularity, and an
equi-join instead of a search in cumulated counts.

Steps, for P positives over some days, ratio r and T tries:
  1. number    rows of each day by (item, key): (seen_on, number) names a row                     P rows
  2. pools     day d -> rows in [d - 7, d), day by day, cumulated                                 days x 7
  3. draw      per positive and slot, T tries: hash(seed, key, slot, try) mod pool size           P r T
  4. resolve   pool position -> (seen_on, number) -> item, by join with 1                         P r T
  5. keep      tries whose item is no positive of the same user and day; the first per slot       <= P r
Every choice is a hash of (seed, key), so the result is the same however the rows are partitioned.
"""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipeline.sources.assembly import content_id

TRIES = 4
SHARE_STEPS = 1_000_000


class NegativesConf(BaseModel):
    """How many negatives, and from where.

    Attributes:
        ratio: negatives per positive; the fraction beyond a whole number is drawn by hash too.
        seed: of every draw.
        pool_days: an item of day d is drawn from the rows of [d - pool_days, d).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ratio: float = Field(default=2.0, gt=0, le=100)
    seed: int = 20170101
    pool_days: int = Field(default=7, ge=1, le=365)


def sample_negatives(positives: DataFrame, wanted: DataFrame, conf: NegativesConf) -> DataFrame:
    """Negatives for `wanted`, drawn from the items of `positives` of the days before.

    Args:
        positives: key (bigint, unique), user_id, item (bigint), day (date); also of the days before the wanted ones.
        wanted: the rows of `positives` that get negatives: key, user_id, day.

    Returns:
        key (bigint, of the negative), positive_key, user_id, item, day. A slot whose tries all hit a positive of
        the same user and day, or whose pool is empty, is left out.
    """
    numbered = _numbered(positives)
    tries = _tries(wanted, conf).join(F.broadcast(_pool_sizes(positives, conf)), "day", "inner")
    draw = F.pmod(F.xxhash64(F.lit(conf.seed), "positive_key", "slot", "attempt"), F.col("pool_size"))
    placed = tries.withColumn("position", draw).join(F.broadcast(_pools(positives, conf)), "day", "inner")
    in_day = (F.col("position") >= F.col("below")) & (F.col("position") < F.col("below") + F.col("rows"))
    drawn = (
        placed.where(in_day)
        .withColumn("number", F.col("position") - F.col("below"))
        .join(numbered, ["seen_on", "number"], "inner")
        .join(positives.select("user_id", "day", "item").distinct(), ["user_id", "day", "item"], "left_anti")
    )
    first = Window.partitionBy("positive_key", "slot").orderBy("attempt")
    return (
        drawn.withColumn("rank", F.row_number().over(first))
        .where(F.col("rank") == 1)
        .select(
            content_id(F.lit("negative"), F.lit(conf.seed), F.col("positive_key"), F.col("slot")).alias("key"),
            "positive_key",
            "user_id",
            "item",
            "day",
        )
    )


def drawable_items(positives: DataFrame, conf: NegativesConf) -> DataFrame:
    """day, item: what a negative of that day may be. A positive outside it is told apart by that alone."""
    seen = positives.select("item", F.col("day").alias("seen_on")).distinct()
    ahead = F.explode(F.sequence(F.lit(1), F.lit(conf.pool_days)))
    return seen.withColumn("ahead", ahead).select(F.date_add("seen_on", F.col("ahead")).alias("day"), "item").distinct()


def _numbered(positives: DataFrame) -> DataFrame:
    """seen_on, number (0 to rows of the day - 1), item."""
    order = Window.partitionBy("day").orderBy("item", "key")
    return positives.select(
        F.col("day").alias("seen_on"), (F.row_number().over(order) - 1).cast("bigint").alias("number"), "item"
    )


def _pools(positives: DataFrame, conf: NegativesConf) -> DataFrame:
    """day, seen_on, rows of seen_on, below: rows of the pool's days before seen_on. One row per day and pool day."""
    counts = positives.groupBy(F.col("day").alias("seen_on")).agg(F.count(F.lit(1)).alias("rows"))
    served = counts.withColumn("ahead", F.explode(F.sequence(F.lit(1), F.lit(conf.pool_days))))
    earlier = Window.partitionBy("day").orderBy("seen_on").rowsBetween(Window.unboundedPreceding, -1)
    return served.select(F.date_add("seen_on", F.col("ahead")).alias("day"), "seen_on", "rows").withColumn(
        "below", F.coalesce(F.sum("rows").over(earlier), F.lit(0))
    )


def _pool_sizes(positives: DataFrame, conf: NegativesConf) -> DataFrame:
    return _pools(positives, conf).groupBy("day").agg(F.sum("rows").alias("pool_size"))


def _tries(wanted: DataFrame, conf: NegativesConf) -> DataFrame:
    """positive_key, user_id, day, slot, attempt: `ratio` slots per positive on average, TRIES attempts each."""
    whole = math.floor(conf.ratio)
    one_more = _share(conf.seed, F.col("key")) < conf.ratio - whole
    slots = F.lit(whole) + F.when(one_more, 1).otherwise(0)
    return (
        wanted.select(F.col("key").alias("positive_key"), "user_id", "day", slots.alias("slots"))
        .where(F.col("slots") > 0)
        .withColumn("slot", F.explode(F.sequence(F.lit(1), F.col("slots"))))
        .withColumn("attempt", F.explode(F.sequence(F.lit(1), F.lit(TRIES))))
        .drop("slots")
    )


def _share(seed: int, key: Column) -> Column:
    """Uniform in [0, 1), by hash(seed, key)."""
    return F.pmod(F.xxhash64(F.lit(seed), F.lit("slots"), key), F.lit(SHARE_STEPS)) / SHARE_STEPS
