"""The gate's rules: each looks at the figures of a case and answers with checks, passed and failed alike.

The first four are in `training.gate_integrity`; here are those about how good the candidate is. Rules are asked in the
order of `RULES`; docs/gate.md explains them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from training.bootstrap import Interval
from training.gate_case import Case
from training.gate_conf import Bound, GateConf
from training.gate_integrity import export_parity, no_data, no_unseen_day, not_finite
from training.verdict import Check, Rule, SegmentVerdict

AUDIT = "labels may have leaked into its features: run `limelight audit`; if the gain is real, raise"


def _end(interval: Interval | None, bound: Bound, *, more_is_better: bool) -> float | None:
    """The end of an interval that `bound` reads; None when there is no interval."""
    if interval is None:
        return None
    turned: dict[Bound, Bound] = {"low": "high", "point": "point", "high": "low"}
    return float(getattr(interval, bound if more_is_better else turned[bound]))


def _within(interval: Interval) -> str:
    return f"{interval.point:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def _floors(case: Case) -> Iterator[Check]:
    """Absolute floors, whatever the champion does."""
    for task in case.tasks:
        rules, auc, pcoc = case.conf.rules(task.task), task.candidate.auc, task.candidate.pcoc
        reached = _end(task.auc_interval, rules.floor_bound, more_is_better=True)
        if auc is not None and reached is not None:
            of = "" if rules.floor_bound == "point" else f" ({rules.floor_bound} end of its interval: {reached:.4f})"
            reason = f"{task.task}: AUC {auc:.4f}{of} is below the floor {rules.min_auc:.4f}"
            figure = f"AUC, {rules.floor_bound}"
            yield _limited("floors", task.task, figure, reached, rules.min_auc, reason, floor=True)
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
            yield _limited("leakage_suspected", task.task, figure, seen, limit, reason)


def _evidence(case: Case) -> Iterator[Check]:
    """Could this day have told a harmful candidate from a harmless one?"""
    for task in case.tasks:
        if task.detectable_drop is not None:
            limit = case.conf.rules(task.task).detectable_auc_drop
            reason = (
                f"{task.task}: a drop of AUC below {task.detectable_drop:.4f} would pass unseen on these {task.rows:,} "
                f"rows, {limit:.4f} must be told with 90 % power: judge on more rows"
            )
            yield _limited("evidence", task.task, "detectable drop of AUC", task.detectable_drop, limit, reason)


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
        limit = rules.max_calibration_loss
        yield _limited("calibration", task.task, "growth of |ln PCOC|", seen, limit, reason, form="g")


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
                figure = f"{what} − champion's, {rules.bound}"
                yield _limited("champion_comparison", task.task, figure, end, -drop, reason, floor=True)
        rise = _end(task.logloss_rise, rules.bound, more_is_better=False)
        if task.logloss_rise is not None and rise is not None:
            shown = _within(task.logloss_rise)
            reason = (
                f"{task.task}: logloss against the champion's rose by {shown} of it, {rules.max_logloss_rise:g} may"
            )
            figure = "rise of logloss ÷ champion's"
            yield _limited("champion_comparison", task.task, figure, rise, rules.max_logloss_rise, reason)


def _score_shift(case: Case) -> Iterator[Check]:
    """Scores must lie about where the champion's lie: what reads them downstream was tuned on those."""
    for task in case.tasks:
        if task.score_psi is not None:
            limit = case.conf.rules(task.task).max_score_psi
            reason = f"{task.task}: PSI of the scores against the champion's is {task.score_psi:.3f}, {limit:g} may be"
            yield _limited("score_shift", task.task, "PSI of scores", task.score_psi, limit, reason, form="g")


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
        reason = f"{where}: {figure} is undefined on {segment.rows:,} rows"
        if interval is not None and seen is not None:
            reason = f"{where}: {figure} is {_within(interval)}, all of it beyond {limit:g}"
        check = _limited("segments", segment.task, figure, seen, limit, reason, floor=more_is_better, form="g")
        yield check.model_copy(update={"segment": segment.segment})


def _limited(
    rule: Rule,
    task: str,
    figure: str,
    seen: float | None,
    limit: float,
    reason: str,
    *,
    floor: bool = False,
    form: str = ".4f",
) -> Check:
    """A figure against its limit, a ceiling or a floor; `reason` is told where it fails, as an undefined one does."""
    passed = seen is not None and (seen >= limit if floor else seen <= limit)
    shown = f"{'≥' if floor else '≤'} {limit:{form}}"
    return Check(rule=rule, task=task, figure=figure, seen=seen, limit=shown, reason=None if passed else reason)


RULES: tuple[Callable[[Case], Iterator[Check]], ...] = (
    no_data,
    no_unseen_day,
    not_finite,
    export_parity,
    _floors,
    _leakage_suspected,
    _calibration,
    _champion_comparison,
    _score_shift,
    _segments,
    _evidence,
)
