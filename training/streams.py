"""Streams of rows: which rows of which row groups are taken one after the other, and when a row group is wanted.

Pure arithmetic, no files; `training.feed_plan` says which streams there are and how many rows a step takes of each.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from features.manifest import DataFile


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
    """Slices of row groups read one after the other.

    Attributes:
        number: the stream's number s.
        order: the row group of each slice.
        starts: where in its row group each slice begins; 0 but where the rest of an epoch was dealt out anew.
        ends: rows of the stream up to the end of each slice.
    """

    number: int
    order: tuple[int, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, number: int, slices: Iterable[Slice]) -> Self:
        """The stream of some slices, those without rows left out."""
        kept = [part for part in slices if part.rows]
        return cls(
            number=number,
            order=tuple(part.row_group for part in kept),
            starts=tuple(part.start for part in kept),
            ends=tuple(itertools.accumulate(part.rows for part in kept)),
        )

    @property
    def rows(self) -> int:
        return self.ends[-1] if self.ends else 0

    def begin(self, place: int) -> int:
        """Rows of the stream before a place."""
        return self.ends[place - 1] if place else 0

    def places(self, start: int, stop: int) -> range:
        """Places in `order` that hold rows [start, stop)."""
        if start >= stop:
            return range(0)
        return range(bisect.bisect_right(self.ends, start), bisect.bisect_left(self.ends, stop) + 1)

    def slices(self, start: int, stop: int) -> Iterator[Slice]:
        """Rows [start, stop) of the stream as slices of its row groups."""
        for place in self.places(start, stop):
            shift = self.starts[place] - self.begin(place)
            first, last = max(start, self.begin(place)), min(stop, self.ends[place])
            yield Slice(row_group=self.order[place], start=first + shift, stop=last + shift)


Moment = tuple[int, int, int]  # (step, stream, place in the stream): a rank takes its rows in this order


@dataclass(frozen=True, kw_only=True)
class Need:
    """A row group that a rank reads.

    Attributes:
        rows: how many of its rows the rank takes.
        first, last: when it takes the first of them, and the last.
    """

    row_group: int
    rows: int
    first: Moment
    last: Moment


def list_row_groups(files: Sequence[DataFile]) -> tuple[RowGroup, ...]:
    """All row groups of a split, in manifest order."""
    listed = ((file.path, ordinal, rows) for file in files for ordinal, rows in enumerate(file.row_groups))
    return tuple(
        RowGroup(index=index, path=path, ordinal=ordinal, rows=rows)
        for index, (path, ordinal, rows) in enumerate(listed)
    )


def needs_of(
    streams: Iterable[Stream], span: Callable[[Stream], tuple[int, int]], step_of: Callable[[Stream, int], int]
) -> tuple[Need, ...]:
    """What a rank reads, in the order in which it first wants it.

    Args:
        streams: those that the rank serves.
        span: rows [start, stop) that it takes of a stream.
        step_of: the step that takes a row of a stream.
    """
    found: dict[int, Need] = {}
    for stream in streams:
        start, stop = span(stream)
        for place in stream.places(start, stop):
            first, last = max(start, stream.begin(place)), min(stop, stream.ends[place]) - 1
            number, begin = stream.order[place], (step_of(stream, first), stream.number, place)
            end, rows = (step_of(stream, last), stream.number, place), last + 1 - first
            if number in found:  # cut in two when the rest of an epoch was dealt out anew
                known = found[number]
                begin, end, rows = min(begin, known.first), max(end, known.last), rows + known.rows
            found[number] = Need(row_group=number, rows=rows, first=begin, last=end)
    return tuple(sorted(found.values(), key=lambda need: need.first))


def most_held(needs: Iterable[Need]) -> int:
    """How many row groups are begun and not finished at the same time, at most."""
    changes = sorted(change for need in needs for change in ((need.first, 0, 1), (need.last, 1, -1)))
    return max(itertools.accumulate(change for _, _, change in changes), default=0)
