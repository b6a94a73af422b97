"""What every source of real data shares: ids from content, tables derived from a log, and writing them all."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from features.errors import DataError, Problem
from pipeline.sources.raw_layout import DAY_COLUMN, RAW_TABLES, days_between, write_raw

LARGEST_ID = 2**63 - 1
UNKNOWN_ANCHOR_BASE = 1 << 40
"""Anchors made up for rooms without one: BASE + room_id, above every id that the sources hold."""


def content_id(*columns: Column | str) -> Column:
    """Non-negative 63-bit id of a row's content: the same however the rows are partitioned or ordered.

    Two of n rows share an id with a chance of about n^2 / 2^64 (0.5 % at 3 * 10^8 rows); `RawInput` would see it.
    """
    return F.xxhash64(*columns).bitwiseAND(F.lit(LARGEST_ID))


def later_by(ts: Column, milliseconds: Column) -> Column:
    """`ts` plus a number of milliseconds."""
    return F.timestamp_micros(F.unix_micros(ts) + milliseconds * 1000)


def start_of_day(day: Column) -> Column:
    """Midnight of `day` in the session's zone."""
    return day.cast("timestamp")


def anchor_or_own(author: Column, room: Column) -> Column:
    """The author, or where unknown an anchor of the room's own, in a range apart."""
    return F.coalesce(author, F.lit(UNKNOWN_ANCHOR_BASE) + room)


def day_range(log: DataFrame, first: dt.date | None, last: dt.date | None) -> tuple[dt.date, dt.date]:
    """First and last day of `log` (column `day`) within the bounds.

    Raises:
        DataError: no row lies within them.
    """
    kept = log if first is None else log.where(F.col("day") >= F.lit(first))
    kept = kept if last is None else kept.where(F.col("day") <= F.lit(last))
    found = kept.agg(F.min("day").alias("first"), F.max("day").alias("last")).collect()[0]
    if found["first"] is None:
        what = f"no row between {first or 'the beginning'} and {last or 'the end'}"
        raise DataError([Problem(what=what, remedy="Choose days that the source holds.")])
    return found["first"], found["last"]


def room_minutes(actions: DataFrame) -> DataFrame:
    """room_stats of sources that publish none: what the log itself shows, minute by minute.

    viewers are the distinct users who entered within the minute, gift_coins the gifts' value. Safe in event time: a row
    holds only what happened within its minute, and is complete when that ends.
    """
    is_enter, is_gift = F.col("action") == "enter", F.col("action") == "gift"
    return (
        actions.where(F.col("action").isin("enter", "comment", "gift"))
        .groupBy("room_id", F.date_trunc("minute", "ts").alias("minute"))
        .agg(
            F.count_distinct(F.when(is_enter, F.col("user_id"))).alias("viewers"),
            F.count(F.when(is_enter, 1)).alias("entries"),
            F.count(F.when(F.col("action") == "comment", 1)).alias("comments"),
            F.coalesce(F.sum(F.when(is_gift, F.round("value").cast("bigint"))), F.lit(0)).alias("gift_coins"),
        )
        .withColumn(DAY_COLUMN, F.to_date("minute"))
    )


def static_snapshots(entities: DataFrame, days: Sequence[dt.date], *, known_from: str) -> DataFrame:
    """One snapshot per day of entities described once: each is in the snapshots of days >= its `known_from` day.

    Args:
        known_from: date column; null means always known.
    """
    listed = entities.sparkSession.createDataFrame([(day,) for day in days], f"{DAY_COLUMN} date")
    known = F.col(known_from).isNull() | (F.col(known_from) <= F.col(DAY_COLUMN))
    return entities.crossJoin(F.broadcast(listed)).where(known)


def most_frequent(df: DataFrame, key: str, column: str) -> DataFrame:
    """key, `column`: its most frequent value per key, the smallest of several; null only where all are."""
    counted = df.groupBy(key, column).agg(F.count(F.lit(1)).alias("_n"))
    rank = F.struct(F.col(column).isNull(), -F.col("_n"), F.col(column))
    return counted.groupBy(key).agg(F.min_by(column, rank).alias(column))


def write_tables(
    warehouse: str, tables: Mapping[str, DataFrame], first: dt.date, last: dt.date
) -> dict[str, dict[dt.date, int]]:
    """Writes the raw tables of [first, last]; snapshots and rooms start a day earlier, as the first day reads them.

    Returns:
        table -> day -> rows.
    """
    rows = {}
    for name, df in tables.items():
        state = RAW_TABLES[name].kind in ("snapshot", "updates")
        rows[name] = write_raw(df, warehouse, name, days=days_between(before(first) if state else first, last))
    return rows


def before(day: dt.date) -> dt.date:
    return day - dt.timedelta(days=1)
