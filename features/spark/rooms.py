"""Which row of the rooms table counts: the newest that the cutoff allows.

A room has a row when it starts, another when it ends, and corrections. Among the rows that arrived by a cutoff the
newest is the last to arrive of those with an end, else the last to arrive. So neither a start row that arrives
after its end row, nor one of the same day, hides the end. What is still equal (two rows of one day) is decided by
the values themselves, never by the order of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

ALWAYS = "9999-12-31"
"""End of validity of a room's last version."""


def room_versions(rooms: DataFrame, columns: Sequence[str]) -> DataFrame:
    """What was known of each room, as disjoint intervals of cutoff days.

    1. the newest row of each (room, arrival day)        one row per room and day it has rows
    2. running maximum over the arrival days of a room   the row that counts from that day on
    3. the next arrival day ends the interval

    Args:
        rooms: raw rows, with `dt`.
        columns: columns of `rooms` to keep, besides room_id; of orderable types.

    Returns:
        room_id, columns..., valid_from, valid_to: date. The version counts for a cutoff c (rows with dt ≤ c) exactly
        when valid_from ≤ c < valid_to. A room is in no interval before its first row arrived.
    """
    newest_first = F.struct(
        F.col("ended_at").isNotNull().alias("_ended"),
        F.col("dt").alias("_arrived"),
        F.greatest("started_at", "ended_at").alias("_happened"),
        *columns,
    )
    of_day = rooms.repartition("room_id").groupBy("room_id", "dt").agg(F.max(newest_first).alias("_row"))
    by_arrival = Window.partitionBy("room_id").orderBy("dt")
    so_far = by_arrival.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    return of_day.select(
        "room_id",
        F.max("_row").over(so_far).alias("_row"),
        F.col("dt").alias("valid_from"),
        F.coalesce(F.lead("dt").over(by_arrival), F.to_date(F.lit(ALWAYS))).alias("valid_to"),
    ).select("room_id", *(F.col(f"_row.{name}").alias(name) for name in columns), "valid_from", "valid_to")


def with_newest_room(rows: DataFrame, rooms: DataFrame, *, cutoff: str, columns: Sequence[str]) -> DataFrame:
    """Joins to each row what the rooms table said of its room by the row's cutoff day.

    Args:
        rows: has room_id and the date column `cutoff`, and none of `columns`.
        rooms: raw rows, with `dt`.
        cutoff: the last arrival day that counts.
        columns: columns of `rooms` to add.

    Returns:
        The columns of `rows`, then `columns`; null where the room is unknown by then. As many rows as `rows`.
    """
    versions = room_versions(rooms, columns).withColumnRenamed("room_id", "_room_id")
    known: Column = (
        (F.col("room_id") == F.col("_room_id"))
        & (F.col(cutoff) >= F.col("valid_from"))
        & (F.col(cutoff) < F.col("valid_to"))
    )
    return rows.join(versions, on=known, how="left").select(*rows.columns, *columns)
