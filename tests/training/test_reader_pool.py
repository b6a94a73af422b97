"""The pool of reading threads, with workers that do nothing but publish."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from petastorm.workers_pool.worker_base import WorkerBase

from training.reader_pool import WatchedPool, Window


class Waiting(WorkerBase):  # type: ignore[misc]
    """Publishes its item; the first only when somebody allows it."""

    allowed: threading.Event

    def process(self, item: int) -> None:
        if item == 0:
            self.allowed.wait()
        self.publish_func(item)


class HandedOut:
    """A ventilator whose items the test hands out itself."""

    _ventilation_thread = None
    _max_ventilation_queue_size = 0

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def processed_item(self) -> None: ...

    def completed(self) -> bool:
        return True


@pytest.mark.timeout(60)  # where Petastorm would wait for ever
def test_results_of_one_thread_come_while_the_other_waits_for_them() -> None:
    Waiting.allowed = threading.Event()
    pool = WatchedPool(2, Window(8))
    pool.start(Waiting, ventilator=HandedOut())
    try:
        for item in range(4):  # 0 and 2 to the first thread, 1 and 3 to the second
            pool.ventilate(item=item)
        found: list[Any] = [pool.get_results(), pool.get_results()]
        assert found == [1, 3]
        Waiting.allowed.set()
        assert [pool.get_results(), pool.get_results()] == [0, 2]
    finally:
        Waiting.allowed.set()
        pool.stop()
        pool.join()
