"""Processor seconds of all processes below this one are counted once, whoever started them and whatever ended."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.process_meter import Meter, spent, used_by_processes

BUSY = """
import time
while time.process_time() < 0.4: pass
print("done", flush=True)
input()
"""
PARENT = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BUSY!r}])"


def test_what_ended_meanwhile_counts_and_what_ended_before_is_not_taken_off() -> None:
    before = {(1, 0.0): 5.0, (2, 0.0): 100.0}
    seen = {(1, 0.0): 7.0, (3, 1.0): 1.5, (2, 9.0): 0.5}  # 2 has ended; its id is used again
    assert spent(before, seen) == 2.0 + 1.5 + 0.5


def test_a_grandchild_is_counted_while_it_lives() -> None:
    meter = Meter()
    with meter.running():
        before = used_by_processes()
        with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"done\n"
            found = spent(before, used_by_processes())
            child.communicate(b"\n")
    assert found >= 0.4
    assert meter.cpu_seconds > 0
