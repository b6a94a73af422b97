"""Petastorm's pool of threads with what it lacks: a bound on what is held, results of whichever thread has some, and an
end when a thread has died."""

from __future__ import annotations

import threading
from typing import Any

from petastorm.workers_pool.thread_pool import ThreadPool

from features.errors import LimelightError

# Row groups that Petastorm hands out ahead of the consumer, per thread, whether the plan needs them or not.
AHEAD_PER_THREAD = 4


class Window:
    """At most `size` row groups that were begun and not let go.

    A row group may be begun in its turn only: place p when all but `size` − 1 of those before it were let go. So no
    thread takes room that one before it still needs.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._changed = threading.Condition()
        self._let_go = 0
        self._closed = False

    def enter(self, place: int) -> bool:
        """Wait for the turn of a place; false once the window was closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or place < self._let_go + self.size)
            return not self._closed

    def let_go(self) -> None:
        """One row group less."""
        with self._changed:
            self._let_go += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let no one wait any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class WatchedPool(ThreadPool):  # type: ignore[misc]
    """Raises, or goes on, where Petastorm would wait for ever.

    - A thread that ends without a word (SystemExit, an error in Petastorm's own code) leaves `get_results` in its loop.
    - `get_results` takes the threads' results in turn. It passes over a thread that has nothing to do for a moment,
      which brings the turns out of step: it may then wait for a thread that waits in the window, for room that only
      the results of another thread give, and these it does not look at.

    The loop asks `all_workers_done` each time round, at least every tenth of a second: there both are noticed.

    Raises:
        LimelightError: by `get_results`, when a thread has died with work in hand.
    """

    _get_results_worker_id: int  # Petastorm's: whose results are taken next

    def __init__(self, threads: int, window: Window) -> None:
        self._window = window
        self._ahead = max(AHEAD_PER_THREAD * threads, window.size)
        # A block and a receipt for each piece. With room for twice that, a worker that fails can always leave its
        # last message, and stopping never waits for a consumer that is gone.
        super().__init__(threads, results_queue_size=4 * (self._ahead + threads))

    def start(self, worker_class: Any, worker_args: Any = None, ventilator: Any = None) -> None:
        """See Petastorm's; its ventilator would stop at four pieces per thread, however many the window takes."""
        ventilator._max_ventilation_queue_size = self._ahead
        super().start(worker_class, worker_args, ventilator)

    def all_workers_done(self) -> bool:
        """See Petastorm's."""
        for number, thread in enumerate(self._workers):
            # alive is asked first: what a thread has left behind in the meantime is then in its queue
            if not thread.is_alive() and self._owes(number):
                raise _died(f"thread {number} of {len(self._workers)} that read")
        handing_out = self._ventilator._ventilation_thread
        if handing_out is not None and not handing_out.is_alive() and not self._ventilator.completed():
            raise _died("the thread that hands row groups out")
        self._turn_to_results()
        return bool(super().all_workers_done())

    def stop(self) -> None:
        """See Petastorm's. It also joins its threads when one has failed: none may be left waiting for its turn."""
        self._window.close()
        super().stop()

    def _turn_to_results(self) -> None:
        """Let `get_results` look where results are; in what order they come is nothing that the feed relies on."""
        if self._results_queues[self._get_results_worker_id].empty():
            waiting = (number for number, results in enumerate(self._results_queues) if not results.empty())
            self._get_results_worker_id = next(waiting, self._get_results_worker_id)

    def _owes(self, number: int) -> bool:
        owed = self._ventilated_items_by_worker[number] > self._ventilated_items_processed_by_worker[number]
        return bool(owed and self._results_queues[number].empty())


def _died(which: str) -> LimelightError:
    return LimelightError(
        f"the feed has stopped: {which} has died; what it died of is in the output above. Go on with --resume."
    )
