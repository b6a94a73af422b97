"""A disk that is full: a tmpfs of few bytes over a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.outcome import UnableError

ROOMY = 256 << 20
_BLOCK = 4096


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A tmpfs over an empty folder, roomy until `resize`; it is unmounted at the end.

    Raises:
        UnableError: this process may not mount.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if os.geteuid() != 0 or not _mount("-t", "tmpfs", "-o", f"size={ROOMY}", "limelight-chaos", str(folder)):
        raise UnableError("only root may mount a small disk, and not in every container")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def resize(folder: Path, size: int) -> None:
    """Another size in bytes; not below what is used, or mount refuses."""
    assert _mount("-o", f"remount,size={size}", str(folder)), f"{folder} cannot be made {size} bytes"


def used(folder: Path) -> int:
    """Bytes of the blocks that are taken."""
    return shutil.disk_usage(folder).used // _BLOCK * _BLOCK


def _mount(*arguments: str) -> bool:
    try:
        return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
