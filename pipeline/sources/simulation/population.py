"""Who is there: users with their interests, anchors with their topics, and the daily snapshots of both."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.sources.simulation import world
from pipeline.sources.simulation.chance import Chance
from pipeline.sources.simulation.conf import SimulationConf

_CITIES = ("beijing", "shanghai", "guangzhou", "shenzhen", "chengdu", "hangzhou", "wuhan", "xian", "harbin", "kunming")
_DEVICES = ("android", "android", "android", "ios", "ios", "pad")
_GENDERS = ("female", "male")
_YEARS_BEFORE = 700


def calendar(spark: SparkSession, conf: SimulationConf, first: int, end: int) -> DataFrame:
    """One row per day of [first, end): day, dt, and the micros at which it begins and ends in the business zone."""
    rows = [(d, conf.date_of(d).isoformat(), conf.micros_of(d), conf.micros_of(d + 1)) for d in range(first, end)]
    return spark.createDataFrame(rows, "day bigint, dt string, day_begins bigint, day_ends bigint")


def users(spark: SparkSession, conf: SimulationConf) -> DataFrame:
    """One row per user ever registered before `end_day`: profile, activity, interests (category indices, awake or not).

    Where tastes drift, these are the interests of the first day; see `interests`.
    """
    chance = Chance(seed=conf.seed)
    user = F.col("user")
    gender = chance.below("user gender", len(_GENDERS), user)
    return (
        spark.range(conf.users_by(conf.end_day))
        .withColumnRenamed("id", "user")
        .withColumn("gender_index", gender)
        .select(
            user,
            "gender_index",
            chance.permuted_id("user", user).alias("user_id"),
            _arrival_day(
                user, conf.first_users, conf.new_users, chance.below("user age on platform", _YEARS_BEFORE, user)
            ),
            _choice(_GENDERS, F.col("gender_index")).alias("gender"),
            _choice(_CITIES, chance.below("user city", len(_CITIES), user)).alias("city"),
            _choice(_DEVICES, chance.below("user device", len(_DEVICES), user)).alias("device"),
            (16 + chance.below("user age", 25, user) + chance.below("user age 2", 25, user)).cast("int").alias("age"),
            (~chance.happens("profileless", conf.profileless_share, user)).alias("has_profile"),
            _log_normal(chance.normal("activity", user), world.ACTIVITY_SPREAD).alias("activity"),
            interests(conf, F.lit(0)).alias("interests"),
        )
    )


def interests(conf: SimulationConf, day: Column) -> Column:
    """A user's interests on a day index, as category indices; needs the columns user and gender_index.

    1. every category waits for an exponential time, its weight as rate; the k shortest waits are a weighted draw
       without replacement (Efraimidis and Spirakis 2006)
    2. tastes drift: each (user, category) draws its wait anew every 1 / drift days, from a phase of its own. Of all
       users together the share `drift` of the waits is new on each day, and the law of the interests stays what it was
    """
    chance = Chance(seed=conf.seed)
    user = F.col("user")
    count = world.MIN_INTERESTS + chance.below("interest count", world.MAX_INTERESTS - world.MIN_INTERESTS + 1, user)
    ranked = F.array_sort(F.array(*_waits(chance, conf.drift, day)))
    return F.transform(F.slice(ranked, F.lit(1), count.cast("int")), lambda pair: pair["category"])


def anchors(spark: SparkSession, conf: SimulationConf) -> DataFrame:
    """One row per anchor ever signed before `end_day`: profile, category, topic, log popularity, hours."""
    chance = Chance(seed=conf.seed)
    anchor = F.col("anchor")
    # -log(u) is exponential, so that its exponential is Pareto: Zipf's law without knowing anybody's rank.
    popularity = F.least(F.lit(world.MAX_LOG_POPULARITY), -F.log(chance.uniform("popularity", anchor)))
    return (
        spark.range(conf.anchors_by(conf.end_day))
        .withColumnRenamed("id", "anchor")
        .select(
            anchor,
            chance.permuted_id("anchor", anchor).alias("anchor_id"),
            _signing_day(conf, chance.below("anchor age on platform", _YEARS_BEFORE, anchor)),
            _choice(_GENDERS, chance.below("anchor gender", len(_GENDERS), anchor)).alias("gender"),
            _choice(_CITIES, chance.below("anchor city", len(_CITIES), anchor)).alias("city"),
            (18 + chance.below("anchor age", 30, anchor)).cast("int").alias("age"),
            _category_by_share(chance.uniform("category", anchor)).alias("category_index"),
            chance.below("topic", world.TOPICS_PER_CATEGORY, anchor).alias("topic"),
            popularity.alias("popularity"),
            chance.uniform("show hour", anchor).alias("show_hour"),
        )
        .withColumn("category", _choice(tuple(name for name, _ in world.CATEGORIES), F.col("category_index")))
    )


def user_snapshots(everyone: DataFrame, days: DataFrame) -> DataFrame:
    """The users table: on each day, everyone registered by its end who has a profile."""
    present = days.join(everyone.where("has_profile"), F.col("arrival_day") <= F.col("day"), "inner")
    registered_on = F.date_add(F.to_date("dt"), (F.col("arrival_day") - F.col("day")).cast("int"))
    return present.select("user_id", "gender", "city", "device", "age", registered_on.alias("registered_on"), "dt")


def anchor_snapshots(everyone: DataFrame, days: DataFrame) -> DataFrame:
    """The anchors table: on each day, everyone signed by its end; the level grows with popularity and tenure."""
    present = days.join(everyone, F.col("arrival_day") <= F.col("day"), "inner")
    tenure = F.col("day") - F.col("arrival_day")
    signed_on = F.date_add(F.to_date("dt"), (-tenure).cast("int"))
    level = 1 + F.floor(F.col("popularity") * 6.0 + F.log1p(tenure.cast("double")) * 2.0)
    return present.select(
        "anchor_id",
        "gender",
        "city",
        "category",
        "age",
        level.cast("int").alias("level"),
        signed_on.alias("signed_on"),
        "dt",
    )


def _waits(chance: Chance, drift: float, day: Column) -> list[Column]:
    draws = []
    for index, (_, weight) in enumerate(world.CATEGORIES):
        category = F.lit(index).cast("bigint")
        tilt = F.exp(chance.normal("gender tilt", F.col("gender_index"), category) * world.GENDER_TILT)
        wait = -F.log(_taste(chance, drift, day, F.col("user"), category)) / (tilt * weight)
        draws.append(F.struct(wait.alias("wait"), category.alias("category")))
    return draws


def _taste(chance: Chance, drift: float, day: Column, user: Column, category: Column) -> Column:
    """The uniform draw behind a wait: of the (user, category), and once it has drifted, of its version too."""
    first = chance.uniform("interest", user, category)
    if drift == 0.0:
        return first
    version = F.floor(day * drift + chance.uniform("drift phase", user, category))
    return F.when(version == 0, first).otherwise(chance.uniform("drifted interest", user, category, version))


def _arrival_day(number: Column, first: int, per_day: int, days_before: Column) -> Column:
    later = F.floor((number - first) / F.lit(per_day))
    return F.when(number < first, -1 - days_before).otherwise(later).alias("arrival_day")


def _signing_day(conf: SimulationConf, days_before: Column) -> Column:
    number = F.col("anchor")
    if conf.anchor_growth is None:
        return _arrival_day(number, conf.first_anchors, conf.new_anchors, days_before)
    passed = F.filter(F.lit(conf.anchor_counts(conf.end_day)), lambda count: count <= number)
    later = (F.size(passed) - 1).cast("bigint")
    return F.when(number < conf.first_anchors, -1 - days_before).otherwise(later).alias("arrival_day")


def _choice(names: tuple[str, ...], index: Column) -> Column:
    return F.element_at(F.array(*(F.lit(name) for name in names)), (index + 1).cast("int"))


def _log_normal(normal: Column, spread: float) -> Column:
    return F.exp(normal * spread - spread * spread / 2.0)


def _category_by_share(uniform: Column) -> Column:
    total = sum(weight for _, weight in world.CATEGORIES)
    index, below = F.lit(0).cast("bigint"), 0.0
    for _, weight in world.CATEGORIES[:-1]:
        below += weight / total
        index = index + (uniform >= below).cast("bigint")
    return index
