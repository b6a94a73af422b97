"""Day partitions on any Hadoop file system: cleared, written, and marked only when they are whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

MARKER = "_SUCCESS"


def write_days(rows: DataFrame, folder: str, dts: Sequence[str], files_per_day: int) -> None:
    """Replaces `<folder>/dt=<day>` for each of `dts` by the rows with that dt. A day without rows gets only its marker.

    The old marker goes first and the new one comes last, so that a reader never takes a half-written day for a whole.
    """
    spark = rows.sparkSession
    for dt in dts:
        _delete(spark, f"{folder}/dt={dt}")
    spread = F.spark_partition_id() % files_per_day
    (
        rows.repartition(len(dts) * files_per_day, "dt", spread)
        .write.mode("append")
        .option("mapreduce.fileoutputcommitter.marksuccessfuljobs", "false")
        .partitionBy("dt")
        .parquet(folder)
    )
    for dt in dts:
        write_text(spark, f"{folder}/dt={dt}/{MARKER}", "")


def files_for(rows_per_day: float, rows_per_file: int) -> int:
    return max(1, math.ceil(rows_per_day / rows_per_file))


def write_text(spark: SparkSession, path: str, text: str) -> None:
    """Creates or replaces one small file."""
    file_system, place = _file_system(spark, path)
    stream = file_system.create(place, True)
    stream.write(bytearray(text.encode()))
    stream.close()


def _delete(spark: SparkSession, path: str) -> None:
    file_system, place = _file_system(spark, path)
    file_system.delete(place, True)


def _file_system(spark: SparkSession, path: str) -> tuple[Any, Any]:
    context = spark.sparkContext
    assert context._jvm is not None  # a session that runs has its JVM
    place = context._jvm.org.apache.hadoop.fs.Path(path)
    return place.getFileSystem(context._jsc.hadoopConfiguration()), place
