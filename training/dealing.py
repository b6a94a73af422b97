"""The rows that are left of an epoch, dealt out anew to another number of streams; pure arithmetic, no files.

The row groups that have some of the R rows that are left, shuffled, stand in one line, which is cut into S' streams of
⌊(R + S' − 1 − s) / S'⌋ rows. Each row that is left is read once, but for the R mod B behind the last full batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from training.streams import Slice, Stream

Dealt = tuple[tuple[int, int], ...]  # (number of streams, step that they came to), one after the other


def dealt_until(dealt: Dealt, streams: int, step: int) -> Dealt:
    """What was dealt before, and that as many streams have read on from there to a step, if they have."""
    begun = dealt[-1][1] if dealt else 0
    return dealt if step == begun else (*dealt, (streams, step))


def left_of(streams: Sequence[Stream], taken: int) -> list[list[Slice]]:
    """What streams have not given of each row group after `taken` rows over all of them, by row group."""
    count = len(streams)
    left = [part for s in streams for part in s.slices((taken + count - 1 - s.number) // count, s.rows)]
    left.sort(key=lambda part: (part.row_group, part.start))
    return [list(parts) for _, parts in itertools.groupby(left, key=lambda part: part.row_group)]


def deal_out(left: Sequence[Sequence[Slice]], count: int, random: np.random.Generator) -> tuple[Stream, ...]:
    """All slices in one line, row groups shuffled, cut into streams of as many rows, or one more."""
    line = Stream.of(0, itertools.chain.from_iterable(left[place] for place in random.permutation(len(left))))
    cuts = [0, *itertools.accumulate((line.rows + count - 1 - number) // count for number in range(count))]
    return tuple(Stream.of(number, line.slices(*cuts[number : number + 2])) for number in range(count))
