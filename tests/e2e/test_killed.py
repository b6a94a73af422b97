"""SIGKILL a backfill where it hurts: what was committed stays readable, and the next run completes the same content."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.tables import Warehouse
from tests.e2e.short_runs import ROOT, command, environment, limelight, short_conf
from tests.small_world import SAMPLE_DAYS, digests, raw_copy

pytestmark = [pytest.mark.spark, pytest.mark.timeout(900)]

LOOK_EVERY_S = 0.05


def backfill(warehouse: Path) -> list[str]:
    return ["backfill", "--warehouse", str(warehouse), "--from", str(SAMPLE_DAYS[0]), "--to", str(SAMPLE_DAYS[-1])]


def kill_when(reached: Callable[[], bool], arguments: Sequence[str], conf: Path, log: Path) -> None:
    """Run `limelight`, and kill it with all that it started, the moment something is there.

    Raises:
        AssertionError: it ended before that.
    """
    with (
        log.open("w") as sink,
        subprocess.Popen(
            command(*arguments),
            cwd=ROOT,
            env=environment(conf),
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        while not reached():
            try:
                process.wait(timeout=LOOK_EVERY_S)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(f"ended with {process.returncode} before it was to be killed:\n{log.read_text()}")
        os.killpg(process.pid, signal.SIGKILL)


def check_readable(warehouse: Path) -> int:
    """Every committed partition has the files and rows that its manifest lists; how many partitions there are."""
    opened = Warehouse(str(warehouse))
    count = 0
    for table in opened.tables():
        for partition in opened.partitions(table):
            manifest = opened.manifest(table, partition)
            assert manifest is not None
            rows = [pq.read_table(url, partitioning=None).num_rows for url in opened.file_urls(manifest)]
            assert sum(rows) == manifest.rows
            count += 1
    return count


def test_a_killed_backfill_goes_on_where_it_was(world: Path, tmp_path: Path) -> None:
    warehouse = raw_copy(world, tmp_path / "warehouse")
    conf, arguments = short_conf(tmp_path / "conf"), backfill(warehouse)
    kill_when(lambda: any(warehouse.glob("tiles_user/data/*")), arguments, conf, tmp_path / "first.log")
    assert check_readable(warehouse) == 0, "the first commit needs all of the first write"
    kill_when(lambda: any(warehouse.glob("profiles_user/manifests/*")), arguments, conf, tmp_path / "second.log")
    committed = digests(warehouse)
    assert check_readable(warehouse) == len(committed) > 0
    assert committed.items() < digests(world).items()

    limelight(conf, arguments)
    assert digests(warehouse) == digests(world)
    assert check_readable(warehouse) == len(digests(world))
    # What the killed runs had committed was not computed again.
    opened = Warehouse(str(warehouse))
    again = [name for name in committed if len(opened.generations(*name.split("/"))) > 1]
    assert again == []
