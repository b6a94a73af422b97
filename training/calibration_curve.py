"""Reliability of probabilities: predicted against observed, in bins of equal numbers of rows."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from features.manifest import Frozen
from training.bootstrap import Judged


class Bin(Frozen):
    """Rows of one bin: mean score, share of positives, and its Wilson interval at 95 %."""

    rows: int = Field(ge=1)
    predicted: float
    observed: float
    low: float
    high: float


def calibration_curve(rows: Judged, bins: int = 12) -> tuple[Bin, ...]:
    """Quantile bins of the score, lowest first; equal scores are never split, so there may be fewer bins.

    Rows are judged ones (weight > 0); weights other than 1 weigh the means, and the interval is of the
    number of rows (Wilson 1927).
    """
    if len(rows.score) == 0:
        return ()
    edges = np.unique(np.quantile(rows.score, np.linspace(0, 1, bins + 1)[1:-1]))
    places = np.searchsorted(edges, rows.score, side="right")
    return tuple(_bin(rows, places == place) for place in np.unique(places))


def _bin(rows: Judged, chosen: NDArray[np.bool_]) -> Bin:
    weight, count = rows.weight[chosen], int(chosen.sum())
    observed = float(np.average(rows.label[chosen], weights=weight))
    low, high = wilson(observed, count)
    predicted = float(np.average(rows.score[chosen], weights=weight))
    return Bin(rows=count, predicted=predicted, observed=observed, low=low, high=high)


def wilson(share: float, rows: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share of `rows` rows."""
    centre = share + z * z / (2 * rows)
    spread = z * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    scale = 1 + z * z / rows
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
