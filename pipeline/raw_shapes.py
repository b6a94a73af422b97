"""Columns and rows of raw days, read from their Parquet footers before any row is.

A column that a day lacks would read as null, and one of another type would fail deep inside a Spark task: both are
found here, by name.
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
from pipeline.raw_listing import RawListing
from pipeline.sources.raw_layout import DAY_COLUMN, RAW_TABLES


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


def nullable_inside(kind: DataType) -> DataType:
    """`kind` with nullable elements: whether elements may be null is the writer's habit, not part of the contract."""
    return ArrayType(nullable_inside(kind.elementType)) if isinstance(kind, ArrayType) else kind


def raw_schema(table: str, shapes: Mapping[dt.date, DayShape]) -> StructType:
    """Contract columns, further columns as found in any day (null where a day lacks one), `dt`.

    Raises:
        DataError: a day lacks a contract column, has one of another type, or two days disagree on a further column.
    """
    problems = [problem for day, shape in shapes.items() for problem in shape_problems(table, day, shape)]
    further: dict[str, DataType] = {}
    for day, shape in shapes.items():
        for name, kind in shape.columns.items():
            if name in RAW_TABLES[table].column_names() or name == DAY_COLUMN:
                continue
            if further.setdefault(name, kind) != kind:
                problems.append(_wrong_type(table, day, name, kind, further[name], "as on the days before it"))
    if problems:
        raise DataError(problems)
    extra = [StructField(name, kind) for name, kind in sorted(further.items())]
    contract = [StructField(field.name, field.dataType) for field in RAW_TABLES[table].columns.fields]
    return StructType([*contract, *extra, StructField(DAY_COLUMN, DateType())])


def shape_problems(table: str, day: dt.date, shape: DayShape) -> list[Problem]:
    """Contract columns that a day lacks or has of another type."""
    problems = []
    for field in RAW_TABLES[table].columns.fields:
        found = shape.columns.get(field.name)
        if found is None:
            problems.append(
                Problem(
                    what="column is absent",
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
