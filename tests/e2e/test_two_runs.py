"""Two runs for one day at the same time, each a process: one does the work, the other says who holds it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from features.errors import ExitCode
from pipeline.run import compute_samples
from tests.e2e.short_runs import ROOT, command, environment, short_conf
from tests.small_world import SAMPLE_DAYS, context_of, digests, raw_copy

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

DAY = SAMPLE_DAYS[0]


def test_the_second_run_of_a_day_says_who_holds_it_and_leaves_the_first_alone(
    spark: SparkSession, world: Path, tmp_path: Path
) -> None:
    warehouse = raw_copy(world, tmp_path / "warehouse")
    for tiles in world.glob("tiles_*"):
        shutil.copytree(tiles, warehouse / tiles.name)
    conf = short_conf(tmp_path / "conf")
    told: list[subprocess.CompletedProcess[str]] = []

    def while_it_works(text: str) -> None:
        """Between two tables, where no table's own lease is held, somebody else asks for the same day."""
        if text.startswith("profiles") and not told:
            arguments = ["backfill", "-w", str(warehouse), "--from", str(DAY), "--to", str(DAY)]
            told.append(
                subprocess.run(
                    command(*arguments), cwd=ROOT, env=environment(conf), capture_output=True, text=True, check=False
                )
            )

    compute_samples(context_of(spark, warehouse), [DAY], while_it_works)
    second = told[0]
    assert second.returncode == ExitCode.HELD_BY_ANOTHER_RUN, second.stderr
    assert f"days dt={DAY} is held by run " in second.stderr
    assert f"(host {socket.gethostname()}, pid {os.getpid()}, since 20" in second.stderr
    mine = {name: digest for name, digest in digests(world).items() if name in digests(warehouse)}
    assert digests(warehouse) == mine
    assert f"samples/dt={DAY}" in mine
