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

Evaluation, `plan_evaluation`: no shuffle, rank r reads the row groups i mod W = r in order, and drops no row.
Every rank takes as many batches of the same size as the rank with most rows; what is missing is padded.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from features.errors import ConfError, DataError, Problem
from features.manifest import DataFile
from training.world import World

_ROW_GROUP_ORDER = 1  # names of the independent random streams below (seed, epoch)
_ROW_ORDER = 2


@dataclass(frozen=True, kw_only=True)
class RowGroup:
    """A row group of a split. `index` counts over all files in manifest order; it is Petastorm's piece index."""

    index: int
    path: str
    ordinal: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Rows [start, stop) of a row group in the order in which the plan reads it."""

    row_group: int
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Row groups read one after the other, and the rows before each of them.

    Attributes:
        number: the stream's number s.
        pieces: Petastorm's piece indices in the order in which Petastorm hands them out.
        order: the row group that is read in the place of each piece.
        ends: rows of the stream up to the end of each row group of `order`.
    """

    number: int
    pieces: tuple[int, ...]
    order: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def rows(self) -> int:
        return self.ends[-1] if self.ends else 0

    def slices(self, start: int, stop: int) -> Iterator[Slice]:
        """Rows [start, stop) of the stream as slices of its row groups."""
        place = bisect.bisect_right(self.ends, start)
        while start < stop:
            begin = self.ends[place - 1] if place else 0
            end = min(stop, self.ends[place])
            yield Slice(row_group=self.order[place], start=start - begin, stop=end - begin)
            start, place = end, place + 1

    def places(self, start: int, stop: int) -> range:
        """Places in `order` that hold rows [start, stop)."""
        if start >= stop:
            return range(0)
        return range(bisect.bisect_right(self.ends, start), bisect.bisect_left(self.ends, stop) + 1)


@dataclass(frozen=True, kw_only=True)
class EpochPlan:
    """One epoch of training as every rank sees it.

    Attributes:
        world: of the rank whose `slices` and `reads` these are; all else is the same on every rank.
        batch_size: B, rows of a global step over all ranks.
        streams: all S' streams.
        steps: full batches of the epoch, the same on every rank.
        first_step: where to begin; above 0 when resumed.
        rows, dropped: rows of the split, and those of them behind the last step.
        seed, epoch: what the order was drawn from.
    """

    world: World
    batch_size: int
    streams: tuple[Stream, ...]
    steps: int
    first_step: int = 0
    rows: int
    dropped: int
    seed: int
    epoch: int

    def taken(self, stream: int, step: int) -> int:
        """C_s(k): rows that a stream has given before a step."""
        return (step * self.batch_size + len(self.streams) - 1 - stream) // len(self.streams)

    def from_step(self, step: int) -> Self:
        """The rest of the same epoch.

        Raises:
            ConfError: the epoch has no such step.
        """
        if not 0 <= step <= self.steps:
            raise ConfError(f"epoch {self.epoch} has steps 0 to {self.steps}; cannot begin at {step}.")
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
    def reads(self) -> dict[int, int]:
        """Petastorm's piece → the row group this rank reads in its place; pieces not needed are absent."""
        wanted: dict[int, int] = {}
        for stream in self.own_streams:
            begin, end = self.taken(stream.number, self.first_step), self.taken(stream.number, self.steps)
            wanted.update((stream.pieces[i], stream.order[i]) for i in stream.places(begin, end))
        return wanted

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
        rows: rows of the split over all ranks.
    """

    world: World
    batch_size: int
    stream: Stream
    steps: int
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
    def reads(self) -> dict[int, int]:
        """Petastorm's piece → the row group read in its place: itself."""
        return dict(zip(self.stream.pieces, self.stream.order, strict=True))

    def row_order(self, group: RowGroup) -> NDArray[np.intp]:
        """[rows] rows are read as they were written."""
        return np.arange(group.rows)


Plan = EpochPlan | EvaluationPlan


def list_row_groups(files: Sequence[DataFile]) -> tuple[RowGroup, ...]:
    """All row groups of a split, in manifest order."""
    listed = ((file.path, ordinal, rows) for file in files for ordinal, rows in enumerate(file.row_groups))
    return tuple(
        RowGroup(index=index, path=path, ordinal=ordinal, rows=rows)
        for index, (path, ordinal, rows) in enumerate(listed)
    )


def plan_epoch(
    groups: Sequence[RowGroup], *, logical_shards: int, batch_size: int, world: World, seed: int, epoch: int
) -> EpochPlan:
    """Plan one epoch of training.

    Args:
        groups: all row groups of the split, see `list_row_groups`.
        logical_shards: S of the manifest.
        batch_size: B, rows of a step over all ranks.

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
    streams = tuple(_stream(number, groups[number::count], seed, epoch) for number in range(count))
    # C_s(k) ≤ R_s  ⟺  kB ≤ R_s·S' + s
    steps = min((stream.rows * count + stream.number) // batch_size for stream in streams)
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
    indices = tuple(group.index for group in own)
    ends = tuple(itertools.accumulate(group.rows for group in own))
    return EvaluationPlan(
        world=world,
        batch_size=local,
        stream=Stream(number=world.rank, pieces=indices, order=indices, ends=ends),
        steps=-(-most // local),
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


def _stream(number: int, groups: Sequence[RowGroup], seed: int, epoch: int) -> Stream:
    order = _random(seed, epoch, _ROW_GROUP_ORDER, number).permutation(len(groups))
    shuffled = [groups[place] for place in order]
    return Stream(
        number=number,
        pieces=tuple(group.index for group in groups),
        order=tuple(group.index for group in shuffled),
        ends=tuple(itertools.accumulate(group.rows for group in shuffled)),
    )


def _random(*key: int) -> np.random.Generator:
    """A generator that is a function of the key alone, on every machine."""
    entropy: Any = key
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
