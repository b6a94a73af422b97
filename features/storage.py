"""Plain file access by URL, for both sides: local paths, file://, hdfs://, s3://.

The one primitive that commits rest on is `create_exclusively`: it either makes a whole new file or says
that somebody else has made it. Nothing here ever overwrites a file that a reader may hold. How a store does it:

    local disk     a draft, synced, then a hard link, which fails where the name is taken
    S3             one conditional put (If-None-Match: *): there is no rename, and no folder to make
    HDFS           a draft, then a rename, which HDFS refuses where the name is taken

S3 is reached by the standard variables: AWS_ENDPOINT_URL (another server than Amazon's), AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_DEFAULT_REGION, and whatever else the SDKs look at (roles, profiles).
"""

from __future__ import annotations

import functools
import http
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from features.errors import ConfError
from features.redaction import has_secret, redacted

S3_SCHEMES = ("s3", "s3a", "s3n")  # the last two are Hadoop's names
S3_ENDPOINT_VARIABLE = "AWS_ENDPOINT_URL"
S3_CONFLICT_TRIES = 5


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """A file as a listing shows it: URL, name relative to the listed folder, bytes, modification mark."""

    url: str
    name: str
    size: int
    mark: int


def refuse_secrets(url: str) -> str:
    """The URL itself.

    Raises:
        ConfError: it holds a key, a password or a token: it would be written into manifests and messages.
    """
    if has_secret(url):
        raise ConfError(
            f"{redacted(url)} was given with a key, a password or a token in it: take it out, and give it by the "
            "environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or by the cluster's own conf; see docs/safety.md"
        )
    return url


def resolve(url: str) -> tuple[fs.FileSystem, str]:
    """The file system of a URL (or local path), and the path in it.

    Raises:
        ConfError: the URL holds a secret.
    """
    refuse_secrets(url)
    if "://" not in url:
        return fs.LocalFileSystem(), str(Path(url).absolute())
    scheme, rest = url.split("://", 1)
    if scheme in S3_SCHEMES:
        path, _, query = rest.partition("?")
        bucket = path.partition("/")[0]
        return _s3_bucket(bucket, query, os.environ.get(S3_ENDPOINT_VARIABLE)), path.rstrip("/")
    filesystem, path = fs.FileSystem.from_uri(url)
    return filesystem, path


@functools.lru_cache(maxsize=64)
def _s3_bucket(bucket: str, query: str, _endpoint: str | None) -> fs.FileSystem:
    """Kept, since making one asks the store for the bucket's region; Arrow itself reads the endpoint's variable."""
    return fs.FileSystem.from_uri(f"s3://{bucket}" + (f"?{query}" if query else ""))[0]


def absolute(url: str) -> str:
    """A local path made absolute; a URL as it is. Raises ConfError when that holds a secret."""
    refuse_secrets(url)
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
    """Write a file at a path that only this attempt uses; readers learn of it by a manifest.

    On a local disk and in an object store it appears whole or not at all, also where one of that name is replaced.
    """
    filesystem, path = resolve(url)
    _make_folder_of(filesystem, path)
    if isinstance(filesystem, fs.LocalFileSystem):
        _replace_whole(path, content)
        return
    with filesystem.open_output_stream(path, compression=None) as sink:  # Arrow would compress what is named *.gz
        sink.write(content)


def _make_folder_of(filesystem: fs.FileSystem, path: str) -> None:
    """The folder that a file is to lie in; on S3 a folder is nothing but the keys that begin with its name."""
    if not isinstance(filesystem, fs.S3FileSystem):
        filesystem.create_dir(path.rsplit("/", 1)[0], recursive=True)


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


def write_whole(path: Path, content: str) -> Path:
    """Replace a local text file: whoever looks at it, at any time, sees the old one or the new one.

    Raises:
        OSError: it cannot be written, as on a full disk; the old one stays, and nothing else is left.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.draft")
    try:
        with draft.open("w", encoding="utf-8") as sink:
            sink.write(content)
            sink.flush()
            os.fsync(sink.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def create_exclusively(url: str, content: bytes) -> bool:
    """Create a file whole, or leave the existing one alone.

    Returns:
        True when this call created it, False when it was there already.
    """
    filesystem, path = resolve(url)
    if isinstance(filesystem, fs.S3FileSystem):
        return _put_exclusively(path, content, filesystem.region)
    _make_folder_of(filesystem, path)
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


def _replace_whole(path: str, content: bytes) -> None:
    draft = Path(f"{path}.{uuid.uuid4().hex}.draft")
    try:
        with draft.open("wb") as sink:
            sink.write(content)
        draft.replace(path)
    except OSError:  # the disk is full: what there is of it is in the way
        draft.unlink(missing_ok=True)
        raise


def _link_exclusively(path: str, draft: str, content: bytes) -> bool:
    try:
        with Path(draft).open("wb") as sink:
            sink.write(content)
            sink.flush()
            os.fsync(sink.fileno())
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        Path(draft).unlink(missing_ok=True)
    return True


@functools.lru_cache(maxsize=8)
def _s3_client(region: str, endpoint: str | None) -> Any:
    import boto3  # Arrow's own S3 client cannot put on a condition

    return boto3.client("s3", region_name=region or None, endpoint_url=endpoint)


def _put_exclusively(path: str, content: bytes, region: str) -> bool:
    """One conditional put: the store compares and creates in one step.

    Raises:
        OSError: writers at the same moment made the store answer 409 again and again.
        botocore.exceptions.ClientError: any other refusal of the store.
    """
    from botocore.exceptions import ClientError

    client = _s3_client(region, os.environ.get(S3_ENDPOINT_VARIABLE))
    bucket, _, key = path.partition("/")
    for _ in range(S3_CONFLICT_TRIES):
        try:
            client.put_object(Bucket=bucket, Key=key, Body=content, IfNoneMatch="*")
        except ClientError as refused:
            answer = refused.response["ResponseMetadata"]
            if answer["HTTPStatusCode"] == http.HTTPStatus.PRECONDITION_FAILED:
                # A put whose answer was lost is sent again, and then finds its own object.
                lost_answer = answer.get("RetryAttempts", 0) > 0
                return lost_answer and bool(client.get_object(Bucket=bucket, Key=key)["Body"].read() == content)
            if answer["HTTPStatusCode"] != http.HTTPStatus.CONFLICT:
                raise
        else:
            return True
    raise OSError(f"s3://{path}: {S3_CONFLICT_TRIES} conditional puts met other writers' (409); run again")
