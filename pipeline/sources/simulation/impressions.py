"""What is shown to whom, and how likely each impression is to be entered.

sessions(users × days) → page views (one per impression) → a room each → the logit of the enter, part by part.
"""

from __future__ import annotations

import math

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipeline.sources.simulation import world
from pipeline.sources.simulation.chance import Chance, logistic
from pipeline.sources.simulation.conf import SimulationConf
from pipeline.sources.simulation.population import interests
from pipeline.sources.simulation.rooms import EVERY_CATEGORY, MICROS, SLOT, heat, shard_count, whole_units

LOGIT_PARTS = (
    "logit_user",
    "logit_popularity",
    "logit_heat",
    "logit_user_interest",
    "logit_context",
    "logit_position",
)
_SESSION_BITS, _VIEW_BITS, _DAY_BITS = 3, 6, 12
# A session starts early enough to end on its own day: 40 views of at most 40 s.
_LATEST_START = 23.5 / 24.0


def position_effect() -> dict[int, float]:
    """The additive enter logit of each position (1 is the first); its mean over the positions is zero."""
    mean = sum(math.log(place) for place in range(1, world.PAGE + 1)) / world.PAGE
    return {place: world.POSITION_SLOPE * (math.log(place) - mean) for place in range(1, world.PAGE + 1)}


def impressions(
    users: DataFrame, rooms: DataFrame, pools: DataFrame, days: DataFrame, conf: SimulationConf
) -> DataFrame:
    """One row per impression that HAPPENED on `days`, with its room, the parts of its enter logit and `entered`."""
    chance = Chance(seed=conf.seed)
    shown = _with_room(_views(_sessions(users, days, conf), conf), pools, rooms)
    in_parts = _with_logit_parts(shown, chance)
    without_position = sum((F.col(part) for part in LOGIT_PARTS[:-1]), F.lit(world.ENTER_BIAS))
    return (
        in_parts.withColumn("p_enter_no_position", logistic(without_position))
        .withColumn("p_enter", logistic(without_position + F.col("logit_position")))
        .withColumn("entered", chance.happens("enter", F.col("p_enter"), F.col("number")))
        .drop(
            "interests",
            "main_interest",
            "second_interest",
            "category_index",
            "topic",
            "popularity",
            "anchor",
            "started",
        )
    )


def _sessions(users: DataFrame, days: DataFrame, conf: SimulationConf) -> DataFrame:
    """One row per visit of a user: when, how many views, which interests are awake.

    An interest stays the main one for an epoch of a few days, which begins on another day for every user; half of the
    visits have a second one.
    """
    chance = Chance(seed=conf.seed)
    user, session = F.col("user"), F.col("session")
    growth = 1.0 + conf.daily_growth * 9.0
    mean_visits = conf.daily_impressions / (conf.first_users * growth * world.MEAN_SESSION_LENGTH)
    in_slot = F.col("activity") * (mean_visits / world.SESSION_SLOTS)
    number = F.shiftleft(F.shiftleft(user, _DAY_BITS) + F.col("day"), _SESSION_BITS) + F.col("visit")
    present = users.join(F.broadcast(days), F.col("arrival_day") <= F.col("day"), "inner")
    if conf.drift > 0.0:
        present = present.withColumn("interests", interests(conf, F.col("day")))
    visits = (
        present.withColumn(
            "visit", F.explode(F.sequence(F.lit(0).cast("bigint"), F.lit(world.SESSION_SLOTS - 1).cast("bigint")))
        )
        .withColumn("session", number)
        .where(chance.uniform("visit", session) < in_slot)
    )
    length = 1 + F.floor(F.log(chance.uniform("length", session)) / math.log(1.0 - 1.0 / world.MEAN_SESSION_LENGTH))
    epoch = F.floor((F.col("day") + chance.below("epoch phase", world.EPOCH_DAYS, user)) / world.EPOCH_DAYS)
    count = F.size("interests")
    first = chance.below("main interest", count, user, epoch)
    other = (first + 1 + chance.below("second interest", count - 1, session)) % count
    second = F.when(chance.happens("has second", world.SECOND_ACTIVE_CHANCE, session), other).otherwise(first)
    day_seconds = (F.col("day_ends") - F.col("day_begins")) / MICROS
    return visits.select(
        *("user", "user_id", "interests", "device", "day", "day_begins", "day_ends", "dt"),
        session,
        F.least(length, F.lit(world.MAX_SESSION_LENGTH)).alias("length"),
        F.get("interests", first.cast("int")).alias("main_interest"),
        F.get("interests", second.cast("int")).alias("second_interest"),
        (F.col("day_begins") + F.floor(_time_of_day(chance) * day_seconds * MICROS)).alias("begins"),
        F.floor(10.0 + 30.0 * chance.uniform("pace", session)).alias("pace"),
        chance.below("page offset", world.PAGE, session).alias("page_offset"),
        chance.uniform("scene", session).alias("scene_draw"),
    )


def _views(sessions: DataFrame, conf: SimulationConf) -> DataFrame:
    """One row per view: its number (unique), instant, position, scene, device and the pool to draw its room from."""
    chance = Chance(seed=conf.seed)
    number, view = F.col("number"), F.col("view")
    jitter = chance.uniform("jitter", number)
    main = F.when(chance.happens("main", 0.6, number), F.col("main_interest")).otherwise(F.col("second_interest"))
    follows = chance.happens("follows interest", world.FOLLOW_INTEREST_CHANCE, number)
    other_device = F.when(chance.happens("other device", 0.1, number), F.lit("web")).otherwise(F.col("device"))
    return (
        sessions.withColumn("view", F.explode(F.sequence(F.lit(0).cast("bigint"), F.col("length") - 1)))
        .withColumn("number", F.shiftleft("session", _VIEW_BITS) + view)
        .withColumn("at", F.col("begins") + F.floor((view + jitter) * F.col("pace") * MICROS))
        .select(
            *("number", "user", "user_id", "interests", "main_interest", "second_interest"),
            *("at", "day", "day_ends", "dt"),
            ((F.col("page_offset") + view) % world.PAGE + 1).cast("int").alias("position"),
            _by_scene([(name, F.lit(name)) for name, _, _ in world.SCENES]).alias("scene"),
            other_device.alias("device"),
            whole_units(F.col("at"), SLOT).alias("slot"),
            chance.below("shard", shard_count(conf), number).alias("shard"),
            F.when(follows, main).otherwise(F.lit(EVERY_CATEGORY).cast("bigint")).alias("pool"),
            chance.uniform("room", number).alias("room_draw"),
        )
    )


def _with_room(views: DataFrame, pools: DataFrame, rooms: DataFrame) -> DataFrame:
    """Views join one room each, by inverse-CDF over the cumulative shares of their pool; without a pool, no view."""
    passed = F.size(F.filter("upto", lambda upto: upto <= F.col("room_draw")))
    room_columns = (
        "room",
        "room_id",
        "anchor",
        "anchor_id",
        "category_index",
        "topic",
        "popularity",
        "started",
        "ended",
    )
    return (
        views.join(pools, ["slot", "shard", "pool"], "inner")
        .withColumn("room", F.get("members", passed))
        .drop("members", "upto", "room_draw", "slot", "shard", "pool")
        # Every room is found; an inner join would make Spark draw it a second time to see that it is not null.
        .join(rooms.select(*room_columns), "room", "left")
    )


def _with_logit_parts(shown: DataFrame, chance: Chance) -> DataFrame:
    positions = F.array(*(F.lit(effect) for effect in position_effect().values()))
    return shown.withColumns(
        {
            "logit_user": chance.normal("user", F.col("user")) * world.USER_SPREAD,
            "logit_popularity": (F.col("popularity") - 1.0) * world.POPULARITY_SLOPE,
            "logit_heat": heat(chance, F.col("at")) * world.HEAT_SLOPE,
            "logit_user_interest": _interest(chance),
            "logit_context": _by_scene([(name, F.lit(logit)) for name, _, logit in world.SCENES], F.col("scene")),
            "logit_position": F.element_at(positions, F.col("position")),
        }
    )


def _interest(chance: Chance) -> Column:
    """How well this room suits this user now: category, is that interest awake, topic within it, this anchor."""
    user, category = F.col("user"), F.col("category_index")
    is_interest = F.array_contains("interests", category)
    is_awake = (category == F.col("main_interest")) | (category == F.col("second_interest"))
    is_favourite = chance.below("favourite topic", world.TOPICS_PER_CATEGORY, user, category) == F.col("topic")
    awake = F.when(is_awake, world.ACTIVE[0]).otherwise(world.ACTIVE[1])
    topic = F.when(is_favourite, world.TOPIC[0]).otherwise(world.TOPIC[1])
    within = F.when(is_interest, awake + topic + world.INTEREST_IN).otherwise(world.INTEREST_OUT)
    strength = chance.normal("interest strength", user, category) * world.INTEREST_SPREAD
    fan = chance.normal("fan", user, F.col("anchor")) * world.FAN_SPREAD
    return within + strength + fan


def _by_scene(values: list[tuple[str, Column]], scene: Column | None = None) -> Column:
    """The value of the scene of a row: by its name where given, else by the session's draw."""
    shares, below = {}, 0.0
    for name, share, _ in world.SCENES:
        below += share
        shares[name] = below
    chosen = values[-1][1]
    for name, value in reversed(values[:-1]):
        is_scene = F.col("scene_draw") < shares[name] if scene is None else scene == name
        chosen = F.when(is_scene, value).otherwise(chosen)
    return chosen


def _time_of_day(chance: Chance) -> Column:
    """A share of the day: two thirds around 20:45 (triangular, ±2.75 h), the rest all day."""
    session = F.col("session")
    bump = (chance.uniform("hour", session) + chance.uniform("hour 2", session) - 1.0) * 2.75 + 20.75
    flat = chance.uniform("hour", session) * 24.0
    hour = F.when(chance.happens("evening", 0.66, session), bump).otherwise(flat)
    return F.least(hour / 24.0, F.lit(_LATEST_START))
