"""Our step on a Horovod rank, and what its exchange costs beside Horovod's own of a sparse gradient."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, cast
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.step_arms import NAMES, ArmSpec
from benchmarks.step_ours import OurStep
from training.exchange import Exchange, HorovodExchange

PER_ROWS = "rows"
"""In the name of a collective that carries the table's gradient."""
Call = Callable[..., Any]


class Clock:
    """Adds up the seconds of calls."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timing(self, call: Call) -> Call:
        """The same, timed."""

        @wraps(call)
        def timed(*arguments: Any, **more: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*arguments, **more)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


class MeetingExchange:
    """An exchange that can be timed; then the ranks wait for each other before each of its calls, to be told apart.

    What a call leaves to be called later is timed, too: what the ranks say while this one computes costs nothing.

    Attributes:
        is_timed: whether. Otherwise it is the exchange itself.
        waiting, working: clocks.
        row_bytes: payload of the calls that carry the table's gradient.
    """

    def __init__(self, inner: Exchange) -> None:
        self._inner = inner
        self.is_timed = False
        self.waiting, self.working, self.row_bytes = Clock(), Clock(), 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._met(name, found) if callable(found) else found

    def _met(self, name: str, call: Call) -> Call:
        @wraps(call)
        def together(*arguments: Any, **more: Any) -> Any:
            if not self.is_timed:
                return call(*arguments, **more)
            self.waiting.timing(self._inner.barrier)()
            before = self._inner.bytes_sent
            found = self.working.timing(call)(*arguments, **more)
            self.row_bytes += (self._inner.bytes_sent - before) * (PER_ROWS in name)
            return self.working.timing(found) if callable(found) else found

        return together


class RankStep(OurStep):
    """See `Stepper`; every rank has rows of its own."""

    def __init__(self, spec: ArmSpec, exchange: Exchange) -> None:
        self.meeting = MeetingExchange(exchange)
        own = replace(spec, seed=spec.seed + exchange.world.rank)
        super().__init__(own, cast(Exchange, self.meeting))
        exchange.broadcast_parameters(self.learner.model.state_dict())

    def answers(self) -> dict[str, Call]:
        """What ranks are asked besides."""
        return {"exchange": self.exchange, "stock": self.stock}

    def exchange(self, count: int) -> dict[str, float]:
        """Medians of `count` steps in which the ranks meet before each collective.

        Returns:
            Milliseconds waiting, exchanging, updating, and of the whole step; bytes sent in it, and for the table.
        """
        seen = [self._told_apart(number % len(self.batches)) for number in range(count)]
        return {name: statistics.median(one[name] for one in seen) for name in seen[0]}

    def _told_apart(self, number: int) -> dict[str, float]:
        meeting, optimiser = self.meeting, self.learner.optimiser
        meeting.waiting, meeting.working, meeting.row_bytes = Clock(), Clock(), 0
        update, whole, before = Clock(), Clock(), meeting.bytes_sent
        with (
            patch.object(meeting, "is_timed", True),
            patch.object(optimiser.rows, "update", update.timing(optimiser.rows.update)),
            patch.object(optimiser.dense, "step", update.timing(optimiser.dense.step)),
        ):
            whole.timing(self.step)(number)
        clocks = {"waiting": meeting.waiting, "exchange": meeting.working, "update": update, "step": whole}
        found: dict[str, float] = {f"{name}_ms": 1e3 * clock.seconds for name, clock in clocks.items()}
        return found | {"bytes": meeting.bytes_sent - before, "row_bytes": meeting.row_bytes}

    def stock(self, count: int) -> dict[str, float]:
        """Medians of `count` exchanges of the gradient that `functional.embedding(sparse=True)` leaves, by Horovod.

        Returns:
            Milliseconds of `sparse_allreduce_async` until it is there, and the bytes that this rank hands over.
        """
        seen = [self._stock_exchange(number % len(self.batches)) for number in range(count)]
        return {name: statistics.median(one[name] for one in seen) for name in seen[0]}

    def _stock_exchange(self, number: int) -> dict[str, float]:
        from horovod.torch import Sum, mpi_ops

        gradient, sent, clock = self._undeduplicated(number), [0], Clock()
        gather = mpi_ops.allgather_async

        def counted(tensor: Tensor, *arguments: Any, **more: Any) -> Any:
            sent[0] += tensor.nbytes
            return gather(tensor, *arguments, **more)

        def exchanged() -> None:
            mpi_ops.sparse_allreduce_async(gradient, name="stock", op=Sum)()

        with patch.object(mpi_ops, "allgather_async", counted):
            clock.timing(exchanged)()
        return {"ms": 1e3 * clock.seconds, "bytes": sent[0]}

    def _undeduplicated(self, number: int) -> Tensor:
        """The table's gradient of a batch as torch's sparse embedding gives it: a row per id, [n · 40, D + 1]."""
        table, ids = self.learner.model.table, self.batches[number].ids
        weight = table.weight.detach().requires_grad_()
        firsts = torch.tensor([table.offsets[name] for name in NAMES])
        rows = functional.embedding(ids + firsts, weight, sparse=True)
        torch.autograd.backward(rows, torch.randn_like(rows))
        assert weight.grad is not None, "it was just made"
        return weight.grad


def make(spec: ArmSpec) -> RankStep:
    """This process is a rank: horovodrun started it."""
    import horovod.torch as hvd

    hvd.init()
    return RankStep(spec, HorovodExchange())
