"""What the gate's rules look at: the models' scores, the gate day, and the figures that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.gate_conf import GateConf
from training.segments import Segments
from training.verdict import Days, Parity, SegmentVerdict, TaskVerdict

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A model on the gate day: `scores` task → [n] probabilities, rows in the order of the evidence."""

    name: str
    days: Days
    scores: Mapping[str, Floats]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The gate day, the same rows for candidate and champion.

    Attributes:
        model: name of the model in the registry.
        day: the gate day, ISO.
        labels, weights: task → [n]; weight 0 = masked.
        group: [n], the user.
        segments: parts of the day.
        left_out: task → why it is not judged.
        parity: None when it was not checked, which stops.
    """

    model: str
    day: str
    labels: Mapping[str, Floats]
    weights: Mapping[str, Floats]
    group: NDArray[np.int64]
    segments: Segments
    left_out: Mapping[str, str]
    parity: Parity | None


@dataclass(frozen=True, kw_only=True)
class Case:
    """All that a rule may look at."""

    candidate: Scored
    champion: Scored | None
    evidence: Evidence
    conf: GateConf
    tasks: tuple[TaskVerdict, ...]
    segments: tuple[SegmentVerdict, ...]
