"""Folders of the training side on any warehouse URL, and the view of them that Petastorm understands.

Every file is written once and never changed. What makes a set of files visible is one small file that is
created exclusively and whole (`Folder.create`): a reader sees all of it or nothing, and of two writers one
gets a FileExistsError.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import pyarrow as pa
from pyarrow import fs
from pyarrow.filesystem import FileSystem as LegacyFileSystem

from features import storage


@dataclass(frozen=True)
class Folder:
    """A folder, which need not exist yet. `url` may be a plain local path."""

    url: str

    @cached_property
    def _resolved(self) -> tuple[Any, str]:
        return storage.resolve(self.url.rstrip("/"))

    @property
    def filesystem(self) -> Any:
        """Arrow's file system of the URL."""
        return self._resolved[0]

    @property
    def is_local(self) -> bool:
        """Whether the files lie on this host."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def path(self, name: str) -> str:
        """A file's path as its file system knows it."""
        return f"{self._resolved[1]}/{name}"

    def folder(self, name: str) -> Self:
        """A folder in this one."""
        return type(self)(f"{self.url.rstrip('/')}/{name}")

    def names(self) -> list[str]:
        """Sorted names of the files and folders in it; none when it does not exist."""
        return sorted([entry.name for entry in storage.list_files(self.url)] + storage.list_folders(self.url))

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return storage.read_bytes(self.folder(name).url)

    def write(self, name: str, data: bytes) -> None:
        """Write a file that no one reads before `create` has named it."""
        storage.write_bytes(self.folder(name).url, data)

    def create(self, name: str, data: bytes) -> None:
        """Make a file appear whole, and only if there was none.

        Raises:
            FileExistsError: someone else created it first.
        """
        if not storage.create_exclusively(self.folder(name).url, data):
            raise FileExistsError(self.folder(name).url)

    def delete(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it; nothing happens when it is gone already."""
        storage.delete(self.folder(name).url)


class ArrowOpener(LegacyFileSystem):  # type: ignore[misc]
    """The three calls by which Petastorm 0.13 and pyarrow 14 reach files, answered by Arrow's file systems.

    They know only pyarrow's old file systems, which have no object stores: handed a new one, or fsspec's,
    `petastorm.reader.Reader` stops with "Keyword 'validate_schema' is not yet supported".
    """

    def __init__(self, folder: Folder) -> None:
        self._filesystem = folder.filesystem

    def isdir(self, path: str) -> bool:
        """Never: a train set lists files. In a folder Petastorm would look for a pickled schema, and load it."""
        del path
        return False

    def isfile(self, path: str) -> bool:
        """Whether the path is a file."""
        return bool(self._filesystem.get_file_info(path).type == fs.FileType.File)

    def open(self, path: str, mode: str = "rb") -> pa.NativeFile:
        """Open for reading at random, without Python's lock.

        Raises:
            ValueError: any other mode.
        """
        if mode != "rb":
            raise ValueError(f"mode {mode!r}: files are only read")
        return self._filesystem.open_input_file(path)
