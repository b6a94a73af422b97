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

from benchmarks.step_arms import ArmSpec
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
    """The exchange, timed; before each of its calls the ranks wait for each other, so that both can be told apart.

    Attributes:
        waiting, working: clocks.
        row_bytes: payload of the calls that carry the table's gradient.
    """

    def __init__(self, inner: Exchange) -> None:
        self._inner = inner
        self.waiting, self.working, self.row_bytes = Clock(), Clock(), 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._met(name, found) if callable(found) else found

    def _met(self, name: str, call: Call) -> Call:
        def together(*arguments: Any, **more: Any) -> Any:
            self.waiting.timing(self._inner.barrier)()
            before = self._inner.bytes_sent
            found = self.working.timing(call)(*arguments, **more)
            self.row_bytes += (self._inner.bytes_sent - before) * (PER_ROWS in name)
            return found

        return together


class RankStep(OurStep):
    """See `Stepper`; every rank has rows of its own."""

    def __init__(self, spec: ArmSpec, exchange: Exchange) -> None:
        super().__init__(replace(spec, seed=spec.seed + exchange.world.rank), exchange)
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
        learner, plain = self.learner, self.learner.exchange
        meeting, update, whole = MeetingExchange(plain), Clock(), Clock()
        before = plain.bytes_sent
        with (
            patch.object(learner, "exchange", cast(Exchange, meeting)),
            patch.object(learner.optimiser, "step", update.timing(learner.optimiser.step)),
        ):
            whole.timing(self.step)(number)
        clocks = {"waiting": meeting.waiting, "exchange": meeting.working, "update": update, "step": whole}
        found: dict[str, float] = {f"{name}_ms": 1e3 * clock.seconds for name, clock in clocks.items()}
        return found | {"bytes": plain.bytes_sent - before, "row_bytes": meeting.row_bytes}

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
        model, batch = self.learner.model, self.batches[number]
        weight = model.table.weight.detach().requires_grad_()
        rows = functional.embedding(batch.ids + model.input.offsets, weight, sparse=True)
        torch.autograd.backward(rows, torch.randn_like(rows))
        assert weight.grad is not None, "it was just made"
        return weight.grad


def make(spec: ArmSpec) -> RankStep:
    """This process is a rank: horovodrun started it."""
    import horovod.torch as hvd

    hvd.init()
    return RankStep(spec, HorovodExchange())
