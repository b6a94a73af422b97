"""Files on any storage: whole or absent, and created by one writer only."""

from __future__ import annotations

import importlib.util
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from features.errors import ResourceError
from training.storage import ArrowOpener, Folder


@pytest.fixture(params=["file", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return Folder({"file": f"file://{tmp_path}/a/b", "memory": f"memory://{uuid.uuid4().hex}/a/b"}[request.param])


def test_a_folder_that_does_not_exist_is_empty(folder: Folder) -> None:
    assert folder.names() == []
    folder.delete("nothing")


def test_what_was_written_is_read(folder: Folder) -> None:
    folder.write("deep/er/x", b"1")
    folder.create("y", b"2")
    assert folder.names() == ["deep", "y"]
    assert folder.read("deep/er/x") == b"1"
    assert folder.folder("deep").folder("er").read("x") == b"1"
    folder.delete("deep")
    assert folder.names() == ["y"]


def test_a_file_is_created_once(folder: Folder) -> None:
    folder.create("x", b"first")
    with pytest.raises(FileExistsError):
        folder.create("x", b"second")
    assert folder.read("x") == b"first"
    assert folder.names() == ["x"]


def test_one_of_many_writers_at_once_creates_a_file(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))

    def attempt(number: int) -> int | None:
        try:
            folder.create("winner", str(number).encode())
        except FileExistsError:
            return None
        return number

    with ThreadPoolExecutor(8) as pool:
        winners = [number for number in pool.map(attempt, range(16)) if number is not None]
    assert [int(folder.read("winner"))] == winners
    assert folder.names() == ["winner"]


def test_a_plain_path_is_a_folder(tmp_path: Path) -> None:
    assert Folder(f"{tmp_path}/").path("c/d") == f"{tmp_path}/c/d"
    assert Folder(f"file://{tmp_path}").path("c") == f"{tmp_path}/c"


@pytest.mark.skipif(importlib.util.find_spec("s3fs") is not None, reason="the driver is installed")
def test_a_storage_without_driver_is_named_with_the_remedy() -> None:
    with pytest.raises(ResourceError, match=r"no driver for s3a://bucket/run: Install s3fs.*Install it on every host"):
        Folder("s3a://bucket/run").names()


def test_petastorm_can_open_what_fsspec_can(folder: Folder) -> None:
    folder.write("x", b"123")
    opener = ArrowOpener(folder)
    assert opener.isfile(folder.path("x"))
    assert not opener.isdir(folder.path("x"))
    with opener.open(folder.path("x")) as file:
        assert file.read() == b"123"
