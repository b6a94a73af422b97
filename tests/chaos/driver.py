"""The driver that is killed: a process of its own with a JVM of its own, which waits for one order and carries it out.

stdout: `ready`, then `step <n> <file>` before every exclusive creation of a file, then `done`.
"""

from __future__ import annotations

import datetime
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from features import storage
from pipeline.java_runtime import ensure_java_home
from tests.e2e.short_runs import QUICK_JVM
from tests.e2e.standalone_cluster import SPARK_HOME, scala_version
from tests.small_world import context_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).resolve().parents[2]
READY, STEP, DONE = "ready", "step", "done"
LOCAL, LOCAL_CLUSTER = "local[1]", "local-cluster[2,1,512]"  # two executors of one core, each a JVM of its own
QUICK = {
    "spark.driver.memory": "800m",
    "spark.driver.extraJavaOptions": QUICK_JVM,
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.sql.session.timeZone": "Asia/Shanghai",
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.adaptive.enabled": "false",
    # Some hundreds of rows: interpreting a query is quicker than compiling it.
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


class Order(BaseModel):
    """What to compute, and at which exclusive creation to die: before it, or right after it; None lives."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    warehouse: str
    days: tuple[datetime.date, ...]
    step: int | None = None
    moment: Literal["before", "after"] = "before"


@contextmanager
def quick_session(scratch: Path, master: str = LOCAL) -> Iterator[SparkSession]:
    """A session told to start quickly."""
    from pyspark.sql import SparkSession

    ensure_java_home()
    os.environ["PYSPARK_PYTHON"] = sys.executable
    log_conf = ROOT / "conf" / "spark" / "log4j2.properties"
    os.environ.setdefault("SPARK_SUBMIT_OPTS", f"-Dlog4j2.configurationFile={log_conf.as_uri()}")
    builder = SparkSession.builder.master(master).appName("limelight-chaos")
    for key, value in QUICK.items():
        builder = builder.config(key, value)
    if master != LOCAL:
        os.environ |= {"SPARK_HOME": str(SPARK_HOME), "SPARK_SCALA_VERSION": scala_version()}
        builder = builder.config("spark.executor.memory", "512m").config("spark.executor.extraJavaOptions", QUICK_JVM)
    builder = builder.config("spark.local.dir", str(scratch / "local"))
    session = builder.config("spark.sql.warehouse.dir", str(scratch / "tables")).getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    try:
        yield session
    finally:
        session.stop()


def die_at(order: Order) -> None:
    """Tell of every exclusive creation, and end this process and its JVM at the one that was ordered."""
    link, count = os.link, 0

    def counted(source: str, target: str) -> None:
        nonlocal count
        count += 1
        print(STEP, count, Path(target).relative_to(order.warehouse), flush=True)
        if count == order.step and order.moment == "before":
            os.killpg(os.getpgrp(), signal.SIGKILL)
        link(source, target)
        if count == order.step:
            os.killpg(os.getpgrp(), signal.SIGKILL)

    storage.os.link = counted  # type: ignore[attr-defined]


def main() -> None:
    """One order, then the end."""
    from pipeline.run import compute_samples

    with quick_session(Path(sys.argv[1]), sys.argv[2]) as spark:
        spark.range(1).collect()  # the JVM has loaded what every job needs
        print(READY, flush=True)
        order = Order.model_validate_json(sys.stdin.readline())
        die_at(order)
        compute_samples(context_of(spark, Path(order.warehouse)), order.days, lambda _: None)
        print(DONE, flush=True)
        os._exit(0)  # the JVM ends when its parent does


if __name__ == "__main__":
    main()
