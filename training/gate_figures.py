"""What candidate and champion are worth on the gate day: per task, and per task and segment, on the same resamples.

Steps:
1. users of the whole gate day are drawn once; every task and segment looks at its own rows of the same draws
2. per task: figures of both models, and what compares them, with percentile intervals
3. per task and segment: the same figures; those with enough rows are judged
4. judged segments are many, so their intervals are wider: normal intervals at 1 − (1 − level) / comparisons, which is
   Bonferroni's bound (Dunn 1961). Then with probability `level` no honest segment at all lies beyond its interval.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from training.bootstrap import Interval, Judged, Resampled, Resamples, resampled_auc, resampled_gauc
from training.gate_conf import GateConf, SegmentRules, TaskRules
from training.score_shift import score_psi
from training.segments import Segments
from training.verdict import Figures, SegmentVerdict, TaskVerdict

Floats = NDArray[np.float64]

POWER = 0.9
COMPARISONS_PER_SEGMENT = 2  # AUC, calibration
_TINY = 1e-7  # a probability of 0 or 1 has no logarithm


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A model on some rows of one task."""

    auc: Resampled
    gauc: Resampled
    logloss: Resampled
    pcoc: Resampled

    @classmethod
    def of(cls, rows: Judged, draws: Resamples) -> Measured:
        """Args: the judged rows, [n], and the draws of their users."""
        p = np.clip(rows.score, _TINY, 1 - _TINY)
        loss = -rows.weight * (rows.label * np.log(p) + (1 - rows.label) * np.log1p(-p))
        sums = draws.per_user(rows.weight, rows.weight * rows.label, rows.weight * rows.score, loss)
        return cls(
            auc=resampled_auc(draws, rows),
            gauc=resampled_gauc(draws, rows),
            logloss=_ratio(draws, sums[:, [3, 0]]),
            pcoc=_ratio(draws, sums[:, [2, 1]]),
        )

    def figures(self) -> Figures:
        """On all rows; None where undefined."""
        points = (self.auc, self.gauc, self.logloss, self.pcoc)
        auc, gauc, logloss, pcoc = (one.point if np.isfinite(one.point) else None for one in points)
        return Figures(auc=auc, gauc=gauc, logloss=logloss, pcoc=pcoc)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Candidate against champion on the same rows and draws; see TaskVerdict for what each is."""

    auc_difference: Resampled
    gauc_difference: Resampled
    logloss_rise: Resampled
    calibration_loss: Resampled

    @classmethod
    def of(cls, candidate: Measured, champion: Measured) -> Compared:
        """Differences of AUC and GAUC, the relative rise of logloss, the growth of |ln PCOC|."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return cls(
                auc_difference=candidate.auc - champion.auc,
                gauc_difference=candidate.gauc - champion.gauc,
                logloss_rise=Resampled(
                    point=float(np.divide(candidate.logloss.point, champion.logloss.point)) - 1,
                    rounds=candidate.logloss.rounds / champion.logloss.rounds - 1,
                ),
                calibration_loss=_off(candidate.pcoc) - _off(champion.pcoc),
            )


def _ratio(draws: Resamples, sums: Floats) -> Resampled:
    """First column over second, of all rows and of each round."""
    with np.errstate(invalid="ignore", divide="ignore"):
        above, below = sums.sum(axis=0)
        totals = draws.totals(sums)
        return Resampled(point=float(np.divide(above, below)), rounds=totals[:, 0] / totals[:, 1])


def _off(pcoc: Resampled) -> Resampled:
    """|ln PCOC|: 0 is calibrated, and twice too much is as far off as half."""
    return Resampled(point=abs(float(np.log(pcoc.point))), rounds=np.abs(np.log(pcoc.rounds)))


@dataclass(frozen=True, kw_only=True)
class TaskRows:
    """Judged rows of one task.

    Attributes:
        kept: [rows of the gate day], which of them these are.
        champion: None when there is none, or it does not score the task.
    """

    task: str
    kept: NDArray[np.bool_]
    draws: Resamples
    candidate: Judged
    champion: Judged | None

    @property
    def has_order(self) -> bool:
        """Whether figures can be computed: rows, and scores that are numbers. An order of NaN means nothing."""
        scores = [rows.score for rows in (self.candidate, self.champion) if rows is not None]
        return len(self.candidate.label) > 0 and all(bool(np.isfinite(score).all()) for score in scores)

    def where(self, rows: NDArray[np.bool_]) -> TaskRows:
        """Those of some rows of the gate day."""
        among = rows[self.kept]
        champion = self.champion.where(among) if self.champion is not None else None
        return TaskRows(
            task=self.task,
            kept=self.kept & rows,
            draws=self.draws.of(among),
            candidate=self.candidate.where(among),
            champion=champion,
        )

    def counts(self) -> dict[str, int]:
        """rows, positives, negatives, users."""
        positive = self.candidate.label > 0
        return {
            "rows": len(positive),
            "positives": int(positive.sum()),
            "negatives": int((~positive).sum()),
            "users": len(np.unique(self.candidate.group)),
        }


_UNDEFINED = Figures(auc=None, gauc=None, logloss=None, pcoc=None)


def task_verdict(rows: TaskRows, conf: GateConf) -> TaskVerdict:
    """Figures and intervals of one task; None where they are undefined."""
    nothing = TaskVerdict(
        task=rows.task,
        **rows.counts(),
        candidate=_UNDEFINED,
        champion=None if rows.champion is None else _UNDEFINED,
        auc_interval=None,
        gauc_interval=None,
    )
    if not rows.has_order:
        return nothing
    own = Measured.of(rows.candidate, rows.draws)
    found = nothing.model_copy(
        update={
            "candidate": own.figures(),
            "auc_interval": own.auc.interval(conf.level),
            "gauc_interval": own.gauc.interval(conf.level),
        }
    )
    if rows.champion is None:
        return found
    its = Measured.of(rows.champion, rows.draws)
    compared = Compared.of(own, its)
    return found.model_copy(
        update={
            "champion": its.figures(),
            **{name: getattr(compared, name).interval(conf.level) for name in Compared.__dataclass_fields__},
            "score_psi": score_psi(rows.candidate.score, rows.champion.score),
            "detectable_drop": detectable_drop(compared.auc_difference, conf.rules(rows.task), conf.level),
        }
    )


def detectable_drop(difference: Resampled, rules: TaskRules, level: float) -> float | None:
    """The smallest true drop of AUC that `max_auc_drop` and `bound` would stop with probability POWER.

    With standard error s, the rule's end of the interval lies z · s from the figure (above it for "high"), so that
    a true drop of d is stopped when d − max_auc_drop − z · s exceeds s · the POWER quantile of the normal distribution.
    """
    error, normal = difference.standard_error(), NormalDist()
    if error is None:
        return None
    end = {"low": -1, "point": 0, "high": 1}[rules.bound] * normal.inv_cdf((1 + level) / 2)
    return max(0.0, rules.max_auc_drop + (end + normal.inv_cdf(POWER)) * error)


def segment_verdicts(tasks: list[TaskRows], segments: Segments, rules: SegmentRules) -> tuple[SegmentVerdict, ...]:
    """Every segment on every task; intervals hold together over all that are judged."""
    parts = [
        (name, task.where(rows)) for task in tasks if task.has_order for name, rows in segments.rows.items()
    ]  # fmt: skip
    measured = [(name, rows, _too_small(rows, rules)) for name, rows in parts]
    judged = sum(why is None for _, _, why in measured)
    confidence = 1 - (1 - rules.level) / (COMPARISONS_PER_SEGMENT * max(judged, 1))
    return tuple(_segment(name, rows, why, confidence) for name, rows, why in measured)


def _too_small(rows: TaskRows, rules: SegmentRules) -> str | None:
    """Why a segment is not judged; None when it is."""
    if rows.champion is None:
        return "no champion"
    counts = rows.counts()
    few = [f"{seen:,} {what} of {floor:,}" for what, seen, floor in _floors(counts, rules) if seen < floor]
    return ", ".join(few) if few else None


def _floors(counts: dict[str, int], rules: SegmentRules) -> Iterator[tuple[str, int, int]]:
    for what in ("rows", "users", "positives", "negatives"):
        yield what, counts[what], getattr(rules, f"min_{what}")


def _segment(name: str, rows: TaskRows, why: str | None, confidence: float) -> SegmentVerdict:
    own = Measured.of(rows.candidate, rows.draws) if len(rows.candidate.label) else None
    its = Measured.of(rows.champion, rows.draws) if own is not None and rows.champion is not None else None
    compared = Compared.of(own, its) if own is not None and its is not None else None
    return SegmentVerdict(
        segment=name,
        task=rows.task,
        **rows.counts(),
        candidate=own.figures() if own is not None else _UNDEFINED,
        champion=its.figures() if its is not None else None,
        auc_difference=_normal(compared.auc_difference, confidence) if compared else None,
        gauc_difference=_normal(compared.gauc_difference, confidence) if compared else None,
        calibration_loss=_normal(compared.calibration_loss, confidence) if compared else None,
        not_judged=why,
    )


def _normal(figure: Resampled, confidence: float) -> Interval | None:
    """Point ± z standard errors, so that beyond either end lies 1 − confidence; None when undefined.

    A percentile interval so far out would need thousands of rounds.
    """
    error = figure.standard_error()
    if error is None:
        return None
    reach = NormalDist().inv_cdf(confidence) * error
    return Interval(low=figure.point - reach, point=figure.point, high=figure.point + reach)
