"""A user taken out of a computed warehouse: gone from every file, and from nothing else."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.errors import HeldError
from features.spec import Entity
from pipeline.erasure import Eraser, Findings
from pipeline.manifests import day_partition
from pipeline.observed import content_digest, keys_of
from pipeline.stages import profiles
from pipeline.tables import Warehouse
from pipeline.user_files import rewritten, rows_of_user
from tests.small_world import SAMPLE_DAYS, compute, context_of, digests
from tests.training.trainset_factory import write_trainset
from tests.warehouse_files import busiest_user, files_with, manifests

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FIRST, SECOND = SAMPLE_DAYS


def sample_rows(spark: SparkSession, warehouse: Path) -> list[Any]:
    return sorted(Warehouse(str(warehouse)).read_days(spark, "samples", SAMPLE_DAYS).collect(), key=str)


@pytest.fixture(scope="module")
def erased(spark: SparkSession, world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, Findings]:
    """A copy of the world without its busiest user, and what had been found before."""
    copy = Path(shutil.copytree(world, tmp_path_factory.mktemp("erased") / "copy"))
    user = busiest_user(copy, FIRST)
    leftover = copy / "samples" / "data" / "crashed" / "part-0.parquet"
    leftover.parent.mkdir()
    pq.write_table(pa.table({"user_id": pa.array([user], pa.int64())}), leftover)
    eraser = Eraser(context_of(spark, copy), user)
    found = eraser.find()
    eraser.erase(found)
    return copy, user, found


@pytest.mark.spark
def test_the_dry_run_finds_what_is_there(erased: tuple[Path, int, Findings], world: Path) -> None:
    _, user, found = erased
    named = {f"{held.table}/{held.path}" for held in found.current}
    assert named == set(files_with(world, user))
    assert [held.path for held in found.unnamed] == ["data/crashed/part-0.parquet"]
    assert found.trainsets == []
    raw = {partition.split("/")[0] for partition in found.raw}
    assert raw == {"impressions", "actions", "users"}


@pytest.mark.spark
def test_the_user_is_gone_and_everybody_else_is_as_before(
    spark: SparkSession, erased: tuple[Path, int, Findings], world: Path
) -> None:
    copy, user, _ = erased
    assert files_with(world, user) != []
    assert files_with(copy, user) == []
    before, after = sample_rows(spark, world), sample_rows(spark, copy)
    assert after == [row for row in before if row["user_id"] != user]
    assert len(after) < len(before)


@pytest.mark.spark
def test_digests_are_those_of_the_rows_that_are_left(spark: SparkSession, erased: tuple[Path, int, Findings]) -> None:
    copy, _, found = erased
    current = manifests(copy)
    for table, day_column, days in (("samples", "dt", SAMPLE_DAYS), ("tiles_user", "a", [FIRST])):
        rows = Warehouse(str(copy)).read_days(spark, table, days)
        for day, keys in keys_of(rows, day_column, rows.columns).items():
            manifest = current[f"{table}/{day_partition(day)}"]
            sums = {"rows_0": keys.rows, "high_0": keys.high, "low_0": keys.low}
            assert manifest.digest == content_digest(sums, 0)
            assert manifest.rows == sum(file.rows for file in manifest.files) == keys.rows
    assert {manifest.table for manifest in found.touched} >= {"samples", "tiles_user", "tiles_user_anchor"}


@pytest.mark.spark
def test_what_does_not_hold_the_user_keeps_its_files_and_nothing_reads_as_stale(
    spark: SparkSession, erased: tuple[Path, int, Findings], world: Path
) -> None:
    copy, _, found = erased
    touched = {f"{manifest.table}/{manifest.partition}" for manifest in found.touched}
    before, after = manifests(world), manifests(copy)
    counting = {name for name in after if name.startswith("profiles_anchor/")}
    assert {name for name in after if after[name].files != before[name].files} == touched | counting
    assert {name for name in after if after[name].generation != before[name].generation} >= touched
    assert after["tiles_anchor/dt=2025-03-03"] == before["tiles_anchor/dt=2025-03-03"]
    assert [list(run.result.computed) for run in compute(context_of(spark, copy)) if run.result.computed] == []
    assert digests(copy) == {name: manifest.digest for name, manifest in after.items()}


@pytest.mark.spark
def test_anchors_no_longer_count_the_user_just_as_if_they_were_computed_again(
    spark: SparkSession, erased: tuple[Path, int, Findings], world: Path, tmp_path: Path
) -> None:
    copy, _, _ = erased
    table, again = f"profiles_anchor/{day_partition(SECOND)}", Path(shutil.copytree(copy, tmp_path / "again"))
    context = context_of(spark, again)
    profiles.bulk(context, Entity.ANCHOR, {SECOND: profiles.inputs_of(context, Entity.ANCHOR, SECOND)})
    without, bulk = manifests(copy)[table], manifests(again)[table]
    assert (without.digest, without.rows, without.inputs) == (bulk.digest, bulk.rows, bulk.inputs)
    assert without.digest != manifests(world)[table].digest
    assert sum(file.rows for file in without.files) == without.stored_rows


@pytest.mark.spark
def test_a_second_run_finds_nothing_but_raw(spark: SparkSession, erased: tuple[Path, int, Findings]) -> None:
    copy, user, found = erased
    again = Eraser(context_of(spark, copy), user).find()
    assert (again.current, again.unnamed, again.touched, again.raw) == ([], [], [], found.raw)


@pytest.mark.spark
def test_a_live_run_is_not_disturbed(spark: SparkSession, world: Path) -> None:
    eraser = Eraser(context_of(spark, world), 1)
    nothing = Findings(user=1, current=[], touched=[], unnamed=[], trainsets=[], predictions=[], raw={})
    with Warehouse(str(world)).lease("samples", ["dt=2030-01-01"], "a run"), pytest.raises(HeldError, match="a run"):
        eraser.erase(nothing)


def test_a_file_is_searched_by_its_footer_and_rewritten_in_order(tmp_path: Path) -> None:
    path = str(tmp_path / "part.parquet")
    users = [1, 2, None, 3, 2, 9]
    at = [datetime.datetime(2025, 3, 1, tzinfo=datetime.UTC)] * 6
    table = pa.table(
        {
            "user_id": pa.array(users, pa.int64()),
            "ts": pa.array(at, pa.timestamp("us", "UTC")),
            "list": pa.array([[1], [], None, [2, 3], [4], [5]], pa.list_(pa.int64())),
        }
    )
    pq.write_table(table, path, row_group_size=4)
    assert [rows_of_user(path, "user_id", user) for user in (2, 9, 5)] == [2, 1, 0]
    assert rows_of_user(path, "group", 2) == 0
    target = str(tmp_path / "new" / "part.parquet")
    rows, size = rewritten(path, target, 2)
    assert (rows, size) == (4, Path(target).stat().st_size)
    assert pq.read_table(target).equals(table.take([0, 2, 3, 5]))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    assert rows_of_user(str(tmp_path / "broken.parquet"), "user_id", 2) is None


@pytest.mark.spark
def test_a_train_set_that_holds_the_user_goes_whole(spark: SparkSession, world: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(world, tmp_path / "copy"))
    warehouse = Warehouse(str(copy))
    (copy / "trainsets" / "data" / "attempt").mkdir(parents=True)
    write_trainset(copy / "trainsets" / "data" / "attempt", rows=64, valid_rows=16, gate_rows=16)
    (file, *_) = (copy / "trainsets" / "data" / "attempt").rglob("part-*.parquet")
    user = pq.read_table(file)["group"].to_pylist()[0]
    manifest = manifests(world)["tiles_anchor/dt=2025-03-03"]
    update = {
        "table": "trainsets",
        "partition": "name=one",
        "generation": 1,
        "attempt": "attempt",
        "files": (),
        "rows": 0,
    }
    warehouse.commit([manifest.model_copy(update=update)])
    predictions = copy / "runs" / "one" / "deepfm" / "predictions-gate.parquet"
    predictions.parent.mkdir(parents=True)
    predictions.write_bytes(b"rows")
    (predictions.parent / "verdict.json").write_text("{}")
    eraser = Eraser(context_of(spark, copy), user)
    found = eraser.find()
    assert found.trainsets == ["one"]
    eraser.erase(found)
    assert warehouse.partitions("trainsets") == []
    assert not (copy / "trainsets" / "data" / "attempt").exists()
    assert [path.name for path in predictions.parent.iterdir()] == ["verdict.json"]
