"""One Spark session for the whole run: starting it costs more than most tests."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.java_classes import name_classes_in_full
from pipeline.java_runtime import ensure_java_home
from tests.once import made_once
from tests.s3_server import S3Server, new_bucket, s3_server

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what needs Spark, so that `make test-spark4` can pick it."""
    for item in items:
        if "spark" in getattr(item, "fixturenames", ()):
            item.add_marker("spark")


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """local[2], business time zone Asia/Shanghai, four shuffle partitions, no UI."""
    from pyspark.sql import SparkSession

    ensure_java_home()
    # Workers run this interpreter, with its packages, and not the `python3` on PATH.
    os.environ["PYSPARK_PYTHON"] = sys.executable
    scratch: Path = tmp_path_factory.mktemp("spark")
    session = (
        SparkSession.builder.master("local[2]")
        .appName("limelight-tests")
        .config("spark.driver.memory", "2g")
        # Compiling hot code twice does not pay for jobs this short; it halves their processor time not to.
        .config("spark.driver.extraJavaOptions", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.local.dir", str(scratch / "local"))
        .config("spark.sql.warehouse.dir", str(scratch / "warehouse"))
        .config("spark.sql.session.timeZone", "Asia/Shanghai")
        .config("spark.sql.shuffle.partitions", "4")
        .config("spark.sql.execution.arrow.pyspark.enabled", "true")
        .config("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.debug.maxToStringFields", "3")
        # For a few rows, interpreting expressions costs less than compiling them. What tests submit to a cluster is
        # compiled, and has to write the digests of this session.
        .config("spark.sql.codegen.wholeStage", "false")
        .config("spark.sql.codegen.factoryMode", "NO_CODEGEN")
        .config("spark.ui.showConsoleProgress", "false")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    name_classes_in_full(session)
    yield session
    session.stop()


@pytest.fixture(scope="session")
def world(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw tables of a small platform and the samples that local[2] made of them; do not write into it."""
    from tests.small_world import compute, context_of, write_raw

    def make(warehouse: Path) -> None:
        write_raw(warehouse)
        compute(context_of(spark, warehouse))

    return made_once("world", tmp_path_factory, make)


@pytest.fixture(scope="session")
def s3_running() -> Iterator[S3Server]:
    """An S3 server on loopback."""
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(s3_running: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty bucket, on a server that the environment names."""
    for name, value in s3_running.environment.items():
        monkeypatch.setenv(name, value)
    return new_bucket(uuid.uuid4().hex)
