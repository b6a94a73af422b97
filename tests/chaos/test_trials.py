"""SIGKILL a driver where it hurts: what was committed stays readable, and the next run completes the same content."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.chaos.inspection import Inspection
from tests.chaos.trials import DAY, Chaos, Point, State, draw
from tests.small_world import SAMPLE_DAYS, raw_copy

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.timeout(600)]


def test_a_killed_driver_leaves_all_readable_and_is_made_good(spark: SparkSession, world: Path, tmp_path: Path) -> None:
    state = State.of("raw alone", raw_copy(world, tmp_path / "raw alone"), world, SAMPLE_DAYS)
    trial = Chaos(spark, tmp_path, ahead=False).trial(state, Point(step=40, moment="before"))
    assert trial is not None
    assert trial.partial == trial.diverged == ()
    assert 0 < trial.committed < len(state.digests)


def test_what_is_spoilt_is_found(spark: SparkSession, world: Path, tmp_path: Path) -> None:
    warehouse = raw_copy(world, tmp_path / "spoilt")
    shutil.copytree(world / "tiles_user", warehouse / "tiles_user")
    inspection = Inspection(spark)
    spoilt, other = sorted((warehouse / "tiles_user" / "data").rglob("*.parquet"))[:2]
    spoilt.write_bytes(other.read_bytes())
    found = inspection.look(warehouse)[2]
    assert "tiles_user cannot be read: " in found[0], "Hadoop keeps a checksum beside each file"
    spoilt.with_name(f".{spoilt.name}.crc").unlink()
    (problem,) = inspection.look(warehouse)[2]
    assert "tiles_user/dt=" in problem
    assert "its rows have another digest than its manifest" in problem
    other.unlink()
    assert "is named by a manifest and not there" in inspection.look(warehouse)[2][0]


def test_half_of_the_points_are_steps_and_all_lie_in_the_run(tmp_path: Path) -> None:
    state = State(name="", folder=tmp_path, days=(DAY,), digests={}, generations={}, steps=9, seconds=4.0)
    rng = random.Random(1)
    points = [draw(rng, state) for _ in range(200)]
    steps = {point.step for point in points if point.step is not None}
    assert steps == set(range(1, 10))
    assert all(0 <= point.seconds <= 4 for point in points if point.seconds is not None)
    assert 70 < sum(point.step is None for point in points) < 130
