"""What gc keeps and lets go: without Spark, on a warehouse of small files under real manifests."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from features import storage
from features.errors import ConfError, HeldError
from features.manifest import TrainSet
from pipeline.config import RetentionConf
from pipeline.manifests import DataFile, PartitionManifest
from pipeline.retention import Need, Retention, Thing, sweep
from pipeline.tables import Warehouse
from tests.training.trainset_factory import write_trainset

NOW = datetime.datetime(2025, 6, 30, 12, tzinfo=datetime.UTC)
LONG_AGO = NOW - datetime.timedelta(days=10)
LAST = datetime.date(2025, 6, 29)
CONF = RetentionConf(tiles_days=6, state_days=3, samples_days=4, trainsets=1, young_hours=24)


def commit(
    warehouse: Warehouse,
    table: str,
    partition: str,
    *,
    generation: int = 1,
    made: datetime.datetime = LONG_AGO,
    files: Sequence[str] | None = None,
    digest: str = "",
) -> PartitionManifest:
    """A generation with one file of ten bytes, unless files of other attempts are named."""
    attempt = f"{partition.replace('=', '-')}-{generation}"
    paths = files if files is not None else [f"data/{attempt}/part-0.parquet"]
    if files is None:
        leave(warehouse, f"{table}/{paths[0]}", made)
    manifest = PartitionManifest(
        table=table,
        partition=partition,
        generation=generation,
        attempt=attempt,
        files=tuple(DataFile(path=path, rows=0, bytes=10) for path in paths),
        rows=0,
        digest=digest or attempt,
        schema=(),
        created_at=made,
    )
    warehouse.commit([manifest])
    return manifest


def leave(warehouse: Warehouse, path: str, made: datetime.datetime) -> Path:
    """A file of ten bytes."""
    url = f"{warehouse.url}/{path}"
    storage.write_bytes(url, b"0123456789")
    os.utime(url, (made.timestamp(), made.timestamp()))
    return Path(url)


def dt(days_ago: int) -> str:
    return f"dt={LAST - datetime.timedelta(days=days_ago)}"


def plan(warehouse: Warehouse, *needs: Need) -> list[Thing]:
    return Retention(warehouse, CONF, now=NOW, longest_window=3).plan(needs)


def gone(things: Sequence[Thing], warehouse: Warehouse) -> dict[str, str]:
    return {
        url.removeprefix(f"{warehouse.url}/"): thing.why for thing in things if not thing.kept for url in thing.urls
    }


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(str(tmp_path / "warehouse"))


def test_days_beyond_those_of_conf_go_with_their_files_and_the_newest_stay(warehouse: Warehouse) -> None:
    for ago in range(6):
        commit(warehouse, "samples", dt(ago))
    things = plan(warehouse)
    found = gone(things, warehouse)
    why = "4 days older than the newest day; 4 days are kept"
    old = dt(4)
    assert found[f"samples/manifests/{old}/manifest.000001"] == why
    assert found[f"samples/data/{old.replace('=', '-')}-1"] == why
    assert len(found) == 4
    deleted = sweep(warehouse, things, "gc")
    assert warehouse.partitions("samples") == sorted(dt(ago) for ago in range(4))
    assert deleted == sum(thing.bytes for thing in things if not thing.kept) > 2 * 10
    for partition in warehouse.partitions("samples"):
        manifest = warehouse.manifest("samples", partition)
        assert manifest is not None
        assert all(storage.exists(url) for url in warehouse.file_urls(manifest))
    assert gone(plan(warehouse), warehouse) == {}


def test_a_superseded_generation_goes_but_not_files_that_the_current_one_still_names(warehouse: Warehouse) -> None:
    first = commit(warehouse, "profiles_user", dt(0))
    shared = first.files[0].path
    leave(warehouse, "profiles_user/data/dt-x/old.parquet", LONG_AGO)
    commit(warehouse, "profiles_user", dt(0), generation=2, files=[shared, "data/dt-x/old.parquet"])
    commit(warehouse, "profiles_user", dt(0), generation=3, files=[shared])
    found = gone(plan(warehouse), warehouse)
    assert found == {
        f"profiles_user/manifests/{dt(0)}/manifest.000001": "superseded by generation 2",
        f"profiles_user/manifests/{dt(0)}/manifest.000002": "superseded by generation 3",
        "profiles_user/data/dt-x": "superseded by generation 3",
    }


def test_what_no_manifest_names_goes_unless_it_is_young_or_being_written(warehouse: Warehouse) -> None:
    commit(warehouse, "samples", dt(0))
    leave(warehouse, "samples/data/crashed/written=2025-06-01/part-0.parquet", LONG_AGO)
    leave(warehouse, "samples/data/young/part-0.parquet", NOW - datetime.timedelta(hours=2))
    leave(warehouse, "samples/data/live/part-0.parquet", LONG_AGO)
    with warehouse.lease("samples", [dt(1)], "live"):
        things = plan(warehouse)
    assert gone(things, warehouse) == {"samples/data/crashed": "no manifest names it"}
    kept = {thing.why for thing in things if thing.kept and thing.what == "data"}
    assert kept == {
        "named by a manifest that is kept",
        "a live run is writing it",
        "written less than 24 hours ago",
    }


def test_a_generation_superseded_today_may_still_be_read(warehouse: Warehouse) -> None:
    commit(warehouse, "samples", dt(0))
    commit(warehouse, "samples", dt(0), generation=2, made=NOW - datetime.timedelta(hours=1))
    assert gone(plan(warehouse), warehouse) == {}


def trainset(warehouse: Warehouse, name: str, made: datetime.datetime, lineage: dict[str, str], gate: str) -> None:
    """A committed train set that was made from some partitions."""
    partition = f"name={name}"
    manifest = commit(warehouse, "trainsets", partition, made=made)
    root = Path(warehouse.url) / "trainsets" / "data" / manifest.attempt
    described = write_trainset(root, rows=64, valid_rows=16, gate_rows=16)
    splits = {**described.splits, "gate": described.splits["gate"].model_copy(update={"sample_files": (gate,)})}
    named = described.model_copy(update={"name": name, "lineage": lineage, "splits": splits})
    (root / "trainset.json").write_text(TrainSet.model_validate(named.model_dump()).model_dump_json())
    for path in root.rglob("*"):
        os.utime(path, (made.timestamp(), made.timestamp()))
    leave(warehouse, f"runs/{name}/deepfm/model.safetensors", made)


def test_champion_and_rollback_keep_their_train_sets_samples_and_runs(warehouse: Warehouse) -> None:
    for ago in range(8):
        commit(warehouse, "samples", dt(ago), digest=f"day {ago}")
    newer = commit(warehouse, "samples", dt(6), generation=2, digest="corrected")
    used = f"{warehouse.table_url('samples')}/data/{dt(5).replace('=', '-')}-1/part-0.parquet"
    for place, name in enumerate(("unused", "champion", "newest")):
        lineage = {f"samples/{dt(6)}": "day 6"} if name == "champion" else {}
        made = LONG_AGO + datetime.timedelta(hours=place)
        trainset(warehouse, name, made, lineage, gate=used if name == "champion" else "elsewhere")
    things = plan(warehouse, Need(trainset="champion", why="mmoe version 3, champion"))
    found = gone(things, warehouse)
    assert {path for path in found if path.startswith(("trainsets", "runs"))} == {
        "trainsets/manifests/name=unused/manifest.000001",
        "trainsets/data/name-unused-1",
        "runs/unused",
    }
    days = {path.split("/")[2] for path in found if path.startswith("samples/manifests")}
    assert days == {dt(4), dt(7)}
    reasons = {thing.why for thing in things if thing.kept and thing.partition in (dt(5), dt(6))}
    assert reasons == {"train set champion was made from it (mmoe version 3, champion)"}
    sweep(warehouse, things, "gc")
    assert warehouse.generations("samples", dt(6)) == [1, 2]
    assert warehouse.manifest("samples", dt(6)) == newer
    assert storage.exists(used)
    assert storage.exists(f"{warehouse.url}/runs/champion/deepfm/model.safetensors")


def test_a_partition_that_a_live_run_works_on_is_not_touched(warehouse: Warehouse) -> None:
    for ago in (0, 9):
        commit(warehouse, "samples", dt(ago))
    things = plan(warehouse)
    with warehouse.lease("samples", [dt(9)], "a run"), pytest.raises(HeldError, match="held by run a run"):
        sweep(warehouse, things, "gc")
    assert warehouse.partitions("samples") == sorted([dt(0), dt(9)])


def test_tiles_must_cover_the_windows_of_the_profiles_that_are_kept(warehouse: Warehouse) -> None:
    with pytest.raises(ConfError, match=r"retention\.tiles_days = 6 is below 33"):
        Retention(warehouse, CONF, now=NOW, longest_window=30)
