"""Files of the training side on any warehouse: a local path, or a `file://`, `hdfs://`, `s3a://` … URL.

Every file is written once and never changed. What makes a set of files visible is one small file that is
created exclusively and whole (`Folder.create`): a reader sees all of it or nothing, and of two writers one
gets a FileExistsError.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Self

import fsspec
import pyarrow as pa
from pyarrow.filesystem import FileSystem as LegacyFileSystem

from features.errors import ResourceError

# Hadoop's names of object stores → fsspec's.
_PROTOCOLS = {"s3a": "s3", "s3n": "s3", "wasbs": "abfs", "abfss": "abfs"}
_RENAME_NEVER_OVERWRITES = {"hdfs", "viewfs", "arrow_hdfs"}


@dataclass(frozen=True)
class Folder:
    """A folder, which need not exist yet. `url` may be a plain local path.

    Raises:
        ResourceError: at first use, when the driver of the URL's storage is not installed.
    """

    url: str

    @cached_property
    def _resolved(self) -> tuple[Any, str]:
        scheme, colon, rest = self.url.partition("://")
        url = f"{_PROTOCOLS.get(scheme, scheme)}://{rest}" if colon else self.url
        try:
            filesystem, path = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise ResourceError(f"no driver for {self.url}: {error}. Install it on every host that trains.") from error
        return filesystem, path.rstrip("/")

    @property
    def filesystem(self) -> Any:
        """fsspec's file system of the URL."""
        return self._resolved[0]

    @property
    def is_local(self) -> bool:
        """Whether the files lie on this host."""
        return "file" in _protocols(self.filesystem)

    def path(self, name: str) -> str:
        """A file's path as its file system knows it."""
        return str(PurePosixPath(self._resolved[1]) / name)

    def folder(self, name: str) -> Self:
        """A folder in this one."""
        return type(self)(f"{self.url.rstrip('/')}/{name}")

    def names(self) -> list[str]:
        """Sorted names of the files and folders in it; none when it does not exist."""
        self.filesystem.invalidate_cache()
        if not self.filesystem.isdir(self._resolved[1]):
            return []
        listed = self.filesystem.ls(self._resolved[1], detail=False)
        return sorted(PurePosixPath(path).name for path in listed)

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            FileNotFoundError: there is no such file.
        """
        data: bytes = self.filesystem.cat_file(self.path(name))
        return data

    def write(self, name: str, data: bytes) -> None:
        """Write a file that no one reads before `create` has named it; on disk when this returns."""
        self.filesystem.makedirs(str(PurePosixPath(self.path(name)).parent), exist_ok=True)
        if self.is_local:
            _write_synced(Path(self.path(name)), data)
        else:
            self.filesystem.pipe_file(self.path(name), data)

    def create(self, name: str, data: bytes) -> None:
        """Make a file appear whole, and only if there was none.

        Raises:
            FileExistsError: someone else created it first.
        """
        target = self.path(name)
        if not self.is_local and not _protocols(self.filesystem) & _RENAME_NEVER_OVERWRITES:
            self.filesystem.pipe_file(target, data, mode="create")  # the store's conditional put
            return
        hidden = f".{name}.{uuid.uuid4().hex}"
        self.write(hidden, data)
        try:
            if self.is_local:
                os.link(self.path(hidden), target)
            else:
                self._rename(hidden, name)
        finally:
            if self.filesystem.exists(self.path(hidden)):
                self.filesystem.rm_file(self.path(hidden))

    def _rename(self, hidden: str, name: str) -> None:
        try:
            self.filesystem.mv(self.path(hidden), self.path(name))
        except OSError as error:
            if self.filesystem.exists(self.path(name)):
                raise FileExistsError(self.path(name)) from error
            raise

    def delete(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it; nothing happens when it is gone already."""
        self.filesystem.invalidate_cache()
        if self.filesystem.exists(self.path(name)):
            self.filesystem.rm(self.path(name), recursive=True)


class ArrowOpener(LegacyFileSystem):  # type: ignore[misc]
    """The three calls by which Petastorm 0.13 and pyarrow 14 reach files, answered by fsspec.

    They know only pyarrow's old file systems, which have no object stores: handed an fsspec file system,
    `petastorm.reader.Reader` stops with "Keyword 'validate_schema' is not yet supported".
    """

    def __init__(self, folder: Folder) -> None:
        self._filesystem = folder.filesystem
        self._is_local = folder.is_local

    def isdir(self, path: str) -> bool:
        """Whether the path is a folder."""
        return bool(self._filesystem.isdir(path))

    def isfile(self, path: str) -> bool:
        """Whether the path is a file."""
        return bool(self._filesystem.isfile(path))

    def open(self, path: str, mode: str = "rb") -> pa.NativeFile:
        """Open for reading. Local files are read by Arrow itself, without Python's lock."""
        if self._is_local:
            return pa.OSFile(path, mode=mode)
        return pa.PythonFile(self._filesystem.open(path, mode), mode="r")


def _protocols(filesystem: Any) -> set[str]:
    protocol = filesystem.protocol
    return {protocol} if isinstance(protocol, str) else set(protocol)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
