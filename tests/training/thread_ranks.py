"""Ranks as threads of this process: every world size in milliseconds, for tests that sweep it.

A real exchange with real Horovod ranks has its own tests; this one only has to add, gather and route.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from training.world import World

Result = TypeVar("Result")
WAIT_S = 60.0


class _Table:
    """What the ranks of one world lay out for each other."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.places: list[Any] = [None] * size
        self.barrier = threading.Barrier(size)

    def meet(self, rank: int, value: Any) -> list[Any]:
        """Every rank's value, in rank order."""
        self.places[rank] = value
        self.barrier.wait(WAIT_S)
        seen = list(self.places)
        self.barrier.wait(WAIT_S)
        return seen


class ThreadExchange:
    """See `training.exchange.Exchange`."""

    def __init__(self, table: _Table, rank: int) -> None:
        self.world = World(rank=rank, size=table.size, local_rank=rank)
        self.bytes_sent = 0
        self._table = table

    def sum_(self, tensor: Tensor) -> Tensor:
        return torch.stack(self._meet(tensor.detach().clone())).sum(dim=0, dtype=tensor.dtype)

    def sum_many(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [self.sum_(tensor) for tensor in tensors]

    def sum_scalars(self, values: Mapping[str, float]) -> dict[str, float]:
        return {name: sum(seen[name] for seen in self._meet(dict(values))) for name in values}

    def start_sum_many(self, tensors: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
        sums = self.sum_many(tensors)
        return lambda: sums

    def gather_rows(self, tensor: Tensor) -> Tensor:
        return torch.cat(self._meet(tensor.detach().clone()))

    def start_gather_rows(self, tensor: Tensor) -> Callable[[], Tensor]:
        gathered = self.gather_rows(tensor)
        return lambda: gathered

    def alltoall(self, tensor: Tensor, counts: Tensor) -> Tensor:
        pieces = self._meet(torch.split(tensor.detach(), counts.tolist()))
        return torch.cat([piece[self.world.rank] for piece in pieces])

    def broadcast_object(self, value: Result) -> Result:
        first: Result = self._meet(value)[0]
        return first

    def gather_objects(self, value: Result) -> list[Result]:
        return self._meet(value)

    def broadcast_parameters(self, state: Mapping[str, Tensor]) -> None:
        first = self._meet({name: value.detach().clone() for name, value in state.items()})[0]
        for name, value in state.items():
            value.detach().copy_(first[name])

    def barrier(self) -> None:
        self._meet(None)

    def _meet(self, value: Any) -> list[Any]:
        return self._table.meet(self.world.rank, value)


def on_ranks(size: int, function: Callable[[ThreadExchange], Result]) -> list[Result]:
    """`function` on every rank of a world of `size`; the results in rank order."""
    table = _Table(size)

    def rank(number: int) -> Result:
        try:
            return function(ThreadExchange(table, number))
        except BaseException:
            table.barrier.abort()  # so that the others do not wait for this one
            raise

    with ThreadPoolExecutor(size) as pool:
        return [future.result() for future in [pool.submit(rank, number) for number in range(size)]]
