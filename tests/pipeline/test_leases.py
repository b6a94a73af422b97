"""Leases of the dead: a process that is gone holds nothing on its own machine; elsewhere its heartbeat decides."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from features.errors import HeldError
from pipeline import leases

TAKE_AND_DIE = """
import os, sys
from pipeline.leases import Lease
Lease(sys.argv[1], ["p"], "dead").__enter__()
os._exit(9)
"""


def dead_lease(folder: Path) -> Path:
    """The file of a lease whose holder died without releasing it."""
    done = subprocess.run([sys.executable, "-c", TAKE_AND_DIE, str(folder)], check=False)
    assert done.returncode == 9
    return folder / "p" / "lease.000001"


def holder(**changes: object) -> dict[str, object]:
    """This process, as a lease names it."""
    here = {"machine": leases.machine(), "pid": os.getpid(), "started": leases.start_mark(os.getpid())}
    return {**here, **changes}


needs_proc = pytest.mark.skipif(leases.machine() is None, reason="needs /proc to know the processes of this machine")


@needs_proc
def test_the_lease_of_a_killed_run_is_taken_at_once(tmp_path: Path) -> None:
    dead_lease(tmp_path)
    with leases.Lease(str(tmp_path), ["p"], "heir"):
        assert (tmp_path / "p" / "lease.000002").exists()


def test_a_run_on_another_machine_is_not_known_to_be_dead(tmp_path: Path) -> None:
    file = dead_lease(tmp_path)
    file.write_text(json.dumps({**json.loads(file.read_text()), "machine": "elsewhere"}))
    with pytest.raises(HeldError, match=r"p is held by run dead .* for 60 s"), leases.Lease(str(tmp_path), ["p"], "x"):
        pass


@needs_proc
def test_who_is_gone() -> None:
    assert not leases.is_gone(holder())
    assert leases.is_gone(holder(started=1)), "the pid was given to another process"
    assert not leases.is_gone(holder(started=1, machine="elsewhere"))
    assert not leases.is_gone({"pid": os.getpid()}), "a lease of an older version does not say where"


@needs_proc
def test_a_process_that_nobody_waited_for_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read()  # ends when the child does
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert leases.is_gone(holder(pid=child.pid))
    child.wait()
    child.stdout.close()
    assert leases.is_gone(holder(pid=child.pid))


def test_a_kept_lease_is_for_its_own_holder_between_two_processes(tmp_path: Path) -> None:
    folder = str(tmp_path / "leases")
    with leases.Lease(folder, ["p"], "run 1") as first:
        first.keep(datetime.timedelta(hours=1))
    with pytest.raises(HeldError, match="p is kept for run run 1 until "), leases.Lease(folder, ["p"], "run 2"):
        pass
    assert leases.live_holders(folder) == {"run 1"}
    with leases.Lease(folder, ["p"], "run 1"):  # not kept again
        pass
    assert leases.live_holders(folder) == set()
    with leases.Lease(folder, ["p"], "run 2"):
        pass


def test_what_is_kept_ends_by_itself(tmp_path: Path) -> None:
    folder = str(tmp_path / "leases")
    with leases.Lease(folder, ["p"], "run 1") as first:
        first.keep(datetime.timedelta(seconds=-1))
    with leases.Lease(folder, ["p"], "run 2"):
        pass


@needs_proc
def test_what_a_killed_process_kept_stays_for_its_retry(tmp_path: Path) -> None:
    code = """
import datetime, os, sys
from pipeline.leases import Lease
Lease(sys.argv[1], ["p"], "run 1").__enter__().keep(datetime.timedelta(hours=1))
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 9
    with pytest.raises(HeldError, match="kept for run run 1"), leases.Lease(str(tmp_path), ["p"], "run 2"):
        pass
    with leases.Lease(str(tmp_path), ["p"], "run 1"):
        pass


def test_a_kept_lease_does_not_let_its_holder_work_twice_at_once(tmp_path: Path) -> None:
    with leases.Lease(str(tmp_path), ["p"], "run 1") as first:
        first.keep(datetime.timedelta(hours=1))
        with pytest.raises(HeldError, match="is held by run run 1"), leases.Lease(str(tmp_path), ["p"], "run 1"):
            pass
