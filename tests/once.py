"""What is dear to make and only read, made by one of the processes that share the tests (pytest-xdist)."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

_WORKER = "PYTEST_XDIST_WORKER"


def made_once(name: str, factory: pytest.TempPathFactory, make: Callable[[Path], None]) -> Path:
    """A folder that `make` filled, this process's own copy of it.

    Whichever process asks first makes it; who asks meanwhile waits. Copies keep modification times.
    """
    own = factory.mktemp(name)
    if _WORKER not in os.environ:
        make(own)
        return own
    made = factory.getbasetemp().parent / name  # of this run, above the processes' own folders
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = made.with_suffix(".done")
        if not done.exists():
            shutil.rmtree(made, ignore_errors=True)  # what a process left that failed
            made.mkdir()
            make(made)
            done.touch()
    shutil.copytree(made, own, dirs_exist_ok=True)
    return own
