"""Are the files of a train set the bytes that were written? Asked once, before the first step."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from features import checksums
from features.errors import DataError, Problem
from features.manifest import DataFile, TrainSet
from training.exchange import Exchange
from training.open_files import EXPORT_AGAIN
from training.storage import ArrowOpener, Folder

log = logging.getLogger(__name__)

VerifyFiles = Literal["local", "always", "never"]
"""Whether files are read once more for it: those on this host's disks; all; none."""


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What one rank has read: files, bytes, and "file, row group" of what is damaged."""

    files: int
    bytes: int
    damaged: list[str]


def verify_files(trainset: TrainSet, url: str, which: VerifyFiles, exchange: Exchange) -> None:
    """Compare all files with the checksums in the manifest; ranks share the files. A collective call.

    A file that is missing is left to the feed, which names all of them; so is one that was written without checksums.

    Raises:
        DataError: on every rank, with all files and row groups that are damaged.
    """
    root = Folder(url)
    if which == "never" or (which == "local" and not root.is_local):
        return
    files = [file for split in trainset.splits.values() for file in split.files if file.checksums]
    world = exchange.world
    seen = exchange.gather_objects(_verified(root, files[world.rank :: world.size]))
    if damaged := [name for one in seen for name in one.damaged]:
        what = f"not the bytes that were written, below {url}"
        raise DataError([Problem(what=what, count=len(damaged), examples=damaged, remedy=EXPORT_AGAIN)])
    if world.is_first and files:
        read = sum(one.bytes for one in seen)
        log.info("%d files, %.1f MB, are the bytes that were written", sum(one.files for one in seen), read / 1e6)


def _verified(root: Folder, files: list[DataFile]) -> _Seen:
    opener, damaged, size, number = ArrowOpener(root), [], 0, 0
    for file in files:
        path = root.path(file.path)
        if not opener.isfile(path):
            continue
        try:
            with opener.open(path) as source:
                damaged += [f"{file.path}, {piece}" for piece in checksums.damaged(source, file.checksums)]
                size, number = size + source.size(), number + 1
        except (OSError, pa.ArrowException) as error:
            damaged.append(f"{file.path} ({error})")
    return _Seen(files=number, bytes=size, damaged=damaged)
