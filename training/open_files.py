"""Parquet files that stay open: to open one is to parse its footer, which can cost more than to read a row group."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow.parquet as pq

from features.errors import DataError, Problem
from training.storage import ArrowOpener, Folder

OPEN_FILES = 16
"""Of one thread; a train set of `pipeline.pack` has fewer. Beyond, a file is opened again when its turn comes."""

EXPORT_AGAIN = "The files are not those that the manifest lists: export the train set again."


class OpenFiles:
    """The files of a split that one thread has read last.

    Args:
        root: what the names of files are relative to.
        columns: those that every file must have.
    """

    def __init__(self, root: Folder, columns: Sequence[str]) -> None:
        self._root, self._columns = root, columns
        self._opener = ArrowOpener(root)
        self._open: dict[str, pq.ParquetFile] = {}

    def get(self, name: str) -> pq.ParquetFile:
        """A file of the split, open.

        Raises:
            DataError: it lacks columns.
            OSError, pa.ArrowException: it cannot be read.
        """
        file = self._open.pop(name, None)
        if file is None:
            while len(self._open) >= OPEN_FILES:
                self._open.pop(next(iter(self._open))).close(force=True)
            file = self._opened(name)
        self._open[name] = file  # last in order: the one used last
        return file

    def close(self) -> None:
        """Close them all."""
        while self._open:
            self._open.popitem()[1].close(force=True)

    def _opened(self, name: str) -> pq.ParquetFile:
        opened = self._opener.open(self._root.path(name))
        file = pq.ParquetFile(opened, pre_buffer=not self._root.is_local)
        stored = set(file.schema_arrow.names)
        missing = [column for column in self._columns if column not in stored]
        if missing:
            file.close(force=True)
            problem = Problem(what="columns missing", count=len(missing), examples=missing, remedy=EXPORT_AGAIN)
            raise DataError([problem])
        return file
