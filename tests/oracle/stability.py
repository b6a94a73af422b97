"""Histograms and the population-stability index value by value, in plain Python and pandas."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import pandas as pd

from pipeline.binning import Binning, Cut, Hashed, Judged, Octaves


def bin_of(value: object, binning: Binning, mask: int | None = 1) -> int:
    """The bin of one value, by the words of `pipeline.binning`."""
    if value is None or mask is None:
        return 0
    match binning:
        case Judged():
            return 2 if mask == 0 else 3 + int(value == 1)
        case Hashed(bins=bins):
            return 2 + zlib.crc32(str(value).encode()) % bins
        case Cut(boundaries=boundaries, length=True):
            assert isinstance(value, list)
            return 2 + sum(len(value) >= boundary for boundary in boundaries)
    assert isinstance(value, int | float)
    if math.isnan(value) or math.isinf(value):
        return 1
    if isinstance(binning, Cut):
        return 2 + sum(value >= boundary for boundary in binning.boundaries)
    return _octave_of(value, binning)


def _octave_of(value: float, octaves: Octaves) -> int:
    if value < 0:
        return 2
    if octaves.shift == 0 and value == 0:
        return 3
    first = 3 if octaves.shift else 4
    at = math.floor(math.log2(value + octaves.shift) * octaves.per_octave) - octaves.first
    return first + min(max(at, 0), octaves.bins - 1)


def histogram(
    values: Sequence[object], binning: Binning, bins: int, masks: Sequence[int | None] | None = None
) -> list[int]:
    """Rows per bin."""
    found = [0] * bins
    for at, value in enumerate(values):
        found[bin_of(value, binning, 1 if masks is None else masks[at])] += 1
    return found


def stability_index(now: Sequence[int], before: Sequence[int], empty_share: float) -> float:
    """Of two samples of bins (one bin per row), bin by bin."""
    p, q = (pd.Series(list(bins)).value_counts(normalize=True) for bins in (now, before))
    p, q = p.align(q, fill_value=0.0)
    terms = [
        (ours - theirs) * math.log(ours / theirs)
        for ours, theirs in zip(p.clip(lower=empty_share).tolist(), q.clip(lower=empty_share).tolist(), strict=True)
    ]
    return sum(terms)
