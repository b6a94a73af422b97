"""Exclusive creation, on the local disk and on a store without rename."""

from __future__ import annotations

import errno
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from features import storage
from features.errors import ConfError
from tests.s3_server import S3Server


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else f"{request.getfixturevalue('s3')}/deep"


def test_exclusive_creation_keeps_the_first_and_leaves_nothing_else(root: str) -> None:
    url = f"{root}/folder/manifest.000001"
    assert storage.create_exclusively(url, b"first")
    assert not storage.create_exclusively(url, b"second")
    assert storage.read_bytes(url) == b"first"
    assert [entry.name for entry in storage.list_files(f"{root}/folder")] == ["manifest.000001"]


def test_one_of_many_writers_at_once_creates_a_file(root: str) -> None:
    url = f"{root}/winner"
    with ThreadPoolExecutor(4) as pool:
        created = list(pool.map(lambda number: storage.create_exclusively(url, str(number).encode()), range(12)))
    assert created.count(True) == 1
    assert storage.read_bytes(url) == str(created.index(True)).encode()


def test_what_is_written_is_what_is_there(root: str) -> None:
    """Whatever its name: Arrow takes the ending .gz for a wish to compress."""
    storage.write_bytes(f"{root}/trace.json.gz", b"packed already")
    assert storage.read_bytes(f"{root}/trace.json.gz") == b"packed already"


@pytest.mark.parametrize("write", [storage.write_bytes, storage.create_exclusively])
def test_a_full_disk_leaves_what_was_there_and_no_draft(
    write: Callable[[str, bytes], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that fails half way, as on a disk that fills up."""
    storage.write_bytes(str(tmp_path / "result.json"), b"as it was")
    opened = Path.open

    def full(self: Path, *given: Any, **named: Any) -> Any:
        if self.name.endswith(".draft"):
            with opened(self, "wb") as sink:
                sink.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(self, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        for name in ("result.json", "new.json"):
            with pytest.raises(OSError, match="No space left"):
                write(str(tmp_path / name), b"as it should be")
    assert (tmp_path / "result.json").read_bytes() == b"as it was"
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_listing_reading_and_deleting(root: str) -> None:
    storage.write_bytes(f"{root}/a/x", b"1")
    storage.write_bytes(f"{root}/a/b/y", b"22")
    files = storage.list_files(f"{root}/a", recursive=True)
    assert [(entry.name, entry.size, storage.read_bytes(entry.url)) for entry in files] == [
        ("b/y", 2, b"22"),
        ("x", 1, b"1"),
    ]
    assert storage.list_folders(f"{root}/a") == ["b"]
    assert [storage.exists(f"{root}/a/{name}") for name in ("b", "x", "c")] == [True, True, False]
    storage.delete(f"{root}/a/b")
    assert storage.list_folders(f"{root}/a") == []
    assert storage.list_files(f"{root}/nowhere") == []


def test_a_put_whose_answer_was_lost_is_known_again(s3: str, s3_running: S3Server) -> None:
    s3_running.lose_next_answer = True
    assert storage.create_exclusively(f"{s3}/manifest.000001", b"ours")
    assert not s3_running.lose_next_answer
    s3_running.lose_next_answer = True
    assert not storage.create_exclusively(f"{s3}/manifest.000001", b"another's")
    assert storage.read_bytes(f"{s3}/manifest.000001") == b"ours"


def test_the_store_refuses_what_is_no_conflict(s3: str) -> None:
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError, match="NoSuchBucket"):
        storage.create_exclusively("s3://there-is-no-such-bucket/x", b"")


@pytest.mark.parametrize(
    "url", ["s3://KEY:hush@bucket/x", "hdfs://ann:hush@nn:8020/x", "s3://bucket/x?secret_key=hush"]
)
def test_a_url_with_a_secret_is_refused_before_anything_is_asked_of_the_store(url: str) -> None:
    for ask in (storage.resolve, storage.absolute, storage.read_bytes, storage.exists, storage.list_files):
        with pytest.raises(ConfError, match="AWS_SECRET_ACCESS_KEY") as refused:
            ask(url)
        assert "hush" not in str(refused.value)


def test_writing_whole_leaves_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = storage.write_whole(tmp_path / "page.html", "old")

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        storage.write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
