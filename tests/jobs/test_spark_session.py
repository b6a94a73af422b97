"""Spark's properties: the file of a place, and who wins over whom under spark-submit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from features.errors import ConfError
from jobs.spark_session import missing_sql_properties, read_properties
from pipeline.config import conf_folder

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_properties_are_key_and_value_a_line(tmp_path: Path) -> None:
    file = tmp_path / "local.conf"
    file.write_text("# a remark\n\nspark.master   local[2]\nspark.driver.extraJavaOptions -Da=1 -Db=2\n")
    assert read_properties(file) == {"spark.master": "local[2]", "spark.driver.extraJavaOptions": "-Da=1 -Db=2"}


def test_a_line_without_value_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "local.conf").write_text("spark.master\n")
    with pytest.raises(ConfError, match=r"local.conf line 1: 'spark.master' has no value"):
        read_properties(tmp_path / "local.conf")
    with pytest.raises(ConfError, match=r"there is no moon.conf in conf/spark"):
        read_properties(tmp_path / "moon.conf")


def test_what_spark_submit_was_given_wins(spark: SparkSession) -> None:
    ours = {
        "spark.sql.shuffle.partitions": "800",
        "spark.sql.files.maxRecordsPerFile": "5",
        "spark.master": "yarn",
        "spark.sql.codegen.cache.maxEntries": "2000",
    }
    # The shared session was given its shuffle partitions; a running application keeps its master and static properties.
    assert missing_sql_properties(spark, ours) == {"spark.sql.files.maxRecordsPerFile": "5"}


def test_no_place_has_a_property_that_would_stop_a_submitted_application(spark: SparkSession) -> None:
    session = spark.newSession()
    for file in sorted((conf_folder() / "spark").glob("*.conf")):
        for key, value in missing_sql_properties(session, read_properties(file)).items():
            session.conf.set(key, value)
