"""Tiles on air: how long an anchor was on air, by the day it happened and the day on which that became known.

A session is known from its start on; its end, or a correction, arrives later. So a tile holds what CHANGED on its
arrival day: the time on air as the rooms table then tells it, less what it told the day before. Summed over the
arrival days before D and the days [D − N, D), that is the time on air as of D, clipped at D and at the window,
exactly, and windows are carried over it like over any other tile.

  rows of rooms                        one per start, end or correction
  → newest of each room and day        what was known with the day's rows, and without them
  → + the new session, − the old one   two rows per room that something arrived of
  → spread over its days               one per session and day, with milliseconds
  → summed by (anchor, e, a)           one tile; e may lie after a, for a session may go on
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from features.spark.ops import ARRIVED, HAPPENED, zero
from features.spark.rooms import NEWEST, arrived_by, newest_of_day
from features.spec import OnAir

MS_PER_HOUR = 3_600_000
SESSION = ("anchor_id", "started_at", "ended_at")


def session_days(ops: Mapping[str, OnAir]) -> int:
    """How many days after its start a session may still be on air, where a day may have 23 hours."""
    return max(op.max_session_hours // 24 + 1 for op in ops.values())


def on_air_tiles(
    rooms: DataFrame, ops: Mapping[str, OnAir], *, days: Sequence[dt.date], max_room_age_days: int | None
) -> DataFrame:
    """What became known of the time on air on each of `days`.

    Args:
        rooms: raw rows with dt up to max(days), from min(days) − 1 − `max_room_age_days` on (all, when that is None).
        ops: column → an operation whose sessions it cuts at `max_session_hours`.
        days: arrival days.
        max_room_age_days: rows of a room that arrived longer before do not count.

    Returns:
        anchor_id, e: date, a: date, then `ops` as bigint (milliseconds, may be negative). Key: the first three.
    """
    known = newest_of_day(rooms, SESSION).select(
        F.col("dt").alias(ARRIVED),
        F.max(NEWEST).over(arrived_by(0, max_room_age_days)).alias("_new"),
        F.max(NEWEST).over(arrived_by(1, max_room_age_days)).alias("_old"),
    )
    changed = known.where(F.col(ARRIVED).isin(list(days)) & ~F.col("_new").eqNullSafe(F.col("_old")))
    told = F.explode(F.array(_signed("_new", 1), _signed("_old", -1)))
    sessions = changed.select(ARRIVED, told.alias("_told")).where(F.col("_told.started_at").isNotNull())
    spread = sessions.select(
        ARRIVED, "_told.*", F.explode(F.sequence(F.lit(0), F.lit(session_days(ops)))).alias("_after")
    ).withColumn(HAPPENED, F.expr("date_add(to_date(started_at), _after)"))
    amounts = {name: F.col("_sign") * _on_air_ms(op) for name, op in ops.items()}
    summed = spread.groupBy("anchor_id", HAPPENED, ARRIVED).agg(
        *(F.sum(amount).alias(name) for name, amount in amounts.items())
    )
    return summed.where(F.greatest(*(F.abs(F.col(name)) for name in ops), zero()) > 0)


def _signed(row: str, sign: int) -> Column:
    fields = (F.col(row).getField(name).alias(name) for name in SESSION)
    return F.struct(*fields, F.lit(sign).cast("bigint").alias("_sign"))


def _on_air_ms(op: OnAir) -> Column:
    """Milliseconds of [started, min(ended, started + max_session_hours)) on the day HAPPENED, bigint."""
    started = F.unix_millis("started_at")
    begins = F.unix_millis(F.col(HAPPENED).cast("timestamp"))
    ends = F.unix_millis(F.date_add(HAPPENED, 1).cast("timestamp"))
    latest = F.least(F.unix_millis("ended_at"), started + F.lit(op.max_session_hours * MS_PER_HOUR), ends)
    return F.greatest(latest - F.greatest(started, begins), zero())
