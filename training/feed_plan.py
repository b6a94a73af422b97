"""What every rank reads at every step: pure arithmetic on the row groups of a split, no files.

Training, `plan_epoch`:

1. Row group i belongs to stream i mod S'.            [S' streams of row groups]
   S' is the number of logical shards S where the world size W divides it; so the streams are the same for
   every such W, and rank r serves those with s mod W = r, which is what Petastorm's own sharding by row
   group gives it.
2. Each stream shuffles its row groups by (seed, epoch, stream), and each row group shuffles its rows by
   (seed, epoch, row group).                           [S' sequences of rows]
3. After k steps stream s has given C_s(k) = ⌊(kB + S' − 1 − s) / S'⌋ rows. By Hermite's identity
   Σ_s C_s(k) = kB, so every step has exactly B rows over all ranks, also where S' does not divide B; and
   over the streams of a rank C adds up to ⌊(kB + W − 1 − r) / W⌋, so a rank's batch is B/W rows, or one more.
4. The epoch ends at the last k for which every stream has its C_s(k) rows. It is the same for all ranks;
   the rows behind it are counted as dropped, and differ from epoch to epoch.

Nothing of step k depends on W as long as W divides S: global step k is the same set of rows.

Where training goes on inside an epoch with a W for which there are other streams, the rows that are left are dealt out
anew to these (`training.dealing`). The steps go on counting.

Evaluation, `plan_evaluation`: no shuffle, rank r reads the row groups i mod W = r in order, and drops no row.
Every rank takes as many batches of the same size as the rank with most rows; what is missing is padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from features.errors import ConfError, DataError, Problem
from training.dealing import Dealt, deal_out, left_of
from training.streams import Need, RowGroup, Slice, Stream, list_row_groups, needs_of
from training.world import World

__all__ = [
    "EpochPlan",
    "EvaluationPlan",
    "Plan",
    "RowGroup",
    "Slice",
    "list_row_groups",
    "plan_epoch",
    "plan_evaluation",
]

_ROW_GROUP_ORDER = 1  # names of the independent random streams below (seed, epoch)
_ROW_ORDER = 2
_DEAL_ORDER = 3


@dataclass(frozen=True, kw_only=True)
class EpochPlan:
    """One epoch of training as every rank sees it.

    Attributes:
        world: of the rank whose `slices` and `reads` these are; all else is the same on every rank.
        batch_size: B, rows of a global step over all ranks.
        streams: all S' streams.
        steps: full batches of the epoch, the same on every rank.
        first_step: where to begin; above 0 when resumed.
        dealt_at: the step at which the rows that were left were dealt out to these streams; 0: the epoch began so.
        row_groups, rows, dropped: of the split, and the rows of it behind the last step.
        seed, epoch: what the order was drawn from.
    """

    world: World
    batch_size: int
    streams: tuple[Stream, ...]
    steps: int
    first_step: int = 0
    dealt_at: int = 0
    row_groups: int
    rows: int
    dropped: int
    seed: int
    epoch: int

    def taken(self, stream: int, step: int) -> int:
        """C_s(k): rows that a stream has given before a step."""
        return ((step - self.dealt_at) * self.batch_size + len(self.streams) - 1 - stream) // len(self.streams)

    def step_of(self, stream: Stream, row: int) -> int:
        """The step that takes a row of a stream: the last k with C_s(k) ≤ row."""
        return self.dealt_at + (row * len(self.streams) + stream.number) // self.batch_size

    def from_step(self, step: int) -> Self:
        """The rest of the same epoch.

        Raises:
            ConfError: the epoch has no such step.
        """
        if not self.dealt_at <= step <= self.steps:
            raise ConfError(f"epoch {self.epoch} has steps {self.dealt_at} to {self.steps}; cannot begin at {step}.")
        return replace(self, first_step=step)

    def slices(self, step: int) -> list[Slice]:
        """What this rank reads at a step, in order."""
        return [
            part
            for stream in self.own_streams
            for part in stream.slices(self.taken(stream.number, step), self.taken(stream.number, step + 1))
        ]

    @cached_property
    def own_streams(self) -> tuple[Stream, ...]:
        """The streams that this rank serves."""
        return self.streams[self.world.rank :: self.world.size]

    @cached_property
    def needs(self) -> tuple[Need, ...]:
        """What this rank reads from `first_step` on, in the order in which it wants it."""
        return needs_of(
            self.own_streams,
            lambda s: (self.taken(s.number, self.first_step), self.taken(s.number, self.steps)),
            self.step_of,
        )

    @property
    def sharded(self) -> bool:
        """Whether this rank reads only what Petastorm's sharding gives it: a row group may be cut by a later deal."""
        return self.dealt_at == 0

    @cached_property
    def reads(self) -> dict[int, int]:
        """See `reads_of`."""
        return reads_of(self)

    def row_order(self, group: RowGroup) -> NDArray[np.intp]:
        """[rows] the permutation in which a row group's rows are read."""
        return _random(self.seed, self.epoch, _ROW_ORDER, group.index).permutation(group.rows)


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """One pass over a split that drops nothing, as one rank sees it.

    Attributes:
        batch_size: rows of one batch of one rank, padding included.
        stream: the row groups of this rank, in order.
        steps: batches, the same on every rank.
        row_groups, rows: of the split, over all ranks.
    """

    world: World
    batch_size: int
    stream: Stream
    steps: int
    row_groups: int
    rows: int

    def slices(self, step: int) -> list[Slice]:
        """What this rank reads at a step; together shorter than `batch_size` where padding follows."""
        start = min(step * self.batch_size, self.stream.rows)
        return list(self.stream.slices(start, min(start + self.batch_size, self.stream.rows)))

    @property
    def first_step(self) -> int:
        """An evaluation always begins at its beginning."""
        return 0

    @cached_property
    def needs(self) -> tuple[Need, ...]:
        """What this rank reads, in order."""
        return needs_of([self.stream], lambda s: (0, s.rows), lambda _, row: row // self.batch_size)

    @property
    def sharded(self) -> bool:
        """Petastorm refuses to shard fewer row groups than ranks."""
        return self.row_groups >= self.world.size

    @cached_property
    def reads(self) -> dict[int, int]:
        """See `reads_of`; row groups without rows aside, each piece is read as itself."""
        return reads_of(self)

    def row_order(self, group: RowGroup) -> NDArray[np.intp]:
        """[rows] rows are read as they were written."""
        return np.arange(group.rows)


Plan = EpochPlan | EvaluationPlan


def reads_of(plan: Plan) -> dict[int, int]:
    """Petastorm's piece → the row group that this rank reads in its place; pieces not needed are absent.

    Petastorm hands a rank's pieces out in ascending order, so that row groups arrive in the order in which they are
    wanted, and none has to be held for later.
    """
    first, stride = (plan.world.rank, plan.world.size) if plan.sharded else (0, 1)
    pieces = range(first, plan.row_groups, stride)
    return dict(zip(pieces, (need.row_group for need in plan.needs), strict=False))


def plan_epoch(
    groups: Sequence[RowGroup],
    *,
    logical_shards: int,
    batch_size: int,
    world: World,
    seed: int,
    epoch: int,
    dealt: Dealt = (),
) -> EpochPlan:
    """Plan one epoch of training.

    Args:
        groups: all row groups of the split, see `list_row_groups`.
        logical_shards: S of the manifest.
        batch_size: B, rows of a step over all ranks.
        dealt: what other numbers of streams have read of this epoch already.

    Raises:
        ConfError: fewer rows in a batch than ranks.
        DataError: fewer row groups than ranks, or not enough rows for one step.
    """
    if batch_size < world.size:
        raise ConfError(
            f"batch_size={batch_size} is below the {world.size} ranks that share it. Use {world.size} or more."
        )
    rows = sum(group.rows for group in groups)
    count = _number_of_streams(len(groups), logical_shards, world.size)
    counts = [*(number for number, _ in dealt), count]
    streams = tuple(_stream(number, groups[number :: counts[0]], seed, epoch) for number in range(counts[0]))
    dealt_at = 0
    for deal, (_, step) in enumerate(dealt, start=1):
        left = left_of(streams, (step - dealt_at) * batch_size)
        streams, dealt_at = deal_out(left, counts[deal], _random(seed, epoch, _DEAL_ORDER, deal)), step
    # C_s(k) ≤ R_s  ⟺  kB ≤ R_s·S' + s
    steps = dealt_at + min((stream.rows * count + stream.number) // batch_size for stream in streams)
    if steps == 0:
        raise DataError(
            [
                Problem(
                    what=f"not one step of batch_size={batch_size}: the smallest of {count} logical shards "
                    f"has {min(stream.rows for stream in streams)} of {rows} rows",
                    remedy="Lower batch_size, or export more days or smaller row groups.",
                    count=rows,
                )
            ]
        )
    return EpochPlan(
        world=world,
        batch_size=batch_size,
        streams=streams,
        steps=steps,
        first_step=dealt_at,
        dealt_at=dealt_at,
        row_groups=len(groups),
        rows=rows,
        dropped=rows - steps * batch_size,
        seed=seed,
        epoch=epoch,
    )


def plan_evaluation(groups: Sequence[RowGroup], *, batch_size: int, world: World) -> EvaluationPlan:
    """Plan one pass over a split in which every row is read once.

    Args:
        batch_size: rows of a step over all ranks; each rank takes ⌈batch_size / W⌉.

    Raises:
        ConfError: batch_size below 1.
    """
    if batch_size < 1:
        raise ConfError(f"batch_size={batch_size} must be at least 1.")
    local = -(-batch_size // world.size)
    most = max(sum(group.rows for group in groups[rank :: world.size]) for rank in range(world.size))
    own = groups[world.rank :: world.size]
    return EvaluationPlan(
        world=world,
        batch_size=local,
        stream=Stream.of(world.rank, map(_whole, own)),
        steps=-(-most // local),
        row_groups=len(groups),
        rows=sum(group.rows for group in groups),
    )


def _number_of_streams(groups: int, logical_shards: int, world_size: int) -> int:
    """S': S, or its largest divisor that the row groups fill; for W that does not divide it, a multiple of W.

    The divisor depends on the files alone, so few row groups do not break the sameness over world sizes.
    """
    if groups < world_size:
        problem = Problem(
            what=f"{groups} row groups cannot feed {world_size} ranks",
            remedy="Export smaller row groups, or train with fewer ranks.",
            count=groups,
        )
        raise DataError([problem])
    filled = max(
        divisor for divisor in range(1, logical_shards + 1) if logical_shards % divisor == 0 and divisor <= groups
    )
    return filled if filled % world_size == 0 else world_size * max(1, filled // world_size)


def _whole(group: RowGroup) -> Slice:
    return Slice(row_group=group.index, start=0, stop=group.rows)


def _stream(number: int, groups: Sequence[RowGroup], seed: int, epoch: int) -> Stream:
    order = _random(seed, epoch, _ROW_GROUP_ORDER, number).permutation(len(groups))
    return Stream.of(number, (_whole(groups[place]) for place in order))


def _random(*key: int) -> np.random.Generator:
    """A generator that is a function of the key alone, on every machine."""
    entropy: Any = key
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
