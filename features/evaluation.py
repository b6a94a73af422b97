"""What the training side hands back to the data side: how a champion did on one day of samples.

Histograms are counted in bins that follow from nothing but the edges below, never from data, so that any two days of
one champion can be compared. Bin 0 counts what is no finite number; bin 1 + i the values that i edges are ≤.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping

from pydantic import Field

from features.manifest import Frozen

SCORE_EDGES = tuple(1 / (1 + math.exp(-half / 2)) for half in range(-16, 9))
"""Of probabilities: half a unit of the logit apart, as rare events all lie near 0; 0.0003 to 0.98."""

FEATURE_EDGES = (-3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
"""Of dense features, in the standard deviations that the champion's train set normalises them by."""


class TaskFigures(Frozen):
    """One task on one day; a figure is None where it is undefined (one class only, a score that is not finite).

    Attributes:
        rows, positives: judged rows, and those of them that are positive.
        pcoc: predicted over observed positives.
    """

    rows: int = Field(ge=0)
    positives: int = Field(ge=0)
    auc: float | None
    gauc: float | None
    logloss: float | None
    pcoc: float | None


class Oov(Frozen):
    """Ids of one vocabulary in all its columns, padding aside: how many there were, and how many were OOV."""

    values: int = Field(ge=0)
    oov: int = Field(ge=0)

    @property
    def share(self) -> float | None:
        """None without values."""
        return self.oov / self.values if self.values else None


class Evaluation(Frozen):
    """One version of one model on the samples of one day.

    Attributes:
        version, digest: of the published folder.
        samples: content digest of the partition of samples that was scored.
        rows: all impressions of the day, judged or not; histograms count them all.
        tasks: output → figures.
        scores: output → histogram of probabilities, in bins of `score_edges`.
        features: dense feature → histogram of what it is encoded as, in bins of `feature_edges`.
        oov: vocabulary → ids; only vocabularies that were fitted on keys.
    """

    model: str
    version: str
    digest: str
    day: datetime.date
    samples: str
    rows: int = Field(ge=0)
    tasks: Mapping[str, TaskFigures]
    scores: Mapping[str, tuple[int, ...]]
    features: Mapping[str, tuple[int, ...]]
    oov: Mapping[str, Oov]
    score_edges: tuple[float, ...] = SCORE_EDGES
    feature_edges: tuple[float, ...] = FEATURE_EDGES
