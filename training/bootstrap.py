"""Intervals of AUC and GAUC by a paired bootstrap over users.

Rows of one user are not independent, so users are resampled, not rows (Efron & Tibshirani 1993, ch. 8;
the cluster bootstrap). Both models are scored on the same resamples: what they share cancels.

n: rows, U: users, B: rounds.

1. multiplicity [B, U]: how often each user is drawn in each round (multinomial, U draws).
2. AUC of a round is the weighted AUC with weight · multiplicity[user]: rows are sorted by score once,
   then one cumulative sum per round gives the negatives below each positive; ties count half.
3. GAUC of a round: a user's own AUC does not change when whole users are drawn, so it is computed
   once, and a round is a weighted mean of it.
4. The interval is the percentile interval of the rounds' figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from features.manifest import Frozen

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Rounds in which a class dies out have no AUC; above this share the interval would be a fiction.
MAX_UNDEFINED_SHARE = 0.05
ROUNDS_AT_ONCE = 32  # bounds memory to ROUNDS_AT_ONCE · n doubles per array


class Interval(Frozen):
    """A figure on all rows, and the percentile interval of its resamples."""

    low: float
    point: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Rows of one task: score, label (0 or 1), weight (0 = masked) and user of each; all [n]."""

    score: Floats
    label: Floats
    weight: Floats
    group: Integers

    @classmethod
    def of(cls, score: ArrayLike, label: ArrayLike, weight: ArrayLike, group: ArrayLike) -> Self:
        """Take the unmasked rows, as float64.

        Raises:
            ValueError: if the four are not vectors of one length.
        """
        arrays = [np.asarray(a, dtype=np.float64) for a in (score, label, weight)]
        users = np.asarray(group, dtype=np.int64)
        if any(a.shape != users.shape or a.ndim != 1 for a in arrays):
            raise ValueError(f"score, label, weight and group differ in shape: {[a.shape for a in (*arrays, users)]}")
        kept = arrays[2] > 0
        return cls(score=arrays[0][kept], label=arrays[1][kept], weight=arrays[2][kept], group=users[kept])


@dataclass(frozen=True, kw_only=True)
class Resamples:
    """Users drawn with replacement: `codes` [n] is each row's user, `multiplicity` [B, U] the draws."""

    codes: Integers
    multiplicity: Integers

    @classmethod
    def draw(cls, group: Integers, *, rounds: int, seed: int) -> Self:
        """Draw as many users as there are, `rounds` times; a function of (users, rounds, seed) only."""
        users, codes = np.unique(group, return_inverse=True)
        if len(users) == 0:
            raise ValueError("no users to resample")
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(len(users), np.full(len(users), 1.0 / len(users)), size=rounds)
        return cls(codes=codes.astype(np.int64), multiplicity=drawn.astype(np.int64))

    def auc(self, rows: Judged) -> Floats:
        """AUC of every round, [B]; NaN where a round holds one class only."""
        order = np.argsort(rows.score, kind="stable")
        score, label = rows.score[order], rows.label[order]
        positives = np.flatnonzero(label > 0)
        below = np.searchsorted(score, score[positives], side="left")
        through = np.searchsorted(score, score[positives], side="right")
        codes, weight = self.codes[order], rows.weight[order]
        figures = [
            _weighted_auc(self.multiplicity[start : start + ROUNDS_AT_ONCE, codes] * weight, label, below, through)
            for start in range(0, len(self.multiplicity), ROUNDS_AT_ONCE)
        ]
        return np.concatenate(figures)

    def gauc(self, per_user: Floats, user_weight: Floats) -> Floats:
        """GAUC of every round, [B], from each user's AUC (NaN: one class only) and weight, both [U]."""
        defined = np.isfinite(per_user)
        weights = self.multiplicity[:, defined] * user_weight[defined]
        with np.errstate(invalid="ignore"):
            return np.asarray(weights @ per_user[defined] / weights.sum(axis=1), dtype=np.float64)


def _weighted_auc(weights: Floats, label: Floats, below: Integers, through: Integers) -> Floats:
    """Weighted AUC of rows sorted by score; weights [b, n], `below`/`through` bound each positive's ties."""
    negatives = np.zeros((len(weights), weights.shape[1] + 1))
    np.cumsum(weights * (label <= 0), axis=1, out=negatives[:, 1:])
    positive = weights[:, label > 0]
    won = (positive * (negatives[:, below] + negatives[:, through])).sum(axis=1) / 2
    with np.errstate(invalid="ignore"):
        return np.asarray(won / (positive.sum(axis=1) * negatives[:, -1]), dtype=np.float64)


def auc(rows: Judged) -> float:
    """Weighted AUC of all rows, ties half; NaN when they hold one class only."""
    once = Resamples(codes=np.zeros(len(rows.score), np.int64), multiplicity=np.ones((1, 1), np.int64))
    return float(once.auc(rows)[0])


def user_aucs(rows: Judged, codes: Integers, users: int) -> tuple[Floats, Floats]:
    """AUC within each user (NaN: one class only) and each user's weight, both [U]."""
    order = np.lexsort((rows.score, codes))
    code, score, label, weight = codes[order], rows.score[order], rows.label[order], rows.weight[order]
    negatives = np.concatenate([[0.0], np.cumsum(weight * (label <= 0))])
    tie = np.flatnonzero(np.r_[True, (code[1:] != code[:-1]) | (score[1:] != score[:-1])])
    tie_of_row = np.repeat(np.arange(len(tie)), np.diff(np.r_[tie, len(code)]))
    tie_end = np.r_[tie[1:], len(code)]
    user_start = np.searchsorted(code, np.arange(users), side="left")
    # negatives of the same user below the row, plus half of those tied with it
    beaten = (negatives[tie[tie_of_row]] + negatives[tie_end[tie_of_row]]) / 2 - negatives[user_start[code]]
    positive = weight * (label > 0)
    won = np.bincount(code, positive * beaten, minlength=users)
    pairs = np.bincount(code, positive, minlength=users) * np.bincount(code, weight - positive, minlength=users)
    with np.errstate(invalid="ignore", divide="ignore"):
        per_user: Floats = np.where(pairs > 0, won / pairs, np.nan)
    return per_user, np.bincount(code, weight, minlength=users).astype(np.float64)


def interval(point: float, rounds: Floats, level: float) -> Interval | None:
    """Percentile interval at `level`; None when it is undefined for the point or too many rounds."""
    undefined = ~np.isfinite(rounds)
    if not np.isfinite(point) or undefined.mean() > MAX_UNDEFINED_SHARE:
        return None
    tail = (1 - level) / 2
    low, high = np.quantile(rounds[~undefined], [tail, 1 - tail])
    return Interval(low=float(low), point=float(point), high=float(high))


class Comparison(Frozen):
    """AUC and GAUC of a model, and their differences model − other on the same rows; None: undefined."""

    auc: Interval | None
    gauc: Interval | None
    other_auc: Interval | None = None
    other_gauc: Interval | None = None
    auc_difference: Interval | None = None
    gauc_difference: Interval | None = None


def compare(model: Judged, other: Judged | None, *, rounds: int, seed: int, level: float) -> Comparison:
    """Intervals of a model's AUC and GAUC, and of the differences to another model on the same rows.

    Raises:
        ValueError: if the two are not about the same rows, or there are none.
    """
    draws = Resamples.draw(model.group, rounds=rounds, seed=seed)
    users = draws.multiplicity.shape[1]
    auc_rounds, auc_point = draws.auc(model), auc(model)
    per_user, user_weight = user_aucs(model, draws.codes, users)
    gauc_rounds, gauc_point = draws.gauc(per_user, user_weight), _gauc(per_user, user_weight)
    own = Comparison(auc=interval(auc_point, auc_rounds, level), gauc=interval(gauc_point, gauc_rounds, level))
    if other is None:
        return own
    if not (np.array_equal(model.group, other.group) and np.array_equal(model.label, other.label)):
        raise ValueError("a paired comparison needs the same rows in the same order")
    other_rounds, other_point = draws.auc(other), auc(other)
    other_user, _ = user_aucs(other, draws.codes, users)
    other_gauc_rounds, other_gauc = draws.gauc(other_user, user_weight), _gauc(other_user, user_weight)
    return Comparison(
        auc=own.auc,
        gauc=own.gauc,
        other_auc=interval(other_point, other_rounds, level),
        other_gauc=interval(other_gauc, other_gauc_rounds, level),
        auc_difference=interval(auc_point - other_point, auc_rounds - other_rounds, level),
        gauc_difference=interval(gauc_point - other_gauc, gauc_rounds - other_gauc_rounds, level),
    )


def _gauc(per_user: Floats, user_weight: Floats) -> float:
    defined = np.isfinite(per_user)
    return float(np.average(per_user[defined], weights=user_weight[defined])) if defined.any() else float("nan")


class BaselineComparison(Frozen):
    """A model's AUC beside a popularity baseline's; `finding` says in a sentence which is better."""

    task: str
    model: Interval | None
    baseline: Interval | None
    difference: Interval | None
    beats: bool
    finding: str


def baseline_comparison(
    task: str, scores: Judged, heat: Judged, *, rounds: int = 200, seed: int = 0, level: float = 0.95
) -> BaselineComparison:
    """Does the model rank better than the non-model baseline (the heat of the rooms)?

    It beats the baseline's interval when the model's AUC lies above the upper end of the baseline's.
    """
    compared = compare(scores, heat, rounds=rounds, seed=seed, level=level)
    model, baseline, difference = compared.auc, compared.other_auc, compared.auc_difference
    if model is None or baseline is None or difference is None:
        positives = int((scores.label > 0).sum())
        finding = (
            f"{task}: cannot be compared with the popularity baseline: {positives:,} positives among "
            f"{len(scores.label):,} judged impressions leave the AUC undefined"
        )
        beats = False
    else:
        beats = model.point > baseline.high
        verb = "beats" if beats else "does not beat"
        finding = (
            f"{task}: AUC {model.point:.4f} {verb} the popularity baseline's interval "
            f"[{baseline.low:.4f}, {baseline.high:.4f}]; difference {difference.point:+.4f} "
            f"[{difference.low:+.4f}, {difference.high:+.4f}] on {len(scores.label):,} impressions "
            f"of {len(np.unique(scores.group)):,} users, {int((scores.label > 0).sum()):,} positives"
        )
    return BaselineComparison(
        task=task, model=model, baseline=baseline, difference=difference, beats=beats, finding=finding
    )
