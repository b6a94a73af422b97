"""A script of spark-submit that ran barrier tasks, as the fit of a booster does, ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
from pyspark import BarrierTaskContext
from jobs.spark_session import spark_session

def met(rows):
    BarrierTaskContext.get().barrier()
    return rows

with spark_session("barrier", "local", "UTC") as spark:
    rows = spark.sparkContext.parallelize(range(2), 2).barrier().mapPartitions(met)
    print("rows", sorted(rows.collect()), flush=True)
"""


@pytest.mark.timeout(150)
def test_spark_submit_ends_after_barrier_tasks(tmp_path: Path) -> None:
    script = tmp_path / "barrier.py"
    script.write_text(SCRIPT, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYSPARK_GATEWAY")}
    environment |= {"PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    submit = Path(sys.executable).parent / "spark-submit"
    options = ["--master", "local[2]", "--conf", "spark.ui.enabled=false", "--conf", "spark.driver.host=127.0.0.1"]
    done = subprocess.run(
        [submit, *options, script], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert "rows [0, 1]" in done.stdout, done.stderr
    assert done.returncode == 0
