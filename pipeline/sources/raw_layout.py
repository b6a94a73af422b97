"""The raw tables as code: columns, types, keys, paths; and the one writer that every source uses.

`<warehouse>/raw/<table>/dt=YYYY-MM-DD/*.parquet` plus an empty `_SUCCESS` in each day's folder. `dt` is the day
the row ARRIVED, the event time is when it HAPPENED. The contract in words is docs/sources.md.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    DataType,
    DateType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from features.errors import DataError, Problem
from pipeline.sources.hadoop_files import HadoopFiles

READY_MARKER = "_SUCCESS"
DAY_COLUMN = "dt"
ACTIONS = ("enter", "watch", "gift", "follow", "comment", "like", "share")
SAMPLED_NEGATIVE = "sampled_negative"
"""Further boolean column of impressions: true where a source drew the exposure instead of logging it."""

STAGING_FOLDER = "_staging"
MICROS = "TIMESTAMP_MICROS"
TIMESTAMP_TYPE_KEY = "spark.sql.parquet.outputTimestampType"

Kind = Literal["log", "updates", "snapshot", "minutes"]


@dataclass(frozen=True, kw_only=True)
class RawTable:
    """One raw table of the contract.

    Attributes:
        columns: contract columns in order; `nullable=False` means that a null breaks the contract. Further columns
            are welcome.
        kind: log (append-only events), updates (newer rows replace older ones of the same key), snapshot (whole
            state of a day), minutes (event-time counts per minute).
        key: the columns that name a row. Unique over the whole table for a log, within a day for a snapshot.
        event_time: columns whose latest non-null value is when the row happened; empty for a snapshot, which
            describes the state at the end of its day.
    """

    name: str
    kind: Kind
    columns: StructType
    key: tuple[str, ...]
    event_time: tuple[str, ...] = ()

    def column_names(self) -> tuple[str, ...]:
        return tuple(self.columns.fieldNames())

    def required(self) -> tuple[str, ...]:
        """Columns that must not be null."""
        return tuple(field.name for field in self.columns.fields if not field.nullable)

    def happened_at(self) -> Column:
        """Event time as a timestamp expression.

        Raises:
            ValueError: for a snapshot, which has none.
        """
        if not self.event_time:
            raise ValueError(f"raw table {self.name} is a snapshot: its rows have no event time")
        return F.greatest(*self.event_time) if len(self.event_time) > 1 else F.col(self.event_time[0])


def _columns(*fields: tuple[str, DataType, bool]) -> StructType:
    return StructType([StructField(name, kind, nullable=not required) for name, kind, required in fields])


_ID, _TEXT, _INT, _TIME, _DATE = LongType(), StringType(), IntegerType(), TimestampType(), DateType()

_TABLES = (
    RawTable(
        name="impressions",
        kind="log",
        columns=_columns(
            ("impression_id", _ID, True),
            ("user_id", _ID, True),
            ("anchor_id", _ID, True),
            ("room_id", _ID, True),
            ("ts", _TIME, True),
            ("scene", _TEXT, False),
            ("device", _TEXT, False),
            ("position", _INT, False),
        ),
        key=("impression_id",),
        event_time=("ts",),
    ),
    RawTable(
        name="actions",
        kind="log",
        columns=_columns(
            ("action_id", _ID, True),
            ("impression_id", _ID, False),
            ("user_id", _ID, True),
            ("anchor_id", _ID, True),
            ("room_id", _ID, True),
            ("ts", _TIME, True),
            ("action", _TEXT, True),
            ("value", DoubleType(), True),
        ),
        key=("action_id",),
        event_time=("ts",),
    ),
    RawTable(
        name="users",
        kind="snapshot",
        columns=_columns(
            ("user_id", _ID, True),
            ("gender", _TEXT, False),
            ("city", _TEXT, False),
            ("device", _TEXT, False),
            ("age", _INT, False),
            ("registered_on", _DATE, False),
        ),
        key=("user_id",),
    ),
    RawTable(
        name="anchors",
        kind="snapshot",
        columns=_columns(
            ("anchor_id", _ID, True),
            ("gender", _TEXT, False),
            ("city", _TEXT, False),
            ("category", _TEXT, False),
            ("age", _INT, False),
            ("level", _INT, False),
            ("signed_on", _DATE, False),
        ),
        key=("anchor_id",),
    ),
    RawTable(
        name="rooms",
        kind="updates",
        columns=_columns(
            ("room_id", _ID, True),
            ("anchor_id", _ID, True),
            ("started_at", _TIME, True),
            ("ended_at", _TIME, False),
            ("category", _TEXT, False),
            ("tags", ArrayType(_TEXT), False),
            ("content", ArrayType(FloatType()), False),
        ),
        key=("room_id",),
        event_time=("started_at", "ended_at"),
    ),
    RawTable(
        name="room_stats",
        kind="minutes",
        columns=_columns(
            ("room_id", _ID, True),
            ("minute", _TIME, True),
            ("viewers", _ID, True),
            ("entries", _ID, True),
            ("comments", _ID, True),
            ("gift_coins", _ID, True),
        ),
        key=("room_id", "minute"),
        event_time=("minute",),
    ),
)

RAW_TABLES: Mapping[str, RawTable] = MappingProxyType({table.name: table for table in _TABLES})


def raw_folder(warehouse: str) -> str:
    return f"{warehouse.rstrip('/')}/raw"


def table_folder(warehouse: str, table: str) -> str:
    return f"{raw_folder(warehouse)}/{table}"


def day_folder(warehouse: str, table: str, day: dt.date) -> str:
    return f"{table_folder(warehouse, table)}/{DAY_COLUMN}={day.isoformat()}"


def to_layout(df: DataFrame, table: str) -> DataFrame:
    """`df` with the contract's columns first, cast to their types; then its further columns, then `dt` as a date.

    Raises:
        DataError: a column of the contract, or `dt`, is absent.
    """
    contract = RAW_TABLES[table].columns
    absent = [name for name in (*contract.fieldNames(), DAY_COLUMN) if name not in df.columns]
    if absent:
        raise DataError(
            Problem(what="column to be written is absent", table=table, column=name, remedy="Let the source make it.")
            for name in absent
        )
    further = [name for name in df.columns if name not in contract.fieldNames() and name != DAY_COLUMN]
    return df.select(
        *(F.col(field.name).cast(field.dataType).alias(field.name) for field in contract.fields),
        *further,
        F.col(DAY_COLUMN).cast(DateType()).alias(DAY_COLUMN),
    )


def write_raw(df: DataFrame, warehouse: str, table: str, *, days: Iterable[dt.date] = ()) -> dict[dt.date, int]:
    """Writes whole days of one raw table, one file each, replacing exactly those days.

    1. everything goes to a staging folder of this call, partitioned by dt, rows sorted by (event time, key);
    2. then day by day: marker and old folder go, the new folder is renamed into place, the marker is made last.
    A crash leaves each day either old and ready, or new and ready, or without marker ("late"), never half ready.

    Args:
        df: the columns of the contract, `dt` (arrival day, date), any further columns.
        days: days that are written even when `df` has no row of them (an empty folder with a marker). A day that is
            in `df` is written whether named or not.

    Returns:
        Rows per day written.

    Raises:
        DataError: a column is absent.
    """
    spark = df.sparkSession
    spec = RAW_TABLES[table]
    staging = f"{raw_folder(warehouse)}/{STAGING_FOLDER}/{table}-{uuid.uuid4().hex}"
    order = [DAY_COLUMN, *spec.event_time[:1], *spec.key]
    rows = to_layout(df, table).repartition(DAY_COLUMN).sortWithinPartitions(*order)
    files = HadoopFiles(spark, warehouse)
    try:
        with micros_timestamps(spark):
            rows.write.partitionBy(DAY_COLUMN).parquet(staging)
        counts = _staged_counts(spark, files, staging)
        for day in sorted({*days, *counts}):
            _replace_day(files, staging, day_folder(warehouse, table, day), has_rows=day in counts)
    finally:
        files.delete(staging)
    return {day: counts.get(day, 0) for day in sorted({*days, *counts})}


def _staged_counts(spark: SparkSession, files: HadoopFiles, staging: str) -> dict[dt.date, int]:
    """Rows per staged day, from the Parquet footers."""
    if not any(entry.is_folder for entry in files.entries(staging)):
        return {}
    schema = StructType([StructField(DAY_COLUMN, DateType())])
    counted = spark.read.schema(schema).parquet(staging).groupBy(DAY_COLUMN).count().collect()
    return {row[DAY_COLUMN]: int(row["count"]) for row in counted}


def _replace_day(files: HadoopFiles, staging: str, target: str, *, has_rows: bool) -> None:
    files.delete(f"{target}/{READY_MARKER}")
    files.delete(target)
    if has_rows:
        files.rename(f"{staging}/{target.rsplit('/', 1)[1]}", target)
    else:
        files.make_folder(target)
    files.write_text(f"{target}/{READY_MARKER}", "")


@contextmanager
def micros_timestamps(spark: SparkSession) -> Iterator[None]:
    """Parquet timestamps are int64 microseconds inside; Spark's default is INT96, and the option is session wide."""
    before = spark.conf.get(TIMESTAMP_TYPE_KEY)
    spark.conf.set(TIMESTAMP_TYPE_KEY, MICROS)
    try:
        yield
    finally:
        spark.conf.set(TIMESTAMP_TYPE_KEY, str(before))


def days_between(first: dt.date, last: dt.date) -> list[dt.date]:
    """Every day of [first, last], both included; empty where last < first."""
    return [first + dt.timedelta(days=offset) for offset in range((last - first).days + 1)]
