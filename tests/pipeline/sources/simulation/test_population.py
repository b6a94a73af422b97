"""Who is there as the platform changes: tastes that drift, anchors that come."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from pyspark.sql import functions as F

from pipeline.sources.simulation import population, world
from pipeline.sources.simulation.chance import Chance
from pipeline.sources.simulation.conf import SimulationConf

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DRIFT = 0.1
CONF = SimulationConf(impressions=10_000, days=3, drift=DRIFT, users=300)
DAYS = (0, 1, 5, 23, 60)
FIVE_SIGMA = 5.0


@pytest.fixture(scope="module")
def drawn(spark: SparkSession) -> pd.DataFrame:
    """One row per user and day: interests as the simulator has them, and every draw that they may rest on."""
    chance, user = Chance(seed=CONF.seed), F.col("user")
    categories = [F.lit(index).cast("bigint") for index in range(len(world.CATEGORIES))]
    span = world.MAX_INTERESTS - world.MIN_INTERESTS + 1
    versions = range(1, math.ceil(max(DAYS) * DRIFT) + 1)
    of_versions = [
        F.array(*(chance.uniform("drifted interest", user, c, F.lit(version).cast("bigint")) for c in categories))
        for version in versions
    ]
    rows = (
        population.users(spark, CONF)
        .withColumn("day", F.explode(F.array(*(F.lit(day).cast("bigint") for day in DAYS))))
        .select(
            "user",
            "day",
            population.interests(CONF, F.col("day")).alias("interests"),
            F.col("interests").alias("first_interests"),
            chance.below("interest count", span, user).alias("count"),
            F.array(*(chance.normal("gender tilt", F.col("gender_index"), c) for c in categories)).alias("tilts"),
            F.array(*(chance.uniform("drift phase", user, c) for c in categories)).alias("phases"),
            F.array(F.array(*(chance.uniform("interest", user, c) for c in categories)), *of_versions).alias("draws"),
        )
        .collect()
    )
    return pd.DataFrame([row.asDict() for row in rows])


def naive_interests(row: Any) -> list[int]:
    """The interests of one user on one day, category by category."""
    waits = []
    for category, (_, weight) in enumerate(world.CATEGORIES):
        version = int(row["day"] * DRIFT + row["phases"][category])
        rate = weight * math.exp(world.GENDER_TILT * row["tilts"][category])
        waits.append((-math.log(row["draws"][version][category]) / rate, category))
    return [category for _, category in sorted(waits)[: world.MIN_INTERESTS + row["count"]]]


def test_interests_are_those_of_the_naive_draw(drawn: pd.DataFrame) -> None:
    for _, row in drawn.iterrows():
        assert row["interests"] == naive_interests(row), (row["user"], row["day"])


def test_the_first_day_is_that_of_a_platform_that_never_changes(spark: SparkSession, drawn: pd.DataFrame) -> None:
    still = CONF.model_copy(update={"drift": 0.0})
    rows = population.users(spark, still).withColumn("later", population.interests(still, F.lit(60))).collect()
    known = {row["user"]: row["interests"] for row in rows}
    assert all(row["later"] == row["interests"] for row in rows)
    first = drawn[drawn["day"] == 0]
    assert all(row["interests"] == row["first_interests"] == known[row["user"]] for _, row in first.iterrows())


def test_interests_change_and_stay_as_common_as_they_were(drawn: pd.DataFrame) -> None:
    by_day = {day: list(rows["interests"]) for day, rows in drawn.sort_values("user").groupby("day")}
    kept = {
        day: sum(len(set(now) & set(then)) for now, then in zip(by_day[0], lists, strict=True))
        / sum(map(len, by_day[0]))
        for day, lists in by_day.items()
    }
    assert kept[0] == 1.0
    assert kept[0] > kept[1] > kept[5] > kept[23]
    first, last = (Counter(c for held in by_day[day] for c in held) for day in (0, 60))
    assert all(abs(first[c] - last[c]) < FIVE_SIGMA * (first[c] + last[c]) ** 0.5 for c in first)


@pytest.mark.parametrize("growth", [0.05, 0.0, None])
def test_anchors_sign_day_by_day(spark: SparkSession, growth: float | None) -> None:
    """Half a day further, and every anchor has signed on the day that it had before."""
    conf = SimulationConf(impressions=10_000, days=20, anchors=120, anchor_growth=growth)
    longer = conf.model_copy(update={"to_day": 30})
    signed, of_longer = (
        {row["anchor"]: row["arrival_day"] for row in population.anchors(spark, one).collect()}
        for one in (conf, longer)
    )
    assert signed.items() <= of_longer.items()
    assert sum(day < 0 for day in signed.values()) == 120
    there = 120
    for day in range(20):
        new = sum(1 for arrived in signed.values() if arrived == day)
        expected = there * growth if growth is not None else 120 * conf.daily_growth
        assert new == max(1, round(expected))
        there += new
    assert there == len(signed) == conf.anchors_by(20)
