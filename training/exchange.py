"""Collectives between the ranks: everything that training says to other ranks goes through an `Exchange`.

All calls are collective: every rank makes the same calls in the same order. A call's name is made
of what all ranks agree on (kind, type, shape without the rows), so Horovod matches calls by it, caches the
negotiation of those that repeat, and reports a rank that strays by the name of what the others wait for.

Results are the same bits on every rank: sums are reduced once and handed out, and gathered rows stand in rank order.

What begins with `start_` returns at once: the ranks talk while this one computes. Calling what it returns waits for
the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

    def start_sum_many(self, tensors: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
        """`sum_many`, started; one at a time."""
        ...

    def gather_rows(self, tensor: Tensor) -> Tensor:
        """[n_r, …] of every rank below one another in rank order, on every rank; n_r may differ, and be 0."""
        ...

    def start_gather_rows(self, tensor: Tensor) -> Callable[[], Tensor]:
        """`gather_rows`, started; one at a time of each type and shape without the rows."""
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

    def start_sum_many(self, tensors: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
        """See `Exchange.start_sum_many`."""
        sums = self.sum_many(tensors)
        return lambda: sums

    def gather_rows(self, tensor: Tensor) -> Tensor:
        """See `Exchange.gather_rows`."""
        return tensor.detach().clone()

    def start_gather_rows(self, tensor: Tensor) -> Callable[[], Tensor]:
        """See `Exchange.start_gather_rows`."""
        gathered = self.gather_rows(tensor)
        return lambda: gathered

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
        return self.start_sum_many(tensors)()

    def start_sum_many(self, tensors: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
        """See `Exchange.start_sum_many`."""
        kinds: dict[tuple[torch.dtype, torch.device], list[int]] = {}
        for place, tensor in enumerate(tensors):
            kinds.setdefault((tensor.dtype, tensor.device), []).append(place)
        messages = []
        for members in kinds.values():
            flat = self._counted(torch.cat([tensors[place].detach().reshape(-1) for place in members]))
            name = _name("many", flat, flat.shape)
            messages.append((members, self._horovod.allreduce_async(flat, op=self._horovod.Sum, name=name)))

        def arrived() -> list[Tensor]:
            sums = list(tensors)
            for members, handle in messages:
                pieces = torch.split(self._horovod.synchronize(handle), [tensors[place].numel() for place in members])
                for place, piece in zip(members, pieces, strict=True):
                    sums[place] = piece.view(tensors[place].shape)
            return sums

        return arrived

    def sum_scalars(self, values: Mapping[str, float]) -> dict[str, float]:
        """See `Exchange.sum_scalars`."""
        names = sorted(values)
        sums = self.sum_(torch.tensor([values[name] for name in names], dtype=torch.float64)).tolist()
        return dict(zip(names, sums, strict=True))

    def gather_rows(self, tensor: Tensor) -> Tensor:
        """See `Exchange.gather_rows`."""
        return self.start_gather_rows(tensor)()

    def start_gather_rows(self, tensor: Tensor) -> Callable[[], Tensor]:
        """See `Exchange.start_gather_rows`."""
        tensor = self._counted(tensor)
        handle = self._horovod.allgather_async(tensor, name=_name("gather", tensor, tensor.shape[1:]))
        return lambda: self._horovod.synchronize(handle)

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


def _name(kind: str, tensor: Tensor, shape: Sequence[int]) -> str:
    return ".".join(["limelight", kind, str(tensor.dtype).removeprefix("torch."), *map(str, shape)])


def _check_counts(tensor: Tensor, counts: Tensor, world: World) -> None:
    if len(counts) != world.size or int(counts.sum()) != len(tensor):
        raise ValueError(f"counts {counts.tolist()} do not route {len(tensor)} rows to {world.size} ranks")
