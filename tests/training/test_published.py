"""A published folder that somebody else may have written: nothing outside of it is read or written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from features.errors import DataError
from training.published import MANIFEST_FILE, Output, local_copy, seal, verify


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "published"
    (folder / "vocabularies").mkdir(parents=True)
    (folder / "model.onnx").write_text("graph")
    (folder / "vocabularies" / "user.parquet").write_text("keys")
    seal(folder, "deepfm", (Output(name="enter", all_of=("enter",)),))
    return folder


@pytest.mark.parametrize("path", ["../outside", "/etc/hostname", "vocabularies/../../x", "a\0b", "%2e%2e/outside"])
def test_a_manifest_that_names_a_file_elsewhere_is_refused(folder: Path, path: str) -> None:
    (folder.parent / "outside").write_text("secret")
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    manifest["files"].append({"path": path, "size": 6, "sha256": "0" * 64})
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="the path"):
        verify(folder)


@pytest.mark.parametrize("name", ["model.onnx", "vocabularies/user.parquet", "vocabularies"])
def test_a_link_out_of_the_folder_is_refused_even_to_the_same_content(folder: Path, name: str) -> None:
    moved = folder.parent / "moved"
    (folder / name).rename(moved)
    (folder / name).symlink_to(moved)
    with pytest.raises(DataError, match="a link that leads out"):
        verify(folder)


def test_links_within_the_folder_and_to_it_are_followed(folder: Path) -> None:
    (folder / "model.onnx").rename(folder / "graph")
    (folder / "model.onnx").symlink_to("graph")
    seal(folder, "deepfm", (Output(name="enter", all_of=("enter",)),))
    current = folder.parent / "current"
    current.symlink_to(folder)
    assert {file.path for file in verify(current).files} == {"graph", "model.onnx", "vocabularies/user.parquet"}


def test_a_store_with_a_name_that_leads_upwards_is_not_copied(s3: str) -> None:
    import boto3

    bucket, _, prefix = s3.removeprefix("s3://").partition("/")
    client = boto3.client("s3")
    client.put_object(Bucket=bucket, Key=f"{prefix}/published/model.onnx".lstrip("/"), Body=b"graph")
    with local_copy(f"{s3}/published") as copy:
        assert (copy / "model.onnx").read_bytes() == b"graph"
    client.put_object(Bucket=bucket, Key=f"{prefix}/published/%2e%2e/x".lstrip("/"), Body=b"graph")
    with pytest.raises(DataError, match="the path"), local_copy(f"{s3}/published"):
        pass
