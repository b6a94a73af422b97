"""The gate's rules: each looks at the figures of a case and answers with checks, passed and failed alike.

What is absent or undefined fails. Rules are asked in the order of `RULES`; docs/gate.md explains them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.bootstrap import Interval
from training.gate_conf import Bound, GateConf
from training.segments import Segments
from training.verdict import Check, Days, Parity, SegmentVerdict, TaskVerdict

Floats = NDArray[np.float64]

AUDIT = "labels may have leaked into its features: run `limelight audit`; if the gain is real, raise"


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


def _end(interval: Interval | None, bound: Bound, *, more_is_better: bool) -> float | None:
    """The end of an interval that `bound` reads; None when there is no interval."""
    if interval is None:
        return None
    turned: dict[Bound, Bound] = {"low": "high", "point": "point", "high": "low"}
    return float(getattr(interval, bound if more_is_better else turned[bound]))


def _within(interval: Interval) -> str:
    return f"{interval.point:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def _no_data(case: Case) -> Iterator[Check]:
    """Are there rows, and enough of both classes, for every task that is judged?"""
    judged = {task.task for task in case.tasks}
    main = case.conf.main_task
    why = case.evidence.left_out.get(main, "the candidate does not score it, or it has no labels")
    reason = None if main in judged else f"the main task {main} is not judged: {why}"
    yield Check(rule="no_data", task=main, figure="judged", seen=None, limit="the main task must be", reason=reason)
    for name in sorted(case.candidate.scores.keys() - judged - case.evidence.left_out.keys()):
        reason = f"{name}: scored by the candidate, but the gate day has no labels of it"
        yield Check(rule="no_data", task=name, figure="labels", seen=None, limit="must be there", reason=reason)
    for task in case.tasks:
        rules = case.conf.rules(task.task)
        for what, seen, floor in (
            ("rows", task.rows, rules.min_rows),
            ("positives", task.positives, rules.min_positives),
            ("negatives", task.negatives, rules.min_negatives),
        ):
            reason = f"{task.task}: {seen:,} {what} on {case.evidence.day}, at least {floor:,} are needed"
            yield Check(
                rule="no_data",
                task=task.task,
                figure=what,
                seen=seen,
                limit=f"≥ {floor:,}",
                reason=None if seen >= floor else reason,
            )


def _no_unseen_day(case: Case) -> Iterator[Check]:
    """Train days < validation day < gate day, and nobody has seen the gate day."""
    days, day = case.candidate.days, case.evidence.day

    def check(figure: str, limit: str, reason: str | None) -> Check:
        return Check(rule="no_unseen_day", figure=figure, seen=None, limit=limit, reason=reason)

    if not days.train:
        yield check("train days", "must be named", "the candidate names no train days")
        return
    mixed = bool(days.valid) and max(days.train) >= min(days.valid)
    reason = f"train day {max(days.train)} is not before validation day {min(days.valid)}" if mixed else None
    yield check(f"last train day {max(days.train)}", "before validation", reason)
    for who, model in (("candidate", case.candidate), ("champion", case.champion)):
        if model is not None:
            until = model.days.seen_until
            reason = f"no verdict: the {who} {model.name} has seen {until}, the gate day is {day}"
            yield check(f"{who} has seen until {until}", f"before {day}", reason if until >= day else None)


def _not_finite(case: Case) -> Iterator[Check]:
    """Every score and every figure that a later rule reads must be a number."""
    for who, model in (("candidate", case.candidate), ("champion", case.champion)):
        for name, score in (model.scores if model else {}).items():
            bad = int((~np.isfinite(score)).sum())
            reason = f"{name}: {bad:,} of {len(score):,} scores of the {who} are not finite" if bad else None
            figure = f"scores of the {who} that are not finite"
            yield Check(rule="not_finite", task=name, figure=figure, seen=bad, limit="0", reason=reason)
    for task in case.tasks:
        undefined = [figure for figure, value in task.candidate.model_dump().items() if value is None]
        undefined += ["auc_interval"] if task.auc_interval is None else []
        if task.champion is not None:
            undefined += [name for name in COMPARING if getattr(task, name) is None]
        reason = f"{task.task}: undefined on the gate day: {', '.join(undefined)}" if undefined else None
        yield Check(
            rule="not_finite",
            task=task.task,
            figure="undefined figures",
            seen=len(undefined),
            limit="0",
            reason=reason,
        )


COMPARING = (
    "auc_difference",
    "gauc_difference",
    "logloss_rise",
    "calibration_loss",
    "score_psi",
    "detectable_drop",
)
"""What a task's verdict must hold when there is a champion."""


def _parity(case: Case) -> Iterator[Check]:
    """The exported graph must give what was trained."""
    parity, conf = case.evidence.parity, case.conf

    def check(figure: str, seen: float | None, limit: str, reason: str | None) -> Check:
        return Check(rule="parity", figure=figure, seen=seen, limit=limit, reason=reason)

    if parity is None:
        yield check("rows", None, "must be compared", "the exported graph was not compared with the trained model")
        return
    wanted = min(conf.min_parity_rows, len(case.evidence.group))
    enough = parity.rows >= wanted and parity.single_row_batches >= 1
    reason = f"parity was checked on {parity.rows:,} rows, {wanted:,} are needed, and at least one batch of 1"
    yield check("rows compared", parity.rows, f"≥ {wanted:,}", None if enough else reason)
    unlike = parity.differing_columns
    yield check("columns encoded unlike the train set's", len(unlike), "0", None if not unlike else _encoded(parity))
    for what, seen, limit in (
        ("logits", parity.logit_difference, conf.max_logit_difference),
        ("probabilities", parity.probability_difference, conf.max_probability_difference),
    ):
        reason = f"exported {what} differ by up to {seen:.3g}, at most {limit:.3g} is allowed"
        # NaN must stop too
        yield check(
            f"difference of {what}",
            seen if math.isfinite(seen) else None,
            f"≤ {limit:.3g}",
            None if seen <= limit else reason,
        )


def _encoded(parity: Parity) -> str:
    columns = ", ".join(f"{name} in {rows:,}" for name, rows in parity.differing_columns.items())
    return f"the published folder encodes columns unlike the train set, of {parity.rows:,} rows: {columns}"


def _floors(case: Case) -> Iterator[Check]:
    """Absolute floors, whatever the champion does."""
    for task in case.tasks:
        rules, auc, pcoc = case.conf.rules(task.task), task.candidate.auc, task.candidate.pcoc
        reached = _end(task.auc_interval, rules.floor_bound, more_is_better=True)
        if auc is not None and reached is not None:
            of = "" if rules.floor_bound == "point" else f" ({rules.floor_bound} end of its interval: {reached:.4f})"
            reason = f"{task.task}: AUC {auc:.4f}{of} is below the floor {rules.min_auc:.4f}"
            yield Check(
                rule="floors",
                task=task.task,
                figure=f"AUC, {rules.floor_bound}",
                seen=reached,
                limit=f"≥ {rules.min_auc:.4f}",
                reason=None if reached >= rules.min_auc else reason,
            )
        if pcoc is not None:
            reason = f"{task.task}: PCOC {pcoc:.3f} is outside [{rules.min_pcoc:g}, {rules.max_pcoc:g}]"
            yield Check(
                rule="floors",
                task=task.task,
                figure="PCOC",
                seen=pcoc,
                limit=f"{rules.min_pcoc:g} to {rules.max_pcoc:g}",
                reason=None if rules.min_pcoc <= pcoc <= rules.max_pcoc else reason,
            )


def _leakage_suspected(case: Case) -> Iterator[Check]:
    """A model that is too good has probably been told the answers."""
    for task in case.tasks:
        rules, name = case.conf.rules(task.task), "main" if task.task == case.conf.main_task else "others"
        for figure, interval, bound, limit, key in (
            ("AUC", task.auc_interval, rules.floor_bound, rules.max_auc, "max_auc"),
            ("AUC − champion's", task.auc_difference, rules.bound, rules.max_auc_gain, "max_auc_gain"),
        ):
            seen = _end(interval, bound, more_is_better=False)
            if interval is None or seen is None:
                continue  # undefined: `not_finite` has stopped it; or no champion
            reason = (
                f"{task.task}: {figure} is {_within(interval)}, more than {limit:.4f} is not believed: "
                f"{AUDIT} gate.{name}.{key}"
            )
            yield Check(
                rule="leakage_suspected",
                task=task.task,
                figure=figure,
                seen=seen,
                limit=f"≤ {limit:.4f}",
                reason=None if seen <= limit else reason,
            )


def _evidence(case: Case) -> Iterator[Check]:
    """Could this day have told a harmful candidate from a harmless one?"""
    for task in case.tasks:
        if task.detectable_drop is not None:
            limit = case.conf.rules(task.task).detectable_auc_drop
            reason = (
                f"{task.task}: a drop of AUC below {task.detectable_drop:.4f} would pass unseen on these {task.rows:,} "
                f"rows, {limit:.4f} must be told with 90 % power: judge on more rows"
            )
            yield Check(
                rule="evidence",
                task=task.task,
                figure="detectable drop of AUC",
                seen=task.detectable_drop,
                limit=f"≤ {limit:.4f}",
                reason=None if task.detectable_drop <= limit else reason,
            )


def _calibration(case: Case) -> Iterator[Check]:
    """No task may be further from PCOC 1 than the champion, by more than its rules allow."""
    for task in case.tasks:
        rules = case.conf.rules(task.task)
        seen = _end(task.calibration_loss, rules.floor_bound, more_is_better=False)
        if seen is None or task.champion is None:
            continue
        pcocs = [figures.pcoc or math.nan for figures in (task.candidate, task.champion)]
        reason = (
            f"{task.task}: PCOC {pcocs[0]:.3f}, the champion's is {pcocs[1]:.3f}: |ln PCOC| grew by {seen:.3f}, "
            f"at most {rules.max_calibration_loss:g} is allowed"
        )
        yield Check(
            rule="calibration",
            task=task.task,
            figure="growth of |ln PCOC|",
            seen=seen,
            limit=f"≤ {rules.max_calibration_loss:g}",
            reason=None if seen <= rules.max_calibration_loss else reason,
        )


def _champion_comparison(case: Case) -> Iterator[Check]:
    """No task may fall behind the champion by more than its rules allow."""
    for task in case.tasks:
        rules = case.conf.rules(task.task)
        for what, interval, drop in (
            ("AUC", task.auc_difference, rules.max_auc_drop),
            ("GAUC", task.gauc_difference, rules.max_gauc_drop),
        ):
            if interval is not None:
                end = getattr(interval, rules.bound)
                reason = (
                    f"{task.task}: {what} differs from the champion's by {_within(interval)}; "
                    f"its {rules.bound} must not be below {-drop:.4f}"
                )
                yield _compared(task.task, f"{what} − champion's, {rules.bound}", end, -drop, reason, floor=True)
        rise = _end(task.logloss_rise, rules.bound, more_is_better=False)
        if task.logloss_rise is not None and rise is not None:
            shown = _within(task.logloss_rise)
            reason = (
                f"{task.task}: logloss against the champion's rose by {shown} of it, {rules.max_logloss_rise:g} may"
            )
            yield _compared(
                task.task, "rise of logloss ÷ champion's", rise, rules.max_logloss_rise, reason, floor=False
            )


def _compared(task: str, figure: str, seen: float, limit: float, reason: str, *, floor: bool) -> Check:
    passed = seen >= limit if floor else seen <= limit
    shown = f"{'≥' if floor else '≤'} {limit:.4f}"
    return Check(
        rule="champion_comparison",
        task=task,
        figure=figure,
        seen=seen,
        limit=shown,
        reason=None if passed else reason,
    )


def _score_shift(case: Case) -> Iterator[Check]:
    """Scores must lie about where the champion's lie: what reads them downstream was tuned on those."""
    for task in case.tasks:
        if task.score_psi is not None:
            limit = case.conf.rules(task.task).max_score_psi
            reason = f"{task.task}: PSI of the scores against the champion's is {task.score_psi:.3f}, {limit:g} may be"
            yield Check(
                rule="score_shift",
                task=task.task,
                figure="PSI of scores",
                seen=task.score_psi,
                limit=f"≤ {limit:g}",
                reason=None if task.score_psi <= limit else reason,
            )


def _segments(case: Case) -> Iterator[Check]:
    """No part of the day may be broken behind a good average."""
    for name, why in case.evidence.segments.absent.items():
        reason = f"segment {name}: {why}; conf gate.segments asks for it"
        yield Check(rule="segments", segment=name, figure="rows", seen=None, limit="must be known", reason=reason)
    for segment in case.segments:
        if segment.not_judged is None:
            yield from _segment(segment, case.conf)


def _segment(segment: SegmentVerdict, conf: GateConf) -> Iterator[Check]:
    where = f"{segment.task}, {segment.segment}"
    for figure, interval, limit, more_is_better in (
        ("AUC − champion's", segment.auc_difference, -conf.segments.max_auc_drop, True),
        ("growth of |ln PCOC|", segment.calibration_loss, conf.segments.max_calibration_loss, False),
    ):
        seen = _end(interval, "high", more_is_better=more_is_better)
        if interval is None or seen is None:
            passed, reason = False, f"{where}: {figure} is undefined on {segment.rows:,} rows"
        else:
            passed = seen >= limit if more_is_better else seen <= limit
            reason = f"{where}: {figure} is {_within(interval)}, all of it beyond {limit:g}"
        yield Check(
            rule="segments",
            task=segment.task,
            segment=segment.segment,
            figure=figure,
            seen=seen,
            limit=f"{'≥' if more_is_better else '≤'} {limit:g}",
            reason=None if passed else reason,
        )


RULES: tuple[Callable[[Case], Iterator[Check]], ...] = (
    _no_data,
    _no_unseen_day,
    _not_finite,
    _parity,
    _floors,
    _leakage_suspected,
    _calibration,
    _champion_comparison,
    _score_shift,
    _segments,
    _evidence,
)
