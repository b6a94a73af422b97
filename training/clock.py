"""Rows per second, and what a step's wall time is lost to: waiting for data, and the exchange with other ranks.

Time is taken at the loop, on the host: from asking the feed for a batch to asking for the next. Judging, and what
follows an epoch, is not in it. The device is never waited for: with a GPU, work that is still queued shows where the
host waits for it next, in the exchange or at the loop's stop check. Gradients that travel while the step goes on cost
it no time, and are in no figure but the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from time import perf_counter
from typing import TypedDict

import torch

from training.batch import Batch
from training.parts import NOT_TIMED, Part
from training.step import Learner


class Pace(TypedDict):
    """How fast some steps were; alike on all ranks.

    Attributes:
        rows_per_second: of all ranks, evaluation aside.
        waiting_share: of the steps' wall time, blocked by the feed, on the rank that waited most.
        exchange_ms_per_step: that a step stood still for the exchange, waiting for slower ranks included, mean over
            ranks; None for one rank.
        bytes_sent_per_step: payload that a rank handed to the exchange, mean over ranks.
        table_bytes_sent_per_step: of these the embeddings' gradients, with the numbers of their rows.
    """

    rows_per_second: float | None
    waiting_share: float | None
    exchange_ms_per_step: float | None
    bytes_sent_per_step: float | None
    table_bytes_sent_per_step: float | None


NO_PACE = Pace(
    rows_per_second=None,
    waiting_share=None,
    exchange_ms_per_step=None,
    bytes_sent_per_step=None,
    table_bytes_sent_per_step=None,
)


@dataclass(kw_only=True)
class Spent:
    """What steps of this rank took.

    Attributes:
        steps: how many.
        seconds: on the wall; of these waiting for data, and in the exchange.
        sent: bytes handed over; of these for the table.
    """

    steps: int = 0
    seconds: float = 0.0
    waiting: float = 0.0
    exchange: float = 0.0
    sent: int = 0
    table_sent: int = 0

    def add(self, other: Spent) -> None:
        """Count others in."""
        self.steps += other.steps
        self.seconds += other.seconds
        self.waiting += other.waiting
        self.exchange += other.exchange
        self.sent += other.sent
        self.table_sent += other.table_sent


class _InExchange:
    """A context that adds the seconds inside it to those of an epoch."""

    def __init__(self, clock: StepClock) -> None:
        self._clock, self._since = clock, 0.0

    def __enter__(self) -> None:
        self._since = perf_counter()

    def __exit__(self, *_: object) -> None:
        self._clock.epoch.exchange += perf_counter() - self._since


class StepClock:
    """Times the steps of a loop; it listens to the parts that `learner` names.

    Args:
        learner: whose steps.
        batch_size: rows of a step over all ranks.

    Attributes:
        epoch: of the epoch under way.
        last_step: seconds of the newest step.
        between: called after each step, before the next begins.
    """

    def __init__(self, learner: Learner, batch_size: int) -> None:
        self.epoch, self.last_step = Spent(), 0.0
        self.between: Callable[[], None] = _nothing
        self._earlier = Spent()
        self._learner, self._batch_size = learner, batch_size
        self._in_exchange = _InExchange(self)
        learner.part = self.part

    def part(self, part: Part) -> AbstractContextManager[object]:
        """See `training.parts`."""
        return self._in_exchange if part is Part.EXCHANGE else NOT_TIMED

    def batches(self, feed: Generator[Batch, None, None]) -> Generator[Batch, None, None]:
        """The feed's batches; what happens until the next one is asked for is their step."""
        exchange, gradients = self._learner.exchange, self._learner.gradients
        with closing(feed):
            while True:
                part = self._learner.part
                with part(Part.STEP):
                    started, sent, table_sent = perf_counter(), exchange.bytes_sent, gradients.table_bytes
                    with part(Part.WAITING):
                        batch = next(feed, None)
                    self.epoch.waiting += perf_counter() - started
                    try:
                        if batch is None:
                            return
                        self.epoch.steps += 1
                        yield batch
                    finally:
                        self.last_step = perf_counter() - started
                        self.epoch.seconds += self.last_step
                        self.epoch.sent += exchange.bytes_sent - sent
                        self.epoch.table_sent += gradients.table_bytes - table_sent
                self.between()

    def end_epoch(self) -> Pace:
        """The pace of the epoch under way, and a new epoch; a collective call."""
        ended, self.epoch = self.epoch, Spent()
        self._earlier.add(ended)
        return self._pace(ended)

    def pace(self) -> Pace:
        """The pace of all steps so far; a collective call."""
        whole = Spent()
        whole.add(self._earlier)
        whole.add(self.epoch)
        return self._pace(whole)

    def _pace(self, spent: Spent) -> Pace:
        exchange = self._learner.exchange
        own = [spent.seconds, spent.waiting, spent.exchange, spent.sent, spent.table_sent]
        ranks = exchange.gather_rows(torch.tensor([own], dtype=torch.float64))
        if not spent.steps:
            return NO_PACE
        seconds, _, exchanging, sent, table_sent = ranks.mean(dim=0).tolist()
        return Pace(
            rows_per_second=spent.steps * self._batch_size / seconds,
            waiting_share=float((ranks[:, 1] / ranks[:, 0]).max()),
            exchange_ms_per_step=1000 * exchanging / spent.steps if exchange.world.size > 1 else None,
            bytes_sent_per_step=sent / spent.steps,
            table_bytes_sent_per_step=table_sent / spent.steps,
        )


def _nothing() -> None:
    """Nobody asked."""
