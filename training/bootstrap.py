"""Intervals of AUC, GAUC and whatever is a ratio of sums, by a paired bootstrap over users.

Rows of one user are not independent, so users are resampled, not rows (Efron & Tibshirani 1993, ch. 8;
the cluster bootstrap). Both models are scored on the same resamples: what they share cancels.

n: rows, U: users, B: rounds, k: sums.

1. multiplicity [B, U]: how often each user is drawn in each round (U draws with replacement).
2. AUC of a round is the weighted AUC with weight · multiplicity[user]. Rows are sorted by score once, and the place
   of each positive among the negatives is found once; a round is then one running sum over the negatives.
3. A user's own AUC, losses and probabilities do not change when whole users are drawn: they are summed per user once,
   [U, k], and all rounds are one product, multiplicity · sums. GAUC, logloss and PCOC are ratios of its columns.
4. The interval is the percentile interval of the rounds' figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from features.manifest import Frozen

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Rounds in which a class dies out have no AUC; above this share the interval would be a fiction.
MAX_UNDEFINED_SHARE = 0.05


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

    def where(self, kept: NDArray[np.bool_]) -> Judged:
        """Some of the rows."""
        picked = (self.score[kept], self.label[kept], self.weight[kept], self.group[kept])
        return Judged(score=picked[0], label=picked[1], weight=picked[2], group=picked[3])


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """A figure on all rows, and on every resample; NaN where it is undefined.

    Attributes:
        rounds: [B].
    """

    point: float
    rounds: Floats

    def __sub__(self, other: Resampled) -> Resampled:
        return Resampled(point=self.point - other.point, rounds=self.rounds - other.rounds)

    @property
    def is_defined(self) -> bool:
        """On all rows, and on all but MAX_UNDEFINED_SHARE of the rounds."""
        return bool(np.isfinite(self.point) and np.isfinite(self.rounds).mean() >= 1 - MAX_UNDEFINED_SHARE)

    def interval(self, level: float) -> Interval | None:
        """Percentile interval; None when the figure is undefined."""
        return interval(self.point, self.rounds, level)

    def standard_error(self) -> float | None:
        """Standard deviation over the rounds; None when the figure is undefined."""
        return float(np.std(self.rounds[np.isfinite(self.rounds)])) if self.is_defined else None


class Drawn:
    """Rows whose weights follow from how often their user is drawn; the buffers are used again in each round.

    `sums` is the type of their sums: integers where every weight is 1, which are added ten times as fast.
    """

    def __init__(self, codes: Integers, weight: Floats) -> None:
        self.codes, self._own = codes, None if (weight == 1).all() else weight
        self.sums: Any = np.int64 if self._own is None else np.float64
        self._drawn = np.empty(len(codes), np.uint16)
        self._weights = np.empty(len(codes) if self._own is not None else 0)

    def weights(self, drawn: NDArray[np.uint16]) -> NDArray[Any]:
        """[U] multiplicities → [n] weights, valid until the next call."""
        drawn.take(self.codes, out=self._drawn, mode="clip")  # "raise" would copy; codes are places by construction
        return self._drawn if self._own is None else np.multiply(self._drawn, self._own, out=self._weights)


@dataclass(frozen=True, kw_only=True)
class Resamples:
    """Users drawn with replacement: `codes` [n] is each row's user, `multiplicity` [B, U] the draws."""

    codes: Integers
    multiplicity: NDArray[np.uint16]

    @classmethod
    def draw(cls, group: Integers, *, rounds: int, seed: int) -> Self:
        """Draw as many users as there are, `rounds` times; a function of (users, rounds, seed) only."""
        users, codes = np.unique(group, return_inverse=True)
        if len(users) == 0:
            raise ValueError("no users to resample")
        rng = np.random.default_rng(seed)
        drawn = np.empty((rounds, len(users)), np.uint16)
        for place in range(rounds):
            drawn[place] = np.bincount(rng.integers(0, len(users), len(users)), minlength=len(users))
        return cls(codes=codes.astype(np.int64), multiplicity=drawn)

    def of(self, kept: NDArray[np.bool_]) -> Resamples:
        """The same draws on some of the rows: users without such a row weigh nothing."""
        return Resamples(codes=self.codes[kept], multiplicity=self.multiplicity)

    def auc(self, rows: Judged) -> Floats:
        """AUC of every round, [B]; NaN where a round holds one class only."""
        order = np.argsort(rows.score, kind="stable")
        score, positive = rows.score[order], rows.label[order] > 0
        codes, weight = self.codes[order], rows.weight[order]
        below, through = (np.searchsorted(score[~positive], score[positive], side) for side in ("left", "right"))
        won = Drawn(codes[positive], weight[positive])
        lost = Drawn(codes[~positive], weight[~positive])
        running: NDArray[Any] = np.zeros(len(lost.codes) + 1, lost.sums)  # weight of the negatives before each place
        figures = np.empty(len(self.multiplicity))
        for place, drawn in enumerate(self.multiplicity):
            np.cumsum(lost.weights(drawn), dtype=lost.sums, out=running[1:])
            own = won.weights(drawn)
            pairs = own.sum(dtype=np.float64) * running[-1]
            beaten = running.take(below)
            beaten += running.take(through)
            figures[place] = np.einsum("p,p->", own, beaten, dtype=lost.sums) / 2 / pairs if pairs > 0 else np.nan
        return figures

    def totals(self, sums: Floats) -> Floats:
        """Sums of every round, [B, k], from sums per user, [U, k]."""
        used = np.flatnonzero(sums.any(axis=1))
        columns = np.ascontiguousarray(sums[used].T)  # one thread is enough: einsum, and not a product by BLAS
        everyone = len(used) == self.multiplicity.shape[1]
        found = np.empty((len(self.multiplicity), sums.shape[1]))
        for place, drawn in enumerate(self.multiplicity):
            weights = (drawn if everyone else drawn.take(used)).astype(np.float64)
            np.einsum("ku,u->k", columns, weights, out=found[place])
        return found

    def per_user(self, *columns: Floats) -> Floats:
        """Columns [n] summed by user, [U, k]."""
        users = self.multiplicity.shape[1]
        return np.stack([np.bincount(self.codes, column, minlength=users) for column in columns], axis=1)

    def gauc(self, per_user: Floats, user_weight: Floats) -> Floats:
        """GAUC of every round, [B], from each user's AUC (NaN: one class only) and weight, both [U]."""
        weights = np.where(np.isfinite(per_user), user_weight, 0.0)
        sums = self.totals(np.stack([weights * np.nan_to_num(per_user), weights], axis=1))
        with np.errstate(invalid="ignore"):
            return np.asarray(sums[:, 0] / sums[:, 1], dtype=np.float64)


def auc(rows: Judged) -> float:
    """Weighted AUC of all rows, ties half; NaN when they hold one class only."""
    once = Resamples(codes=np.zeros(len(rows.score), np.int64), multiplicity=np.ones((1, 1), np.uint16))
    return float(once.auc(rows)[0])


def resampled_auc(draws: Resamples, rows: Judged) -> Resampled:
    """AUC of all rows and of every round."""
    return Resampled(point=auc(rows), rounds=draws.auc(rows))


def resampled_gauc(draws: Resamples, rows: Judged) -> Resampled:
    """GAUC of all rows and of every round."""
    per_user, weight = user_aucs(rows, draws.codes, draws.multiplicity.shape[1])
    return Resampled(point=_gauc(per_user, weight), rounds=draws.gauc(per_user, weight))


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
    own, own_gauc = resampled_auc(draws, model), resampled_gauc(draws, model)
    alone = Comparison(auc=own.interval(level), gauc=own_gauc.interval(level))
    if other is None:
        return alone
    require_same_rows(model, other)
    its, its_gauc = resampled_auc(draws, other), resampled_gauc(draws, other)
    return Comparison(
        auc=alone.auc,
        gauc=alone.gauc,
        other_auc=its.interval(level),
        other_gauc=its_gauc.interval(level),
        auc_difference=(own - its).interval(level),
        gauc_difference=(own_gauc - its_gauc).interval(level),
    )


def require_same_rows(model: Judged, other: Judged) -> None:
    """Raises ValueError unless both are about the same rows in the same order."""
    if not (np.array_equal(model.group, other.group) and np.array_equal(model.label, other.label)):
        raise ValueError("a paired comparison needs the same rows in the same order")


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
