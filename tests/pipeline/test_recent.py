"""The last actions before a day as they are stored: a state now and then, and tiles since."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from features.spark.recent_actions import recent_actions
from pipeline.context import ONE_DAY
from pipeline.manifests import day_partition
from pipeline.recent_state import newest_state, stored_before, tiles_before
from pipeline.stages import recent, tiles
from pipeline.stages.names import RECENT_ACTIONS
from tests.small_world import SAMPLE_DAYS, context_of, digests

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from pipeline.context import Context

pytestmark = pytest.mark.spark

FIRST, SECOND = SAMPLE_DAYS


def last_actions(context: Context, stored: DataFrame) -> list[tuple[object, ...]]:
    lag = context.conf.time.event_lag_seconds
    rows = recent_actions(context.catalog, stored, days=[SECOND], event_lag_s=lag).collect()
    return sorted(tuple(map(str, row)) for row in rows)


def test_a_run_of_some_days_begins_with_one_state(spark: SparkSession, world: Path) -> None:
    assert {name for name in digests(world) if name.startswith(RECENT_ACTIONS)} == {f"{RECENT_ACTIONS}/dt={FIRST}"}
    context = context_of(spark, world)
    assert list(recent.run(context, SAMPLE_DAYS).computed) == []
    assert list(recent.run(context, [SECOND]).computed) == [], "the state of the day before is near enough"
    assert newest_state(context, SECOND) == FIRST
    assert newest_state(context, SECOND, other_than=[FIRST]) is None
    assert newest_state(replace(context, force=True), SECOND) is None


def test_what_is_read_is_the_same_with_and_without_a_state(spark: SparkSession, world: Path) -> None:
    context = context_of(spark, world)
    with_state, without = stored_before(context, SECOND), stored_before(context, SECOND, other_than=[FIRST])
    assert with_state.select("dt").distinct().count() == 2, "the state of FIRST, and the tile of its day"
    found = last_actions(context, with_state)
    assert found == last_actions(context, without)
    assert len(found) > 20


def test_a_state_is_made_anew_where_the_newest_is_old_or_not_up_to_date(
    spark: SparkSession, world: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(world, tmp_path / "copy"))
    context = context_of(spark, copy, "windows.max_deltas=1")
    later = SECOND + ONE_DAY
    tiles.run(context, [SECOND])
    assert list(recent.run(context, [later]).computed) == [later]
    manifest = context.warehouse.manifest(RECENT_ACTIONS, day_partition(later))
    assert manifest is not None
    assert manifest.inputs == tiles_before(context, later)
    shutil.rmtree(copy / RECENT_ACTIONS)
    assert list(recent.run(context, [later]).computed) == [later]
    assert digests(copy)[f"{RECENT_ACTIONS}/dt={later}"] == manifest.digest, "from a state, and from tiles alone"
    other = context_of(spark, copy, "time.event_lag_seconds=31")
    assert newest_state(other, later) is None
    assert list(recent.run(other, [later]).computed) == [later]
