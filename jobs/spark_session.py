"""One Spark session per command, from conf/spark/<place>.conf; spark-submit's own settings win."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from features.errors import ConfError
from jobs.jvm_end import end_barrier_timer
from pipeline.config import conf_folder
from pipeline.java_classes import name_classes_in_full
from pipeline.java_runtime import ensure_java_home

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def read_properties(path: Path) -> dict[str, str]:
    """A Spark properties file: `key value` a line, # comments.

    Raises:
        ConfError: when the file is missing or a line has no value.
    """
    if not path.exists():
        raise ConfError(f"there is no {path.name} in conf/spark; give --place local or cluster, or add the file")
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        parts = text.split(None, 1)
        if len(parts) != 2:
            raise ConfError(f"{path.name} line {number}: {text!r} has no value")
        found[parts[0]] = parts[1]
    return found


def log_option() -> str:
    """What tells a JVM how to log, before a session can."""
    file = (conf_folder() / "spark" / "log4j2.properties").absolute().as_uri()
    return f"-Dlog4j2.configurationFile={file}"


@contextmanager
def spark_session(name: str, place: str, zone: str, scratch: Path | None = None) -> Iterator[SparkSession]:
    """A session that ends with the command.

    Under spark-submit the master and every property given there are kept; of conf/spark/<place>.conf only the SQL
    properties that nobody gave are added (memory and cores of a running driver cannot be, nor SQL's static ones:
    only `--properties-file` brings these).
    """
    properties = read_properties(conf_folder() / "spark" / f"{place}.conf")
    # Executors must run this interpreter, not whatever `python3` is on their PATH.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    if not submitted:
        ensure_java_home()
        # The driver's JVM starts before a session can set its log level.
        os.environ.setdefault("SPARK_SUBMIT_OPTS", log_option())
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName(f"limelight {name}")
    if not submitted:
        for key, value in properties.items():
            builder = builder.config(key, value)
        if scratch is not None:
            builder = builder.config("spark.local.dir", str(scratch / "spark"))
            builder = builder.config("spark.sql.warehouse.dir", str(scratch / "spark-warehouse"))
    logging.getLogger("py4j").setLevel(logging.ERROR)
    session = builder.getOrCreate()
    name_classes_in_full(session)
    session.sparkContext.setLogLevel(os.environ.get("LIMELIGHT_SPARK_LOG_LEVEL", "ERROR"))
    if submitted:
        for key, value in missing_sql_properties(session, properties).items():
            session.conf.set(key, value)
    session.conf.set("spark.sql.session.timeZone", zone)
    try:
        yield session
    finally:
        if submitted:
            end_barrier_timer(session)
        session.stop()


def missing_sql_properties(session: SparkSession, properties: Mapping[str, str]) -> dict[str, str]:
    """Those that can still be set, as they are SQL's and not static, and that the application was not given."""
    given = session.sparkContext.getConf()
    return {
        key: value
        for key, value in properties.items()
        if key.startswith("spark.sql.") and session.conf.isModifiable(key) and not given.contains(key)
    }
