"""Probabilities made to agree with shares of positives, by a curve per target that is fitted after training.

    fit      half of the valid split's rows, chosen by a hash of row_id: logits, labels, weights (0 = masked)
    judge    the other half, and every other split: nothing is judged on rows that the curve has seen
    serve    the curve is a layer of the exported graph

A curve g maps logits to logits, strictly rising, so that it never changes the order of two rows; p = σ(g(z)).

Platt     g(z) = a z + b by maximum likelihood, on targets (N₊ + 1)/(N₊ + 2) and 1/(N₋ + 2) instead of 1 and 0
          (Platt: "Probabilistic outputs for support vector machines", 1999)
isotonic  pool adjacent violators → blocks of equal probability; g goes straight from block to block, through each
          block's mean logit, and with slope 1 beyond the outer ones (centered isotonic regression: Oron & Flournoy,
          Statistics in Biopharmaceutical Research 9, 2017). A step at each block's edge, as in the plain form, would
          make ties, and let a rounding error of a logit jump.

A conjunction whose factors the model predicts, too (ESMM: pCTCVR = pCTR · pCVR), stays the product of the factors,
each calibrated on its own rows; it has no curve of its own.

n: rows, T: targets, K: knots.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from features.manifest import Frozen

CALIBRATION_FILE = "calibration.json"
MAX_SLOPE = 20.0
"""Of an isotonic curve: blocks that it would connect more steeply are pooled. ONNX Runtime's logits differ from torch's
by some 1e-7, which this keeps below 1e-6 in the probability."""

Kind = Literal["isotonic", "platt"]
Floats = NDArray[np.float64]
Figures = Mapping[str, float | int | None]


class CalibrationConf(Frozen):
    """Attributes: which curve; None leaves probabilities as they are."""

    kind: Kind | None = None


class Curve(Frozen):
    """A strictly rising piecewise-linear map of logits.

    Attributes:
        at, value: [K] knots, ascending, and the calibrated logit at each.
        slope: below the first knot and above the last.
    """

    at: tuple[float, ...] = Field(min_length=1)
    value: tuple[float, ...] = Field(min_length=1)
    slope: float = Field(default=1.0, gt=0)


class TargetCalibration(Frozen):
    """One target's.

    Attributes:
        curve: None where there is none: see `product_of` and `left_out`.
        product_of: targets whose calibrated probabilities it is the product of.
        left_out: why its probabilities stay as they are.
        rows, positives: judged ones that the curve was fitted on.
    """

    curve: Curve | None = None
    product_of: tuple[str, ...] = ()
    left_out: str | None = None
    rows: int = 0
    positives: int = 0


class Calibration(Frozen):
    """calibration.json.

    Attributes:
        fitted_on, judged_on: which rows, in words.
        targets: by name, in the model's order.
        uncalibrated: target → figures before calibration, on the rows that the valid split is judged on.
    """

    kind: Kind
    fitted_on: str = "valid: the rows whose hash of row_id is odd"
    judged_on: str = "valid: the other rows; all rows of every other split"
    targets: Mapping[str, TargetCalibration]
    uncalibrated: Mapping[str, Figures] = Field(default_factory=dict)

    def how(self, target: str) -> Literal["isotonic", "platt", "product"] | None:
        """What a target's probabilities went through."""
        found = self.targets[target]
        if found.product_of:
            return "product"
        return self.kind if found.curve is not None else None


class CalibrationLayer(nn.Module):
    """Logits → calibrated probabilities, in the exported graph, too: a look-up by comparisons, of fixed shape."""

    def __init__(self, calibration: Calibration) -> None:
        super().__init__()
        self.calibration = calibration
        names = list(calibration.targets)
        self._products = {
            names.index(name): [names.index(factor) for factor in target.product_of]
            for name, target in calibration.targets.items()
            if target.product_of
        }
        curves = [target.curve or Curve(at=(0.0,), value=(0.0,)) for target in calibration.targets.values()]
        width = max(len(curve.at) for curve in curves)
        knots = [[*curve.at, *[math.inf] * (width - len(curve.at))] for curve in curves]
        pieces = [_pieces(curve, width) for curve in curves]
        first = [place * (width + 1) for place in range(len(curves))]
        for name, values in (("knots", knots), ("origin", pieces)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64), persistent=False)
        self.register_buffer("first", torch.tensor(first), persistent=False)
        self.knots: Tensor
        self.origin: Tensor
        self.first: Tensor

    def forward(self, logits: Tensor) -> Tensor:
        """Logits [n, T] → probabilities [n, T] of the same dtype."""
        passed = (logits.unsqueeze(2) >= self.knots.to(logits.dtype)).sum(dim=2)
        pieces = self.origin.to(logits.dtype).flatten(end_dim=1)[passed + self.first]
        at, value, slope = pieces.unbind(dim=2)
        columns = list(torch.sigmoid(value + slope * (logits - at)).unbind(dim=1))
        for product, factors in self._products.items():
            columns[product] = torch.stack([columns[factor] for factor in factors], dim=0).prod(dim=0)
        return torch.stack(columns, dim=1)


def _pieces(curve: Curve, width: int) -> list[tuple[float, float, float]]:
    """[width + 1] (a knot, its value, slope) of the piece behind so many knots; none lies behind padding."""
    at, value = curve.at, curve.value
    inner = [(at[i], value[i], (value[i + 1] - value[i]) / (at[i + 1] - at[i])) for i in range(len(at) - 1)]
    return [(at[0], value[0], curve.slope), *inner, *[(at[-1], value[-1], curve.slope)] * (width - len(inner))]


def fitted_on(row_id: Tensor) -> Tensor:
    """[n] int64 → [n] whether a row of the valid split is one to fit on; about half are, whatever model and seed.

    The hash is the finaliser of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators",
    2014).
    """
    mixed = row_id.cpu().numpy().astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return torch.from_numpy(((mixed ^ (mixed >> np.uint64(31))) & np.uint64(1)).astype(bool))


class Predicted(Protocol):
    """What a target is called and which labels it is the conjunction of (see training.modeling.base.Target)."""

    @property
    def name(self) -> str: ...

    @property
    def all_of(self) -> tuple[str, ...]: ...


def fit(kind: Kind, targets: Sequence[Predicted], scores: Floats, labels: Floats, weights: Floats) -> Calibration:
    """Fit a curve per target.

    Args:
        kind: of curve.
        targets: in the order of the columns.
        scores: [n, T] uncalibrated probabilities in float64.
        labels, weights: [n, T]; weight 0 = masked.
    """
    alone = {target.all_of[0]: target.name for target in targets if len(target.all_of) == 1}
    fitted = {}
    for column, target in enumerate(targets):
        kept = weights[:, column] > 0
        label, weight = labels[kept, column], weights[kept, column]
        counts = {"rows": int(kept.sum()), "positives": int(label.sum())}
        if len(target.all_of) > 1 and set(target.all_of) <= set(alone):
            factors = tuple(alone[name] for name in target.all_of)
            fitted[target.name] = TargetCalibration(product_of=factors)
            continue
        curve = _curve(kind, logit_of(scores[kept, column]), label, weight)
        fitted[target.name] = (
            TargetCalibration(curve=curve, **counts)
            if isinstance(curve, Curve)
            else TargetCalibration(left_out=curve, **counts)
        )
    return Calibration(kind=kind, targets=fitted)


def _curve(kind: Kind, logit: Floats, label: Floats, weight: Floats) -> Curve | str:
    """The curve, or why there is none."""
    if not 0 < label.sum() < len(label):
        return f"only one class among the {len(label):,} rows to fit on"
    return isotonic(logit, label, weight) if kind == "isotonic" else platt(logit, label, weight)


def logit_of(probability: Floats) -> Floats:
    """log p/(1 − p), finite where float64 has rounded p to 0 or 1."""
    tiny = np.finfo(np.float64).eps / 2
    clipped = np.clip(probability, tiny * tiny, 1 - tiny)
    logit: Floats = np.log(clipped) - np.log1p(-clipped)
    return logit


def platt(logit: Floats, label: Floats, weight: Floats) -> Curve | str:
    """a z + b, or why there is none. Each row stands in the fit twice, once per class, by its smoothed target.

    Args:
        logit, label, weight: [n], label 0 or 1 and both there, weight > 0.
    """
    from sklearn.linear_model import LogisticRegression  # a second to import, and few trainings calibrate

    mean, deviation = float(np.average(logit, weights=weight)), float(logit.std())
    if deviation <= 1e-12 * max(1.0, abs(mean)):
        return "every row has the same score"
    positives, negatives = label.sum(), len(label) - label.sum()
    target = np.where(label > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    z = np.tile((logit - mean) / deviation, 2)[:, None]
    classes = np.repeat([1, 0], len(label))
    shares = np.concatenate([weight * target, weight * (1 - target)]) / float(weight.mean())
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-9, max_iter=1000)
    model.fit(z, classes, sample_weight=shares)
    slope = float(model.coef_[0, 0]) / deviation
    if slope <= 0:
        return f"scores fall as the share of positives rises (slope {slope:.3g})"
    return Curve(at=(mean,), value=(float(model.intercept_[0]),), slope=slope)


@dataclass(frozen=True, kw_only=True)
class Block:
    """Pooled rows: mean logit, share of positives, sum of weights."""

    logit: float
    share: float
    weight: float

    def connects(self, upper: Block) -> bool:
        """Whether a curve may go from here to a block above: rising, and no steeper than MAX_SLOPE."""
        return 0 < _logit(upper.share) - _logit(self.share) <= MAX_SLOPE * (upper.logit - self.logit)

    def pooled(self, other: Block) -> Block:
        """Both as one."""
        weight = self.weight + other.weight
        logit = (self.logit * self.weight + other.logit * other.weight) / weight
        share = (self.share * self.weight + other.share * other.weight) / weight
        return Block(logit=logit, share=share, weight=weight)


def isotonic(logit: Floats, label: Floats, weight: Floats) -> Curve:
    """Centered isotonic regression; no probability is below half a row of n, nor above 1 − that.

    Args:
        logit, label, weight: [n], label 0 or 1, weight > 0.
    """
    least = 0.5 / (len(label) + 1)
    kept: list[Block] = []
    for block in blocks(logit, label, weight):
        kept.append(replace(block, share=min(max(block.share, least), 1 - least)))
        while len(kept) > 1 and not kept[-2].connects(kept[-1]):
            upper, lower = kept.pop(), kept.pop()
            kept.append(lower.pooled(upper))
    return Curve(at=tuple(block.logit for block in kept), value=tuple(_logit(block.share) for block in kept))


def blocks(logit: Floats, label: Floats, weight: Floats) -> list[Block]:
    """Pool adjacent violators: blocks by ascending logit and share."""
    from sklearn.isotonic import isotonic_regression

    values, places = np.unique(logit, return_inverse=True)
    mass, positive = np.bincount(places, weight), np.bincount(places, weight * label)
    smooth = np.asarray(isotonic_regression(positive / mass, sample_weight=mass))
    starts = np.flatnonzero(np.r_[True, smooth[1:] > smooth[:-1]])
    total, hits, sums = (np.add.reduceat(part, starts) for part in (mass, positive, mass * values))
    return [
        Block(logit=z / w, share=y / w, weight=w)
        for z, y, w in zip(sums.tolist(), hits.tolist(), total.tolist(), strict=True)
    ]


def _logit(share: float) -> float:
    return math.log(share) - math.log1p(-share)
