"""Rows of raw logs that occur more than once, or out of time: columns and tables, no reading."""

from __future__ import annotations

from collections.abc import Iterable

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipeline.sources.raw_layout import DAY_COLUMN, RawTable

COPIES, DIFFER, PAYLOAD, COUNTED = "_copies", "_differ", "_payload", "_counted"


def lateness_days(spec: RawTable) -> Column:
    """Arrival day minus day of the event, in the session's zone; negative for a row from after its day's end."""
    return F.datediff(F.col(DAY_COLUMN), F.to_date(spec.happened_at()))


def repeat_key(spec: RawTable) -> tuple[str, ...]:
    """What may occur once: a log's key over all days, a snapshot's within its day."""
    return (DAY_COLUMN, *spec.key) if spec.kind == "snapshot" else spec.key


def copies(df: DataFrame, spec: RawTable, of: Column | None = None) -> DataFrame:
    """One row per key that occurs more than once: the key, and its number of copies.

    Args:
        of: only keys of rows that are so; their other copies need not be. None: all keys.
    """
    return _by_key(df, spec, of)


def repeats(df: DataFrame, spec: RawTable, columns: Iterable[str] | None = None, of: Column | None = None) -> DataFrame:
    """`copies`, and whether their payloads differ.

    The payload is every column of the contract (or `columns`), compared by a 64-bit hash; the day of arrival and
    further columns may differ between copies.
    """
    payload = F.xxhash64(*(spec.column_names() if columns is None else columns))
    return _by_key(df.withColumn(PAYLOAD, payload), spec, of, (F.min(PAYLOAD) != F.max(PAYLOAD)).alias(DIFFER))


def _by_key(df: DataFrame, spec: RawTable, of: Column | None, *found: Column) -> DataFrame:
    key = repeat_key(spec)
    counted = F.max(F.lit(True) if of is None else of).alias(COUNTED)
    rows = df.groupBy(*key).agg(F.count(F.lit(1)).alias(COPIES), *found, counted)
    return rows.where((F.col(COPIES) > 1) & F.col(COUNTED)).drop(COUNTED)


def later_copies(df: DataFrame, repeated_keys: DataFrame, spec: RawTable) -> DataFrame:
    """The rows that `first_of_each` leaves out."""
    return _numbered_copies(df, repeated_keys, spec).where(F.col(COPIES) > 1).drop(COPIES)


def first_of_each(df: DataFrame, repeated_keys: DataFrame, spec: RawTable) -> DataFrame:
    """`df` without the later copies: of the rows of a repeated key the first by (dt, event time) stays.

    Args:
        repeated_keys: as `repeats` gives it; only rows of these keys are shuffled and sorted.
    """
    key = repeat_key(spec)
    firsts = _numbered_copies(df, repeated_keys, spec).where(F.col(COPIES) == 1).drop(COPIES)
    return df.join(repeated_keys.select(*key), list(key), "left_anti").unionByName(firsts)


def _numbered_copies(df: DataFrame, repeated_keys: DataFrame, spec: RawTable) -> DataFrame:
    """The rows of repeated keys, numbered from 1 by (dt, event time) within their key."""
    key = repeat_key(spec)
    order = Window.partitionBy(*key).orderBy(DAY_COLUMN, *spec.event_time)
    rows = df.join(repeated_keys.select(*key), list(key), "left_semi")
    return rows.withColumn(COPIES, F.row_number().over(order))
