"""The gate's first rules: is there evidence, has nobody seen it, are all figures numbers, is the export the model?

What is absent or undefined fails.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from training.gate_case import Case
from training.verdict import Check, Parity


def no_data(case: Case) -> Iterator[Check]:
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


def no_unseen_day(case: Case) -> Iterator[Check]:
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


def not_finite(case: Case) -> Iterator[Check]:
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


def export_parity(case: Case) -> Iterator[Check]:
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
