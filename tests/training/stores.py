"""Storage that needs no network: the local disk, and one that is not local, held in memory."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pyarrow import fs

from features import storage

STORES = ("file", "memory")


def open_store(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty folder; `memory` answers as any remote file system of Arrow does."""
    if kind == "file":
        return f"file://{folder}"
    remote = fs.PyFileSystem(fs.FSSpecHandler(MemoryFileSystem()))
    local = storage.resolve

    def resolve(url: str) -> tuple[fs.FileSystem, str]:
        return (remote, url.removeprefix("memory:/")) if url.startswith("memory://") else local(url)

    monkeypatch.setattr(storage, "resolve", resolve)
    return f"memory://{uuid.uuid4().hex}"
