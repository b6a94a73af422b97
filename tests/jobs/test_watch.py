"""The loop of --watch: it waits, survives what a round throws, and ends at a signal."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from features.errors import HeldError
from jobs.watch import watch

ROOT = Path(__file__).resolve().parents[2]
ENDLESS = """
import threading
from jobs.watch import stop_on_signals, watch
stop = threading.Event()
stop_on_signals(stop)
print(watch(lambda: print("round", flush=True), 1e6, stop), "rounds", flush=True)
"""


class Waits(threading.Event):
    """Notes how long it is waited for, without waiting, and stops after some rounds."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.seconds: list[float | None] = []
        self._rounds = rounds

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout)
        if len(self.seconds) == self._rounds:
            self.set()
        return self.is_set()


def test_every_round_is_followed_by_a_wait() -> None:
    stop, rounds = Waits(3), list[int]()
    assert watch(lambda: rounds.append(1), 60, stop) == len(rounds) == 3
    assert stop.seconds == [60, 60, 60]


def test_a_round_that_fails_is_told_and_the_next_one_comes(caplog: pytest.LogCaptureFixture) -> None:
    errors = iter([HeldError("held by run x"), ZeroDivisionError("nobody foresaw it")])

    def one_round() -> None:
        error = next(errors, None)
        if error is not None:
            raise error

    with caplog.at_level(logging.INFO, "limelight.trigger"):
        assert watch(one_round, 5, Waits(3)) == 3
    first, second = caplog.records
    assert (first.getMessage(), first.exc_info) == ("held by run x", None)
    assert second.exc_info is not None
    assert "nobody foresaw it" in caplog.text


def test_once_stopped_there_is_no_round() -> None:
    stop = threading.Event()
    stop.set()
    assert watch(lambda: pytest.fail("a round"), 1, stop) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_at_once(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", ENDLESS], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "round\n"
        process.send_signal(number)
        assert process.stdout.read() == "1 rounds\n"
    assert process.returncode == 0
