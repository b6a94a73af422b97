"""Manifests that somebody else may have written: they name what lies in their table, or are refused."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from features.errors import DataError
from pipeline.manifests import DataFile, PartitionManifest
from pipeline.tables import Warehouse
from pipeline.trainset import load

OUTSIDE = ["../raw/users/part-0.parquet", "/etc/hostname", "s3://elsewhere/x", "data/%2e%2e/%2e%2e/x"]


def manifest(attempt: str = "3f") -> PartitionManifest:
    files = (DataFile(path="data/3f/part-0.parquet", rows=1, bytes=1),)
    now = datetime.datetime(2026, 1, 19, tzinfo=datetime.UTC)
    return PartitionManifest(
        table="samples", partition="dt=2026-01-19", generation=1, attempt=attempt, files=files, rows=1, digest="",
        schema=(), created_at=now,
    )  # fmt: skip


def planted(root: Path, **changes: object) -> Warehouse:
    """A warehouse with this manifest of samples."""
    document = json.loads(manifest().model_dump_json(by_alias=True)) | changes
    folder = root / "samples" / "manifests" / "dt=2026-01-19"
    folder.mkdir(parents=True)
    (folder / "manifest.000001").write_text(json.dumps(document))
    return Warehouse(str(root))


def test_ours_is_read(tmp_path: Path) -> None:
    assert planted(tmp_path).manifest("samples", "dt=2026-01-19") == manifest()


@pytest.mark.parametrize("path", OUTSIDE)
def test_files_elsewhere(tmp_path: Path, path: str) -> None:
    """`limelight gc` and `forget` delete what manifests list."""
    warehouse = planted(tmp_path, files=[{"path": path, "rows": 1, "bytes": 1}])
    with pytest.raises(DataError, match="the path"):
        warehouse.manifest("samples", "dt=2026-01-19")


@pytest.mark.parametrize("key", ["attempt", "table", "partition"])
def test_names_that_lead_elsewhere(tmp_path: Path, key: str) -> None:
    with pytest.raises(DataError, match="the name"):
        planted(tmp_path, **{key: "../../raw"}).manifest("samples", "dt=2026-01-19")


@pytest.mark.parametrize("name", ["../x", "a/b", "a\0b"])
def test_names_that_were_given(tmp_path: Path, name: str) -> None:
    warehouse = Warehouse(str(tmp_path))
    with pytest.raises(DataError, match="the name"):
        load(warehouse, name)
    with pytest.raises(DataError, match="the name"):
        warehouse.manifest("samples", name)
    with pytest.raises(DataError, match="the name"):
        warehouse.table_url(name)
