"""Which row of the rooms table counts: the newest that the cutoff allows.

A room has a row when it starts, another when it ends, and corrections. Among the rows that arrived by a cutoff the
newest is the last to arrive of those with an end, else the last to arrive. So neither a start row that arrives
after its end row, nor one of the same day, hides the end. What is still equal (two rows of one day) is decided by
the values themselves, never by the order of the rows.

With a largest age R only the rows that arrived in [cutoff − R, cutoff] count: what has to be read then does not grow
with the history. R must be longer than any room lives, plus the lateness of its rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Window, WindowSpec
from pyspark.sql import functions as F

ALWAYS = "9999-12-31"
"""End of validity of a room's last version."""
NEWEST = "_row"


def room_versions(rooms: DataFrame, columns: Sequence[str], max_age_days: int | None = None) -> DataFrame:
    """What was known of each room, as disjoint intervals of cutoff days.

    1. the newest row of each (room, arrival day)         one row per room and day it has rows
    2. the day after its rows are too old to count        and one per day on which something of it is forgotten
    3. maximum over the arrival days of a room that count the row that counts from that day on
    4. the next such day ends the interval

    Args:
        rooms: raw rows, with `dt`.
        columns: columns of `rooms` to keep, besides room_id; of orderable types.
        max_age_days: R; None for no bound.

    Returns:
        room_id, columns..., valid_from, valid_to: date. The version counts for a cutoff c (rows with dt ≤ c) exactly
        when valid_from ≤ c < valid_to. A room is in no interval before its first row arrived.
    """
    of_day = newest_of_day(rooms, columns)
    if max_age_days is not None:
        forgotten = of_day.select("room_id", F.date_add("dt", max_age_days + 1).alias("dt"), F.lit(None).alias(NEWEST))
        of_day = of_day.unionByName(forgotten).groupBy("room_id", "dt").agg(F.max(NEWEST).alias(NEWEST))
    return (
        of_day.select(
            "room_id",
            F.max(NEWEST).over(arrived_by(0, max_age_days)).alias(NEWEST),
            F.col("dt").alias("valid_from"),
            F.coalesce(F.lead("dt").over(Window.partitionBy("room_id").orderBy("dt")), F.to_date(F.lit(ALWAYS))).alias(
                "valid_to"
            ),
        )
        .where(F.col(NEWEST).isNotNull())
        .select("room_id", *(F.col(f"{NEWEST}.{name}").alias(name) for name in columns), "valid_from", "valid_to")
    )


def newest_of_day(rooms: DataFrame, columns: Sequence[str]) -> DataFrame:
    """room_id, dt, NEWEST: of a room's rows of each arrival day the one that counts; greater structs count more."""
    newest_first = F.struct(
        F.col("ended_at").isNotNull().alias("_ended"),
        F.col("dt").alias("_arrived"),
        F.greatest("started_at", "ended_at").alias("_happened"),
        *columns,
    )
    return rooms.repartition("room_id").groupBy("room_id", "dt").agg(F.max(newest_first).alias(NEWEST))


def arrived_by(days_before: int, max_age_days: int | None) -> WindowSpec:
    """Of the days of a room: those that count for the cutoff `days_before` days before a row's own `dt`."""
    by_arrival = Window.partitionBy("room_id").orderBy(F.unix_date("dt"))
    oldest = Window.unboundedPreceding if max_age_days is None else -days_before - max_age_days
    return by_arrival.rangeBetween(oldest, -days_before)


def with_newest_room(
    rows: DataFrame, rooms: DataFrame, *, cutoff: str, columns: Sequence[str], max_age_days: int | None = None
) -> DataFrame:
    """Joins to each row what the rooms table said of its room by the row's cutoff day.

    Args:
        rows: has room_id and the date column `cutoff`, and none of `columns`.
        rooms: raw rows, with `dt`.
        cutoff: the last arrival day that counts.
        columns: columns of `rooms` to add.
        max_age_days: rows that arrived longer before the cutoff do not count; None for no bound.

    Returns:
        The columns of `rows`, then `columns`; null where the room is unknown by then. As many rows as `rows`.
    """
    versions = room_versions(rooms, columns, max_age_days).withColumnRenamed("room_id", "_room_id")
    known: Column = (
        (F.col("room_id") == F.col("_room_id"))
        & (F.col(cutoff) >= F.col("valid_from"))
        & (F.col(cutoff) < F.col("valid_to"))
    )
    return rows.join(versions, on=known, how="left").select(*rows.columns, *columns)
