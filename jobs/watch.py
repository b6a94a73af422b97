"""Rounds again and again until a signal: what `limelight trigger --watch` runs under systemd or by hand.

A round that fails is logged and the next one comes as if nothing had been: what it left is in the ledger. A signal ends
the wait at once, and a round that is under way when it comes is ended first.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType

from features.errors import LimelightError

log = logging.getLogger("limelight.trigger")


def stop_on_signals(stop: threading.Event) -> Sequence[str]:
    """SIGTERM and SIGINT set `stop`; only the main thread may call this.

    Returns:
        Names of the signals that have come. The handler itself writes nothing: it may run within a line being written,
        which would then be written twice.
    """
    came: list[str] = []

    def asked(number: int, _: FrameType | None) -> None:
        came.append(signal.Signals(number).name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, asked)
    return came


def watch(one_round: Callable[[], object], every_seconds: float, stop: threading.Event) -> int:
    """Run rounds, `every_seconds` after the end of the one before, until `stop` is set.

    Returns:
        How many rounds there were.
    """
    rounds = 0
    while not stop.is_set():
        try:
            one_round()
        except LimelightError as error:
            log.error("%s", error)
        except Exception:
            log.exception("the round failed")
        rounds += 1
        stop.wait(every_seconds)
    return rounds
