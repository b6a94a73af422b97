"""How far the scores of a candidate lie from those of the champion, on the same rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BINS = 10


def score_psi(candidate: Floats, champion: Floats, bins: int = BINS) -> float | None:
    """Population-stability index of two models' scores, Σ (p − q) · ln(p / q) over bins.

    p and q are the shares of the candidate's and of the champion's scores in a bin: the symmetric Kullback–Leibler
    divergence of the two histograms (Kullback & Leibler 1951; as PSI: Siddiqi, Credit Risk Scorecards, 2006, who calls
    less than 0.1 no shift, and more than 0.25 a large one). Bins are cut at the quantiles of the champion's scores, so
    that each holds about n / bins of them; cuts that coincide, as many equal scores make them, are one. A bin that
    one of them leaves empty counts as half a row for it: a finite weight that shrinks with the evidence. The index is
    0 for equal histograms, and about 2 · (bins − 1) / n for two independent draws of one distribution.

    Args:
        candidate, champion: [n], finite.

    Returns:
        None when there are no rows.
    """
    if len(candidate) == 0 or len(champion) == 0:
        return None
    cuts = np.unique(np.quantile(champion, np.arange(1, bins) / bins))
    p, q = _shares(candidate, cuts), _shares(champion, cuts)
    return float(((p - q) * np.log(p / q)).sum())


def _shares(scores: Floats, cuts: Floats) -> Floats:
    """Share of the scores in each bin, [len(cuts) + 1]; a score equal to a cut belongs above it."""
    counts = np.bincount(np.searchsorted(cuts, scores, side="right"), minlength=len(cuts) + 1)
    return np.asarray(np.maximum(counts, 0.5) / len(scores), dtype=np.float64)
