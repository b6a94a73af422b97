"""How far a distribution has moved from that of the days before."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.binning import NEGATIVE_BIN, POSITIVE_BIN
from pipeline.border import ColumnSeen, PastDay


def psi(counts: Sequence[int], reference: Sequence[int], empty_share: float) -> float | None:
    """Population-stability index Σ (p − q) · ln(p / q) over bins; None when either side has no rows.

    It is Jeffreys' divergence of binned shares, by this name in Siddiqi, Credit Risk Scorecards (2006).
    p and q are shares of a bin on this day and in the reference. A share below `empty_share` counts as that much, so
    that an empty bin weighs what few rows would, and not infinitely; shares are not scaled to 1 again. It is at least
    0, symmetric, and about (bins − 1) · (1/n + 1/m) for n and m rows of the same distribution.
    """
    n, m = sum(counts), sum(reference)
    if n == 0 or m == 0:
        return None
    total = 0.0
    for count, other in zip(counts, reference, strict=True):
        p, q = max(count / n, empty_share), max(other / m, empty_share)
        total += (p - q) * math.log(p / q)
    return total


def summed(name: str, bins: str, reference: Sequence[PastDay]) -> list[int] | None:
    """The reference days' histograms of a column added up; None when none of them was cut in the same way."""
    alike = [past.columns[name].histogram for past in reference if _is_cut(past.columns.get(name), bins)]
    return [sum(bin_counts) for bin_counts in zip(*alike, strict=True)] if alike else None


def _is_cut(column: ColumnSeen | None, bins: str) -> bool:
    return column is not None and column.bins == bins and bool(column.histogram)


def positive_rate(counts: Sequence[int]) -> float | None:
    """Positives among judged rows of a label's histogram; None when none was judged."""
    judged = counts[NEGATIVE_BIN] + counts[POSITIVE_BIN] if counts else 0
    return counts[POSITIVE_BIN] / judged if judged else None
