"""A day carried from its eve: the content of the bulk recompute, whatever happens on the way."""

from __future__ import annotations

import datetime
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from features.errors import DataError
from features.spec import Entity
from pipeline import profile_state
from pipeline.context import ONE_DAY
from pipeline.manifests import PartitionManifest, day_partition
from pipeline.profile_state import compacted, layers, read_features
from pipeline.stages import profiles
from pipeline.stages.names import profile_table
from pipeline.tables import Warehouse
from tests.small_world import SAMPLE_DAYS, context_of, digests

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

EVE, DAY = SAMPLE_DAYS
TABLES = [profile_table(entity) for entity in (Entity.USER, Entity.ANCHOR, Entity.USER_CATEGORY, Entity.USER_ANCHOR)]


@pytest.fixture
def eve(world: Path, tmp_path: Path) -> Path:
    """The computed world as it was before the profiles of the second sample day were made, in bulk with the first."""
    copy = Path(shutil.copytree(world, tmp_path / "eve"))
    for table in TABLES:
        shutil.rmtree(copy / table / "manifests" / day_partition(DAY))
    return copy


def current(warehouse: Path, table: str, day: datetime.date) -> PartitionManifest:
    found = Warehouse(str(warehouse)).manifest(table, day_partition(day))
    assert found is not None
    return found


def test_a_carried_day_has_the_content_of_the_bulk_recompute_and_is_as_fresh(
    spark: SparkSession, world: Path, eve: Path
) -> None:
    context = context_of(spark, eve)
    assert list(profiles.run(context, SAMPLE_DAYS).computed) == [DAY]
    assert digests(eve) == digests(world)
    for table in TABLES:
        carried, made_in_bulk = current(eve, table, DAY), current(world, table, DAY)
        assert carried.inputs == made_in_bulk.inputs
        assert (carried.carried_from, made_in_bulk.carried_from) == (day_partition(EVE), None)
        assert {file.path for file in carried.files} > {file.path for file in current(eve, table, EVE).files}
        assert carried.checks is not None
        assert carried.checks.carried is not None
        delta_rows = sum(file.rows for file in carried.files if file.layer == 1)
        born, died = carried.checks.carried.born, carried.checks.carried.died
        assert carried.checks.carried.touched == delta_rows
        assert carried.rows == current(eve, table, EVE).rows + born - died
        assert (carried.checks.reference, carried.checks.findings) == ((day_partition(EVE),), ())
    features = {}
    for warehouse in (world, eve):
        frame = read_features(context_of(spark, warehouse), Entity.USER, SAMPLE_DAYS)
        features[warehouse] = sorted(tuple(row) for row in frame.collect())
    assert features[eve] == features[world]
    assert list(profiles.run(context, SAMPLE_DAYS).computed) == []


def test_compaction_keeps_the_content_and_stops_when_base_and_deltas_do_not_add_up(
    spark: SparkSession, world: Path, eve: Path
) -> None:
    context = context_of(spark, eve)
    profiles.run(context, [DAY])
    before = current(eve, "profiles_anchor", DAY)
    after = compacted(context, Entity.ANCHOR, before)
    assert (after.digest, after.rows, after.inputs) == (before.digest, before.rows, before.inputs)
    assert (layers(before), layers(after), after.generation) == (1, 0, 2)
    assert after.rows == sum(file.rows for file in after.files)
    assert after.checks is not None
    assert after.checks.carried is None
    assert after.checks.columns["_tiles_30"].psi is not None, "the base of the eve is the reference"
    with pytest.raises(DataError, match="went in"):
        compacted(context, Entity.ANCHOR, after.model_copy(update={"digest": f"{after.rows:x}-1-1"}))
    assert current(eve, "profiles_anchor", DAY) == after


def test_a_state_that_no_tiles_can_have_made_stops_the_day(spark: SparkSession, eve: Path) -> None:
    table = "profiles_user_category"
    for file in current(eve, table, EVE).files:
        path = eve / table / file.path
        rows = pq.ParquetFile(path).read()
        place = rows.column_names.index("_tiles_30")
        pq.write_table(rows.set_column(place, "_tiles_30", pc.subtract(rows["_tiles_30"], 1000)), path)
        (path.parent / f".{path.name}.crc").unlink()
    with pytest.raises(DataError) as caught:
        profiles.run(context_of(spark, eve), [DAY])
    problems = {problem.column: problem for problem in caught.value.problems}
    problem = problems["_tiles_30"]
    assert (problem.table, problem.day) == (table, str(DAY))
    assert re.search(r"touched keys hold what no tiles can have made: state is \S+, above 0 \(stop\)", problem.what)
    assert len(problem.examples) == 5
    assert re.fullmatch(r"user_id=\d+, category=.*", str(problem.examples[0]))
    assert "backfill --force" in problem.remedy
    assert Warehouse(str(eve)).manifest(table, day_partition(DAY)) is None


def test_a_run_killed_between_two_entities_is_completed_by_the_next(
    spark: SparkSession, world: Path, eve: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed: list[PartitionManifest] = []

    def write_two(*arguments: Any) -> PartitionManifest:
        if len(committed) == 2:
            raise KeyboardInterrupt
        committed.append(profile_state.write_delta(*arguments))
        return committed[-1]

    monkeypatch.setattr(profiles, "write_delta", write_two)
    with pytest.raises(KeyboardInterrupt):
        profiles.run(context_of(spark, eve), [DAY])
    assert [manifest.table for manifest in committed] == ["profiles_user_category", "profiles_user_anchor"]
    monkeypatch.undo()
    profiles.run(context_of(spark, eve), [DAY])
    assert digests(eve) == digests(world)
    assert current(eve, "profiles_user_anchor", DAY) == committed[1]


def test_only_what_arrived_or_leaves_is_read(spark: SparkSession, world: Path) -> None:
    frame = profiles.moving_tiles(context_of(spark, world), Entity.USER_ANCHOR, EVE)
    happened = re.compile(r"written=([0-9-]+)/happened=([0-9-]+)/")
    found = {match.groups() for file in frame.inputFiles() if (match := happened.search(file))}
    arrived_on_eve = {(a, e) for a, e in found if a == EVE.isoformat()}
    assert len({e for _, e in arrived_on_eve}) > 1, "late rows arrived on the eve"
    a_week_before = (EVE - 7 * ONE_DAY).isoformat()
    assert {e for _, e in found - arrived_on_eve} <= {a_week_before}


def test_a_day_is_carried_only_from_an_eve_that_is_up_to_date(spark: SparkSession, world: Path, eve: Path) -> None:
    context = context_of(spark, eve)
    later = DAY + ONE_DAY
    assert profiles.days_to_carry(context, [DAY]) == [DAY]
    assert profiles.days_to_carry(context, [DAY, later]) == [DAY, later]
    assert profiles.days_to_carry(context, [EVE, DAY]) == []
    assert profiles.days_to_carry(context, [later]) == []
    assert profiles.days_to_carry(context_of(spark, eve, "windows.max_carried_days=0"), [DAY]) == []
    assert profiles.days_to_carry(context_of(spark, eve, "time.max_lateness_days=4"), [DAY]) == []
