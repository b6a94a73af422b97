"""Plain file access by URL, for both sides: local paths, file://, hdfs://, s3://.

The one primitive that commits rest on is `create_exclusively`: it either makes a whole new file or says
that somebody else has made it. Nothing here ever overwrites a file that a reader may hold.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

_ARROW_SCHEMES = {"s3a": "s3", "s3n": "s3"}  # Hadoop's names of what Arrow calls s3


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """A file as a listing shows it: URL, name relative to the listed folder, bytes, modification mark."""

    url: str
    name: str
    size: int
    mark: int


def resolve(url: str) -> tuple[fs.FileSystem, str]:
    """The file system of a URL (or local path), and the path in it."""
    if "://" not in url:
        return fs.LocalFileSystem(), str(Path(url).absolute())
    scheme, rest = url.split("://", 1)
    filesystem, path = fs.FileSystem.from_uri(f"{_ARROW_SCHEMES.get(scheme, scheme)}://{rest}")
    return filesystem, path


def absolute(url: str) -> str:
    """A local path made absolute; a URL as it is."""
    return url.rstrip("/") if "://" in url else str(Path(url).absolute())


@contextmanager
def open_input(url: str) -> Iterator[pa.NativeFile]:
    """Random-access reading.

    Raises:
        FileNotFoundError: when there is no such file.
    """
    filesystem, path = resolve(url)
    with filesystem.open_input_file(path) as source:
        yield source


def read_bytes(url: str) -> bytes:
    """The whole file."""
    with open_input(url) as source:
        content: bytes = source.read()
        return content


def write_bytes(url: str, content: bytes) -> None:
    """Write a file at a path that only this attempt uses; readers learn of it by a manifest."""
    filesystem, path = resolve(url)
    filesystem.create_dir(path.rsplit("/", 1)[0], recursive=True)
    with filesystem.open_output_stream(path) as sink:
        sink.write(content)


def exists(url: str) -> bool:
    """Whether a file or folder is there."""
    filesystem, path = resolve(url)
    return bool(filesystem.get_file_info(path).type != fs.FileType.NotFound)


def delete(url: str) -> None:
    """Remove a file, or a folder with all that is in it; nothing happens when it is gone already."""
    filesystem, path = resolve(url)
    found = filesystem.get_file_info(path).type
    if found == fs.FileType.Directory:
        filesystem.delete_dir(path)
    elif found == fs.FileType.File:
        filesystem.delete_file(path)


def list_files(url: str, recursive: bool = False) -> list[FileEntry]:
    """Files below a folder, by name; empty when the folder is not there."""
    filesystem, path = resolve(url)
    selector = fs.FileSelector(path, allow_not_found=True, recursive=recursive)
    found = [info for info in filesystem.get_file_info(selector) if info.type == fs.FileType.File]
    prefix = absolute(url)
    return sorted(
        (
            FileEntry(
                url=f"{prefix}{info.path[len(path) :]}",
                name=info.path[len(path) + 1 :],
                size=info.size,
                mark=info.mtime_ns or 0,
            )
            for info in found
        ),
        key=lambda entry: entry.name,
    )


def list_folders(url: str) -> list[str]:
    """Names of the folders directly below a folder."""
    filesystem, path = resolve(url)
    found = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)


def create_exclusively(url: str, content: bytes) -> bool:
    """Create a file whole, or leave the existing one alone.

    Returns:
        True when this call created it, False when it was there already.
    """
    filesystem, path = resolve(url)
    folder = path.rsplit("/", 1)[0]
    filesystem.create_dir(folder, recursive=True)
    draft = f"{path}.{uuid.uuid4().hex}.draft"
    if isinstance(filesystem, fs.LocalFileSystem):
        return _link_exclusively(path, draft, content)
    if bool(filesystem.get_file_info(path).type != fs.FileType.NotFound):
        return False
    with filesystem.open_output_stream(draft) as sink:
        sink.write(content)
    try:
        filesystem.move(draft, path)  # HDFS renames without overwriting
    except OSError:
        filesystem.delete_file(draft)
        return False
    return True


def _link_exclusively(path: str, draft: str, content: bytes) -> bool:
    with Path(draft).open("wb") as sink:
        sink.write(content)
        sink.flush()
        os.fsync(sink.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        Path(draft).unlink()
    return True
