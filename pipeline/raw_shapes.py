"""Columns and rows of raw days, read from their Parquet footers before any row is.

A column that a day lacks would read as null, and one of another type would fail deep inside a Spark task: both are
found here, by name. A column that neither the contract nor a feature nor a stage reads is left alone: it may come, go
and change its type.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql.types import ArrayType, DataType, DateType, StructField, StructType

from features.errors import DataError, Problem
from features.schema import Catalog
from features.spec import Entity, Field, RoomField, RoomLast, RoomSum
from pipeline.raw_listing import RawListing
from pipeline.sources.raw_layout import DAY_COLUMN, RAW_TABLES, SAMPLED_NEGATIVE

_TABLE_OF_OP: Mapping[type, str] = {
    Field: "impressions",
    RoomField: "rooms",
    RoomLast: "room_stats",
    RoomSum: "room_stats",
}
_TABLE_OF_SNAPSHOT: Mapping[Entity, str] = {Entity.USER: "users", Entity.ANCHOR: "anchors"}
_READ_BY_STAGES: Mapping[str, frozenset[str]] = {"impressions": frozenset({SAMPLED_NEGATIVE})}
"""Raw table → further columns that stages read where they are there, whatever the catalog names."""


@dataclass(frozen=True, kw_only=True)
class DayShape:
    """Columns and rows of one raw day, from its Parquet footers.

    Attributes:
        columns: the days' columns as Spark reads them; of the first file where only that was opened.
        rows: over all of the day's files.
        odd_files: names of files whose columns differ from the first file's.
    """

    columns: Mapping[str, DataType]
    rows: int
    odd_files: tuple[str, ...] = ()


def read_shapes(
    spark: SparkSession, listing: RawListing, table: str, days: Iterable[dt.date], *, every_file: bool = False
) -> dict[dt.date, DayShape]:
    """Columns and row counts of the days that have files, from Parquet footers (no Spark job).

    Args:
        every_file: compare the columns of each file; else one file speaks for its day, as a day is one job's output,
            and `rows` counts that file only.
    """
    footers = _Footers(spark)
    shapes: dict[dt.date, DayShape] = {}
    for day in sorted(days):
        partition = listing.partitions[table].get(day)
        if partition is None or not partition.files:
            continue
        urls = partition.file_urls() if every_file else partition.file_urls()[:1]
        found = [footers.read(url) for url in urls]
        first, _ = found[0]
        odd = tuple(url.rsplit("/", 1)[1] for url, (columns, _) in zip(urls, found, strict=True) if columns != first)
        shapes[day] = DayShape(columns=first, rows=sum(rows for _, rows in found), odd_files=odd)
    return shapes


class _Footers:
    """Reads footers through the JVM; class look-ups cost more than the reads, so they are made once."""

    def __init__(self, spark: SparkSession) -> None:
        jvm: Any = spark._jvm
        jsc: Any = spark.sparkContext._jsc
        jsession: Any = spark._jsparkSession
        parquet = jvm.org.apache.parquet.hadoop
        self._path: Any = jvm.org.apache.hadoop.fs.Path
        self._from_path: Any = parquet.util.HadoopInputFile.fromPath
        self._open: Any = parquet.ParquetFileReader.open
        self._hadoop_conf: Any = jsc.hadoopConfiguration()
        self._converter: Any = jvm.org.apache.spark.sql.execution.datasources.parquet.ParquetToSparkSchemaConverter(
            jsession.sessionState().conf()
        )

    def read(self, url: str) -> tuple[dict[str, DataType], int]:
        """(column -> type as Spark would read it, rows) of one file."""
        reader = self._open(self._from_path(self._path(url), self._hadoop_conf))
        try:
            converted = self._converter.convert(reader.getFooter().getFileMetaData().getSchema())
            columns = StructType.fromJson(json.loads(converted.json()))
            return {field.name: nullable_inside(field.dataType) for field in columns.fields}, int(
                reader.getRecordCount()
            )
        finally:
            reader.close()


class RawColumns:
    """Columns of the raw days of one listing; each day's footer is read once, however often it is asked for."""

    def __init__(self, spark: SparkSession, listing: RawListing) -> None:
        self._spark, self._listing = spark, listing
        self._known: dict[str, dict[dt.date, DayShape]] = {}

    def shapes(self, table: str, days: Iterable[dt.date]) -> dict[dt.date, DayShape]:
        """Shapes of the days that have files; one file speaks for its day."""
        wanted = sorted(set(days))
        known = self._known.setdefault(table, {})
        known |= read_shapes(self._spark, self._listing, table, [day for day in wanted if day not in known])
        return {day: known[day] for day in wanted if day in known}

    def require(self, wanted: Mapping[str, Iterable[dt.date]], catalog: Catalog) -> None:
        """Compare days with the contract, with each other and with the catalog, before a row is read.

        Args:
            wanted: table -> days.

        Raises:
            DataError: every difference in every table, day by day.
        """
        named = catalog_columns(catalog)
        problems = [
            problem
            for table, days in sorted(wanted.items())
            for problem in schema_problems(table, self.shapes(table, days), named.get(table))
        ]
        if problems:
            raise DataError(problems)

    def unread(self, table: str, day: dt.date, catalog: Catalog) -> list[str]:
        """Columns of a day that neither the contract nor the catalog names, and no stage reads: they are ignored."""
        shape = self.shapes(table, [day]).get(day)
        read = _READ_BY_STAGES.get(table, frozenset()) | catalog_columns(catalog).get(table, {}).keys()
        return sorted(name for name in (further_columns(table, shape) if shape else ()) if name not in read)

    def all_unread(self, catalog: Catalog) -> dict[str, dict[str, int]]:
        """Table -> column that is ignored -> days that have it, of the days asked for so far."""
        found: dict[str, dict[str, int]] = {}
        for table, shapes in self._known.items():
            for day in shapes:
                for name in self.unread(table, day, catalog):
                    of_table = found.setdefault(table, {})
                    of_table[name] = of_table.get(name, 0) + 1
        return found


def nullable_inside(kind: DataType) -> DataType:
    """`kind` with nullable elements: whether elements may be null is the writer's habit, not part of the contract."""
    return ArrayType(nullable_inside(kind.elementType)) if isinstance(kind, ArrayType) else kind


def raw_schema(table: str, shapes: Mapping[dt.date, DayShape]) -> StructType:
    """Contract columns, further columns as found in any day (null where a day lacks one), `dt`.

    A further column on whose type the days disagree is left out: `RawColumns.require` stops before that where
    something reads it.

    Raises:
        DataError: a day lacks a contract column or has one of another type, or two days disagree on a column that a
            stage reads.
    """
    if problems := schema_problems(table, shapes):
        raise DataError(problems)
    found = [column for shape in shapes.values() for column in further_columns(table, shape).items()]
    further = dict(found)
    disagreeing = {name for name, kind in found if kind != further[name]}
    extra = [StructField(name, kind) for name, kind in sorted(further.items()) if name not in disagreeing]
    contract = [StructField(field.name, field.dataType) for field in RAW_TABLES[table].columns.fields]
    return StructType([*contract, *extra, StructField(DAY_COLUMN, DateType())])


def further_columns(table: str, shape: DayShape) -> dict[str, DataType]:
    """Columns of a day that the contract does not know."""
    known = {*RAW_TABLES[table].column_names(), DAY_COLUMN}
    return {name: kind for name, kind in shape.columns.items() if name not in known}


def schema_problems(
    table: str, shapes: Mapping[dt.date, DayShape], named: Mapping[str, str] | None = None
) -> list[Problem]:
    """Every difference of some days: from the contract, from each other, and from what the catalog reads.

    Args:
        named: column → feature that reads it, of columns that only the catalog names.
    """
    problems = [problem for day, shape in shapes.items() for problem in shape_problems(table, day, shape)]
    read = _READ_BY_STAGES.get(table, frozenset()) | (named or {}).keys()
    further: dict[str, DataType] = {}
    for day, shape in shapes.items():
        for name, kind in further_columns(table, shape).items():
            if name in read and further.setdefault(name, kind) != kind:
                problems.append(_wrong_type(table, day, name, kind, further[name], "as on the days before it"))
        absent = {name: feature for name, feature in (named or {}).items() if name not in shape.columns}
        problems += [
            Problem(
                what=f"column is absent: feature {feature} reads it",
                table=table,
                day=day.isoformat(),
                column=name,
                remedy="Write it and replace the day, or take the feature out of the catalog.",
            )
            for name, feature in absent.items()
        ]
    return problems


def catalog_columns(catalog: Catalog) -> dict[str, dict[str, str]]:
    """Raw table → column → the first feature that names it, beyond what the contract has."""
    found: dict[str, dict[str, str]] = {}
    for feature in catalog.features:
        column = getattr(feature.op, "column", None)
        table = _TABLE_OF_OP.get(type(feature.op)) or _TABLE_OF_SNAPSHOT.get(feature.entity)
        if column is not None and table is not None and column not in RAW_TABLES[table].column_names():
            found.setdefault(table, {}).setdefault(column, feature.name)
    return found


def shape_problems(table: str, day: dt.date, shape: DayShape) -> list[Problem]:
    """Contract columns that a day lacks or has of another type."""
    problems = []
    for field in RAW_TABLES[table].columns.fields:
        found = shape.columns.get(field.name)
        if found is None:
            problems.append(
                Problem(
                    what=f"column is absent, {field.dataType.simpleString()} wanted",
                    table=table,
                    day=day.isoformat(),
                    column=field.name,
                    remedy="Write it, with nulls where the contract allows them.",
                )
            )
        elif found != nullable_inside(field.dataType):
            problems.append(_wrong_type(table, day, field.name, found, field.dataType, "of the contract"))
    return problems


def _wrong_type(table: str, day: dt.date, column: str, found: DataType, wanted: DataType, whose: str) -> Problem:
    return Problem(
        what=f"column is {found.simpleString()}, not {wanted.simpleString()} {whose}",
        table=table,
        day=day.isoformat(),
        column=column,
        remedy="Cast it in the job that writes this table, and replace the day.",
    )
