"""What is on air: rooms, their heat, their minutes, and which of them can be recommended when.

The heat of a room is a function of (room, instant), so that impressions and room_stats see the same one without a join.
"""

from __future__ import annotations

import math

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipeline.sources.simulation import world
from pipeline.sources.simulation.chance import Chance
from pipeline.sources.simulation.conf import SimulationConf

MICROS = 1_000_000
_MINUTE = 60 * MICROS
SLOT = world.SLOT_SECONDS * MICROS
EVERY_CATEGORY = -1
_WEIGHT_UNIT = 1000.0
_HALF_DAY = 0.5
# Within its half of the day a show begins between these hours, so that no two shows of an anchor can overlap:
# the latest start and the longest show end before the earliest start of the next half.
_FIRST_HOUR, _LAST_HOUR = 1.0, 11.0


def shows(anchors: DataFrame, days: DataFrame, conf: SimulationConf) -> DataFrame:
    """One row per room: at most one show per anchor and half day. Instants are micros since 1970 UTC.

    1. anchors × days × {day, evening}, only from the anchor's first day on
    2. the show takes place with its half's chance
    3. start: the anchor's habitual hour and some minutes; length: log-normal, clipped
    """
    chance = Chance(seed=conf.seed)
    number = (F.col("anchor") * 4096 + F.col("day")) * 2 + F.col("half")
    room = F.col("room")
    candidates = (
        anchors.join(F.broadcast(days), F.col("arrival_day") <= F.col("day"), "inner")
        .withColumn("half", F.explode(F.array(F.lit(0).cast("bigint"), F.lit(1).cast("bigint"))))
        .withColumn("room", number)
    )
    on_air = F.when(F.col("half") == 0, world.DAY_SHOW_CHANCE).otherwise(world.EVENING_SHOW_CHANCE)
    # The square root puts most habitual hours late in their half: evenings fill up towards 23:00.
    hour = _FIRST_HOUR + F.sqrt("show_hour") * (_LAST_HOUR - _FIRST_HOUR - 1.0) + chance.uniform("show start", room)
    share_of_day = hour / 24.0 + F.col("half") * _HALF_DAY
    minutes = F.exp(chance.normal("show length", room) * world.SHOW_SPREAD) * world.MEDIAN_SHOW_MINUTES
    shortest, longest = world.SHOW_MINUTES
    seconds = F.floor(F.greatest(F.lit(shortest), F.least(F.lit(longest), minutes)) * 60.0)
    day_seconds = (F.col("day_ends") - F.col("day_begins")) / MICROS
    return (
        candidates.where(chance.uniform("show", room) < on_air)
        .withColumn("started", F.col("day_begins") + F.floor(share_of_day * day_seconds) * MICROS)
        .withColumn("ended", F.col("started") + seconds * MICROS)
        .select(
            *("anchor", "anchor_id", "category", "category_index", "topic", "popularity"),
            room,
            chance.permuted_id("room", room).alias("room_id"),
            *("started", "ended", "day", "day_ends"),
        )
    )


def room_rows(rooms: DataFrame, days: DataFrame, conf: SimulationConf) -> DataFrame:
    """The rooms table: a row on the day of the start without an end, another with it on the day of the end."""
    ended_day = F.col("day") + (F.col("ended") >= F.col("day_ends")).cast("bigint")
    start_row = F.struct(F.col("day").alias("row_day"), F.lit(None).cast("bigint").alias("row_ended"))
    end_row = F.struct(ended_day.alias("row_day"), F.col("ended").alias("row_ended"))
    topic_name = F.concat_ws("_", F.col("category"), F.col("topic").cast("string"))
    rows = rooms.withColumn("row", F.explode(F.array(start_row, end_row))).select(
        "room_id",
        "anchor_id",
        F.timestamp_micros("started").alias("started_at"),
        F.timestamp_micros("row.row_ended").alias("ended_at"),
        "category",
        F.array(F.col("category"), topic_name).alias("tags"),
        _content(Chance(seed=conf.seed)).alias("content"),
        F.col("row.row_day").alias("row_day"),
    )
    return rows.join(F.broadcast(days.select(F.col("day").alias("row_day"), "dt")), "row_day", "inner").drop("row_day")


def minute_rows(rooms: DataFrame, days: DataFrame, conf: SimulationConf) -> DataFrame:
    """The room_stats table: one row per whole minute on air, drawn from the heat and not from the impressions."""
    chance = Chance(seed=conf.seed)
    key = (F.col("room"), F.col("minute"))
    first, last = whole_units(F.col("started") + (_MINUTE - 1), _MINUTE), whole_units(F.col("ended"), _MINUTE) - 1
    minutes = rooms.withColumn("minute", F.explode(F.sequence(first, last))).withColumn("at", F.col("minute") * _MINUTE)
    audience = F.exp(2.5 + 0.7 * F.col("popularity") + 0.8 * F.col("heat") + 0.15 * chance.normal("viewers", *key))
    per_viewer = {"viewers": 1.0, "entries": 0.25, "comments": 0.05, "gift_coins": 0.4}
    counts = [
        F.floor(F.col("audience") * share + chance.uniform(f"minute {name}", *key)).alias(name)
        for name, share in per_viewer.items()
    ]
    happened = F.col("day") + (F.col("at") >= F.col("day_ends")).cast("bigint")
    return (
        minutes.withColumn("heat", heat(chance, F.col("at")))
        .withColumn("audience", audience)
        .withColumn("happened", happened)
        .join(F.broadcast(days.select(F.col("day").alias("happened"), "dt")), "happened", "inner")
        .select("room_id", F.timestamp_micros("at").alias("minute"), *counts, "dt")
    )


def heat(chance: Chance, at: Column) -> Column:
    """How lively a room is at an instant: its own level, a rise and fall over the show, and a slow wander.

    Needs the columns room, started, ended. The wander is value noise: normals at knots, interpolated linearly.
    """
    room, seconds = F.col("room"), (at - F.col("started")) / MICROS
    progress = seconds * MICROS / (F.col("ended") - F.col("started"))
    knot = F.floor(seconds / world.KNOT_SECONDS)
    share = seconds / world.KNOT_SECONDS - knot
    wander = chance.normal("heat", room, knot) * (1.0 - share) + chance.normal("heat", room, knot + 1) * share
    arc = F.sin(progress * math.pi) * 1.5 - 0.95
    return chance.normal("room level", room) * 0.5 + arc + wander * 0.6


def pools(rooms: DataFrame, conf: SimulationConf) -> DataFrame:
    """What can be recommended: one row per (slot, shard, pool) with `members` (rooms) and `upto` (cumulative shares).

    1. rooms → (slot, shard, pool, room, weight): every slot that the room is on air throughout, once in the pool of its
       category and once in the pool of all
    2. running sums of the integer weights in room order, so that they are exact, over their total → two parallel arrays
       per pool; the last share is 1
    3. a category with nobody on air borrows the pool of all
    """
    first = whole_units(F.col("started") + (SLOT - 1), SLOT)
    last = whole_units(F.col("ended") - world.LEAVING_SECONDS * MICROS, SLOT) - 1
    weight = 1 + F.floor(F.exp(F.col("popularity") * world.ZIPF_EXPONENT * world.EXPOSURE_EXPONENT) * _WEIGHT_UNIT)
    both = F.array(F.col("category_index"), F.lit(EVERY_CATEGORY).cast("bigint"))
    entries = (
        rooms.where(first <= last)
        .withColumn("slot", F.explode(F.sequence(first, last)))
        .withColumn("pool", F.explode(both))
        .select("slot", (F.col("anchor") % shard_count(conf)).alias("shard"), "pool", "room", weight.alias("weight"))
    )
    key = ("slot", "shard", "pool")
    whole_pool = (
        Window.partitionBy(*key).orderBy("room").rowsBetween(Window.unboundedPreceding, Window.unboundedFollowing)
    )
    so_far = Window.partitionBy(*key).orderBy("room").rowsBetween(Window.unboundedPreceding, Window.currentRow)
    filled = (
        entries.withColumn("upto", F.sum("weight").over(so_far) / F.sum("weight").over(whole_pool))
        .groupBy(*key)
        .agg(F.array_sort(F.collect_list(F.struct("room", "upto"))).alias("entries"))
        .select(*key, F.col("entries.room").alias("members"), F.col("entries.upto").alias("upto"))
    )
    return _borrowing(filled)


def shard_count(conf: SimulationConf) -> int:
    """Pools are split by anchor on a large platform, so that none grows with it."""
    return max(1, conf.first_anchors // world.ANCHORS_PER_SHARD)


def _borrowing(filled: DataFrame) -> DataFrame:
    common = filled.where(F.col("pool") == EVERY_CATEGORY)
    wanted = F.sequence(F.lit(EVERY_CATEGORY).cast("bigint"), F.lit(len(world.CATEGORIES) - 1).cast("bigint"))
    grid = common.select(
        "slot",
        "shard",
        F.explode(wanted).alias("pool"),
        F.col("members").alias("all_members"),
        F.col("upto").alias("all_upto"),
    )
    return grid.join(filled, ["slot", "shard", "pool"], "left").select(
        "slot",
        "shard",
        "pool",
        F.coalesce("members", "all_members").alias("members"),
        F.coalesce("upto", "all_upto").alias("upto"),
    )


def _content(chance: Chance) -> Column:
    dims = [F.lit(dim).cast("bigint") for dim in range(world.CONTENT_DIM)]
    topic = (F.col("category_index"), F.col("topic"))
    values = [
        chance.normal("topic vector", *topic, dim)
        + chance.normal("content noise", F.col("room"), dim) * world.CONTENT_NOISE
        for dim in dims
    ]
    is_missing = chance.happens("no content", world.CONTENT_MISSING, F.col("room"))
    return F.when(~is_missing, F.array(*(value.cast("float") for value in values)))


def whole_units(micros: Column, unit: int) -> Column:
    """The integral quotient; a rounded float64 quotient could step over the boundary."""
    return ((micros - micros % unit) / unit).cast("bigint")
