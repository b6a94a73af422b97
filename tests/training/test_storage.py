"""Files on any storage: whole or absent, and created by one writer only."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from features.storage import resolve
from tests.training.stores import STORES, open_store
from training.storage import ArrowOpener, Folder


@pytest.fixture(params=STORES)
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    return Folder(f"{open_store(request.param, tmp_path, monkeypatch)}/a/b")


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
    with pytest.raises(FileNotFoundError):
        folder.read("deep/er/x")


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


def test_hadoops_name_of_s3_is_known() -> None:
    assert resolve("s3a://bucket/run?region=eu-west-1")[1] == "bucket/run"


def test_petastorm_reads_through_arrow_and_writes_nothing(folder: Folder) -> None:
    folder.write("x", b"123")
    opener = ArrowOpener(folder)
    assert opener.isfile(folder.path("x"))
    assert not opener.isdir(folder.path("x"))
    assert not opener.isdir(folder.path("x").removesuffix("/x")), "nothing is looked for in a folder"
    with opener.open(folder.path("x")) as file:
        assert file.read() == b"123"
    with pytest.raises(ValueError, match="only read"):
        opener.open(folder.path("x"), "wb")
