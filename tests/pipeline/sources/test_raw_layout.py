"""Writing raw days: whole, marked last, replaced one by one."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from features.errors import DataError
from pipeline.check_raw import RawCheckConf, check_raw
from pipeline.sources.raw_layout import RAW_TABLES, days_between, write_raw
from tests.pipeline.raw_rows import ARROW_TYPES, ZONE, day


def _minutes(spark: SparkSession, rows: int, first: dt.date) -> DataFrame:
    """One row of room_stats per ten minutes from midnight of `first`."""
    minute = F.timestamp_seconds(F.unix_timestamp(F.lit(first).cast("timestamp")) + F.col("id") * 600)
    numbers = [F.lit(1).alias(name) for name in ("room_id", "viewers", "entries", "comments", "gift_coins")]
    return spark.range(rows).select(minute.alias("minute"), *numbers, F.to_date(minute).alias("dt"))


def _files(folder: Path, table: str, when: dt.date) -> list[Path]:
    return sorted((folder / "raw" / table / f"dt={when}").glob("*.parquet"))


def test_days_are_written_whole_with_their_marker(spark: SparkSession, tmp_path: Path) -> None:
    counts = write_raw(_minutes(spark, 200, day(0)), str(tmp_path), "room_stats", days=[day(3)])
    assert counts == {day(0): 144, day(1): 56, day(3): 0}
    for when, files in ((day(0), 1), (day(1), 1), (day(3), 0)):
        assert len(_files(tmp_path, "room_stats", when)) == files
        assert (tmp_path / "raw" / "room_stats" / f"dt={when}" / "_SUCCESS").exists()
    assert list((tmp_path / "raw" / "_staging").iterdir()) == []


def test_types_are_the_contract_s_and_rows_are_in_order(spark: SparkSession, tmp_path: Path) -> None:
    write_raw(_minutes(spark, 144, day(0)), str(tmp_path), "room_stats")
    (file,) = _files(tmp_path, "room_stats", day(0))
    table = pq.read_table(file)
    assert {field.name: field.type for field in table.schema} == ARROW_TYPES["room_stats"]
    minutes = table["minute"].to_pylist()
    assert minutes == sorted(minutes)


def test_only_days_with_rows_or_named_are_replaced(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = str(tmp_path)
    write_raw(_minutes(spark, 288, day(0)), warehouse, "room_stats")
    kept = _files(tmp_path, "room_stats", day(0))
    write_raw(_minutes(spark, 10, day(1)), warehouse, "room_stats")
    assert _files(tmp_path, "room_stats", day(0)) == kept
    assert pq.read_metadata(_files(tmp_path, "room_stats", day(1))[0]).num_rows == 10
    write_raw(_minutes(spark, 0, day(0)), warehouse, "room_stats", days=[day(0)])
    assert _files(tmp_path, "room_stats", day(0)) == []


def test_a_source_that_forgets_columns_hears_of_all_of_them(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        write_raw(_minutes(spark, 1, day(0)).drop("viewers", "dt"), str(tmp_path), "room_stats")
    assert [problem.column for problem in caught.value.problems] == ["viewers", "dt"]
    assert not (tmp_path / "raw").exists()


def test_every_table_written_empty_keeps_the_contract(spark: SparkSession, tmp_path: Path) -> None:
    for name, table in RAW_TABLES.items():
        rows = spark.createDataFrame([], table.columns).withColumn("dt", F.lit(day(0)))
        write_raw(rows, str(tmp_path), name, days=[day(0)])
    found = check_raw(spark, str(tmp_path), day(0), day(0), RawCheckConf(zone=ZONE))
    assert {violation.severity for violation in found} == {"warning"}


def test_contract_types_agree_with_the_tests_own_copy() -> None:
    for name, table in RAW_TABLES.items():
        assert set(table.column_names()) == set(ARROW_TYPES[name])
        assert set(table.key) <= set(table.required())


def test_days_between_includes_both_ends() -> None:
    assert days_between(day(0), day(2)) == [day(0), day(1), day(2)]
    assert days_between(day(1), day(0)) == []
