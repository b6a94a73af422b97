"""Collectives between the ranks: everything that training says to other ranks goes through an `Exchange`.

All calls are collective and blocking: every rank makes the same calls in the same order. A call's name is made
of what all ranks agree on (kind, type, shape without the rows), so Horovod matches calls by it, caches the
negotiation of those that repeat, and reports a rank that strays by the name of what the others wait for.

Results are the same bits on every rank: sums are reduced once and handed out, gathered rows stand in rank
order, and sparse rows are added up in that order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from training.world import World

Object = TypeVar("Object")


class Exchange(Protocol):
    """What the ranks can do together.

    Attributes:
        world: this rank.
        bytes_sent: payload that this rank has handed over so far, in bytes.
    """

    world: World
    bytes_sent: int

    def sum_(self, tensor: Tensor) -> Tensor:
        """The sum over ranks; same shape, type and device, the argument untouched. Not differentiable."""
        ...

    def sum_many(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """`sum_` of several tensors, in one message per type and device."""
        ...

    def sum_scalars(self, values: Mapping[str, float]) -> dict[str, float]:
        """Named sums in float64; every rank gives the same names."""
        ...

    def sum_rows(self, rows: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The sparse sum over ranks.

        Args:
            rows: [k] int64 row numbers, repeated ones allowed; k may differ by rank, and be 0.
            values: [k, d], what is added to each row.

        Returns:
            [u] the rows that any rank has named, ascending and each once, and [u, d] their sums.
        """
        ...

    def gather_rows(self, tensor: Tensor) -> Tensor:
        """[n_r, …] of every rank below one another in rank order, on every rank; n_r may differ, and be 0."""
        ...

    def alltoall(self, tensor: Tensor, counts: Tensor) -> Tensor:
        """Route rows: the first counts[0] rows of [n, …] go to rank 0, the next counts[1] to rank 1, and so on.

        Returns:
            What all ranks routed here, in rank order.
        """
        ...

    def broadcast_object(self, value: Object) -> Object:
        """Rank 0's value."""
        ...

    def gather_objects(self, value: Object) -> list[Object]:
        """Every rank's value, in rank order."""
        ...

    def broadcast_parameters(self, state: Mapping[str, Tensor]) -> None:
        """Overwrite tensors in place with rank 0's."""
        ...

    def barrier(self) -> None:
        """Wait until every rank is here."""
        ...


class SingleExchange:
    """One rank alone: every collective is the identity, and Horovod is not needed."""

    def __init__(self) -> None:
        self.world = World()
        self.bytes_sent = 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """See `Exchange.sum_`."""
        return tensor.detach().clone()

    def sum_many(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """See `Exchange.sum_many`."""
        return [self.sum_(tensor) for tensor in tensors]

    def sum_scalars(self, values: Mapping[str, float]) -> dict[str, float]:
        """See `Exchange.sum_scalars`."""
        return dict(values)

    def sum_rows(self, rows: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """See `Exchange.sum_rows`."""
        return add_up_rows(rows, values)

    def gather_rows(self, tensor: Tensor) -> Tensor:
        """See `Exchange.gather_rows`."""
        return tensor.detach().clone()

    def alltoall(self, tensor: Tensor, counts: Tensor) -> Tensor:
        """See `Exchange.alltoall`."""
        _check_counts(tensor, counts, self.world)
        return tensor.detach().clone()

    def broadcast_object(self, value: Object) -> Object:
        """See `Exchange.broadcast_object`."""
        return value

    def gather_objects(self, value: Object) -> list[Object]:
        """See `Exchange.gather_objects`."""
        return [value]

    def broadcast_parameters(self, state: Mapping[str, Tensor]) -> None:
        """See `Exchange.broadcast_parameters`."""

    def barrier(self) -> None:
        """See `Exchange.barrier`."""


class HorovodExchange:
    """Collectives by Horovod's torch operations: Gloo on CPUs, NCCL on GPUs where it was built with it.

    Raises:
        ValueError: `hvd.init()` has not been called.
    """

    def __init__(self) -> None:
        import horovod.torch as horovod  # not at the top: a single rank needs no Horovod

        self._horovod: Any = horovod
        self.world = World(rank=horovod.rank(), size=horovod.size(), local_rank=horovod.local_rank())
        self.bytes_sent = 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """See `Exchange.sum_`."""
        tensor = self._counted(tensor)
        total: Tensor = self._horovod.allreduce(tensor, op=self._horovod.Sum, name=_name("sum", tensor, tensor.shape))
        return total

    def sum_many(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """See `Exchange.sum_many`."""
        sums: list[Tensor] = [tensor.detach() for tensor in tensors]
        kinds = dict.fromkeys((tensor.dtype, tensor.device) for tensor in sums)
        for kind in kinds:
            members = [place for place, tensor in enumerate(sums) if (tensor.dtype, tensor.device) == kind]
            flat = self.sum_(torch.cat([sums[place].reshape(-1) for place in members]))
            pieces = torch.split(flat, [sums[place].numel() for place in members])
            for place, piece in zip(members, pieces, strict=True):
                sums[place] = piece.view(sums[place].shape)
        return sums

    def sum_scalars(self, values: Mapping[str, float]) -> dict[str, float]:
        """See `Exchange.sum_scalars`."""
        names = sorted(values)
        sums = self.sum_(torch.tensor([values[name] for name in names], dtype=torch.float64)).tolist()
        return dict(zip(names, sums, strict=True))

    def sum_rows(self, rows: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """See `Exchange.sum_rows`. Rows are added up before they are sent, and again after."""
        rows, values = add_up_rows(rows, values)
        return add_up_rows(self.gather_rows(rows), self.gather_rows(values))

    def gather_rows(self, tensor: Tensor) -> Tensor:
        """See `Exchange.gather_rows`."""
        tensor = self._counted(tensor)
        gathered: Tensor = self._horovod.allgather(tensor, name=_name("gather", tensor, tensor.shape[1:]))
        return gathered

    def alltoall(self, tensor: Tensor, counts: Tensor) -> Tensor:
        """See `Exchange.alltoall`."""
        _check_counts(tensor, counts, self.world)
        name = _name("alltoall", tensor, tensor.shape[1:])
        splits = counts.to(device="cpu", dtype=torch.int32)
        routed, _ = self._horovod.alltoall(self._counted(tensor), splits=splits, name=name)
        received: Tensor = routed
        return received

    def broadcast_object(self, value: Object) -> Object:
        """See `Exchange.broadcast_object`."""
        received: Object = self._horovod.broadcast_object(value, root_rank=0, name="limelight.object")
        return received

    def gather_objects(self, value: Object) -> list[Object]:
        """See `Exchange.gather_objects`."""
        received: list[Object] = self._horovod.allgather_object(value, name="limelight.objects")
        return received

    def broadcast_parameters(self, state: Mapping[str, Tensor]) -> None:
        """See `Exchange.broadcast_parameters`."""
        if self.world.is_first:
            self.bytes_sent += sum(tensor.nbytes for tensor in state.values())
        self._horovod.broadcast_parameters(dict(state), root_rank=0)

    def barrier(self) -> None:
        """See `Exchange.barrier`."""
        self._horovod.barrier()

    def _counted(self, tensor: Tensor) -> Tensor:
        self.bytes_sent += tensor.nbytes
        return tensor.detach().contiguous()


def open_exchange(world: World) -> Exchange:
    """The exchange of a world: Horovod's where there are other ranks."""
    return SingleExchange() if world.size == 1 else HorovodExchange()


def add_up_rows(rows: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """[k] rows and [k, d] values → [u] distinct rows, ascending, and [u, d] the sums of their values.

    Values of a row are added in the order in which they stand, on CPU; on a GPU, `index_add_` promises no order.
    """
    distinct, places = torch.unique(rows, return_inverse=True)
    sums = values.new_zeros((len(distinct), *values.shape[1:]))
    return distinct, sums.index_add_(0, places, values.detach())


def _name(kind: str, tensor: Tensor, shape: Sequence[int]) -> str:
    return ".".join(["limelight", kind, str(tensor.dtype).removeprefix("torch."), *map(str, shape)])


def _check_counts(tensor: Tensor, counts: Tensor, world: World) -> None:
    if len(counts) != world.size or int(counts.sum()) != len(tensor):
        raise ValueError(f"counts {counts.tolist()} do not route {len(tensor)} rows to {world.size} ranks")
