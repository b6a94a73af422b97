"""Wall and processor seconds of a process and all below it: Spark's JVM, its Python workers, ranks of a training.

Times of children that have ended are not to be had from their parents: Spark's Python daemon lets them vanish. So every
process is looked at twice a second, and what it had used when it was seen last counts; what it does after that is lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

LOOK_SECONDS = 0.5

Process = tuple[int, float]
"""Id and when it was created: ids are used again."""


class Meter:
    """Adds up what passes inside `running`."""

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure what is inside."""
        before, seen = used_by_processes(), {}
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(LOOK_SECONDS):
                seen.update(used_by_processes())

        looking = threading.Thread(target=look, daemon=True)
        looking.start()
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - started
            ended.set()
            looking.join()
            self.cpu_seconds += spent(before, seen | used_by_processes())


def used_by_processes() -> dict[Process, float]:
    """Processor seconds so far of this process and of each one below it that lives."""
    own = psutil.Process()
    found = {}
    for process in (own, *own.children(recursive=True)):
        try:
            times = process.cpu_times()
            found[process.pid, process.create_time()] = times.user + times.system
        except psutil.NoSuchProcess:
            continue
    return found


def spent(before: dict[Process, float], seen: dict[Process, float]) -> float:
    """What was used since `before`; a process that is not in `seen` any more used nothing that anybody saw."""
    return sum(seconds - before.get(process, 0.0) for process, seconds in seen.items())
