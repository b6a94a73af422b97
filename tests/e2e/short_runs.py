"""`limelight` as a process of its own, with a conf for runs that are short: a JVM that compiles once, small models."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import CONF_FOLDER_VARIABLE

ROOT = Path(__file__).resolve().parents[2]
JVM_KEY = "spark.driver.extraJavaOptions"
# Compiling hot code twice does not pay for runs this short: it halves their processor time not to.
QUICK_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
# Likewise expressions: for a few thousand rows they are interpreted. What is submitted to a cluster compiles them.
QUICK_SQL = ("spark.sql.codegen.wholeStage false", "spark.sql.codegen.factoryMode NO_CODEGEN")
# Some eighty steps, each of them long: enough to beat the rooms' heat on five thousand rows.
SHORT_TRAINING: Mapping[str, Any] = {
    "epochs": 1,
    "batch_size": 64,
    "optim": {
        "embedding": {"kind": "adagrad", "learning_rate": 0.02, "l2": 0.01},
        "dense": {"kind": "adam", "learning_rate": 0.005},
    },
}


def short_conf(folder: Path) -> Path:
    """A copy of conf/ in which Spark starts quickly and models are trained for one epoch."""
    shutil.copytree(ROOT / "conf", folder)
    local = folder / "spark" / "local.conf"
    lines = [line for line in local.read_text(encoding="utf-8").splitlines() if not line.startswith(JVM_KEY)]
    local.write_text("\n".join([*lines, f"{JVM_KEY} {QUICK_JVM}", *QUICK_SQL, ""]), encoding="utf-8")
    for file in (folder / "models").glob("*.yaml"):
        values: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
        file.write_text(yaml.safe_dump({**values, **SHORT_TRAINING}), encoding="utf-8")
    return folder


def command(*arguments: str) -> list[str]:
    """The command line of `limelight`."""
    return [sys.executable, "-m", "jobs.cli", *arguments]


def environment(conf: Path) -> Mapping[str, str]:
    """Of a process that reads its conf from a folder."""
    given = os.environ | {CONF_FOLDER_VARIABLE: str(conf), "COLUMNS": "200"}
    # Left by the session of the test run: with them a command would take itself for a submitted one.
    return {name: value for name, value in given.items() if not name.startswith("PYSPARK_GATEWAY")}


def limelight(conf: Path, arguments: Sequence[str]) -> str:
    """Run `limelight` to its end; what it wrote to stdout.

    Raises:
        AssertionError: it ended with another exit code than 0; with all that it wrote.
    """
    done = subprocess.run(
        command(*arguments), cwd=ROOT, env=environment(conf), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"limelight {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
