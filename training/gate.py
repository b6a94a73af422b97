"""The gate: may a candidate become champion? It fails closed: what is absent or undefined stops.

Pure on arrays and conf: no reads, no clock. The rules are asked in the order of `RULES`; the verdict
names the first one that stops, and gives every reason of every rule. docs/gate.md explains them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.bootstrap import Comparison, Interval, Judged, compare
from training.verdict import Days, Figures, GateConf, Parity, Rule, TaskVerdict, Verdict

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
        left_out: task → why it is not judged.
        parity: None when it was not checked, which stops.
    """

    model: str
    day: str
    labels: Mapping[str, Floats]
    weights: Mapping[str, Floats]
    group: NDArray[np.int64]
    left_out: Mapping[str, str]
    parity: Parity | None


@dataclass(frozen=True, kw_only=True)
class _Case:
    """All that a rule may look at."""

    candidate: Scored
    champion: Scored | None
    evidence: Evidence
    conf: GateConf
    tasks: tuple[TaskVerdict, ...]


def judge(candidate: Scored, champion: Scored | None, evidence: Evidence, conf: GateConf | None) -> Verdict:
    """Compare a candidate with the champion on a day that neither has seen.

    Args:
        candidate, champion: scores on the evidence's rows; champion None means there is none yet.
        evidence: the gate day.
        conf: thresholds; None stops by the rule `no_thresholds`.

    Returns:
        The verdict. It passes by `champion_comparison`, or by `first_model` when there is no champion.

    Raises:
        ValueError: if scores, labels, weights and groups differ in length.
    """
    tasks = tuple(_judge_tasks(candidate, champion, evidence, conf)) if conf is not None else ()
    stopped: list[tuple[Rule, str]] = []
    if conf is None:
        stopped.append(("no_thresholds", f"no gate thresholds are configured for {evidence.model}"))
    else:
        case = _Case(candidate=candidate, champion=champion, evidence=evidence, conf=conf, tasks=tasks)
        stopped = [(rule, reason) for rule, check in RULES for reason in check(case)]
    rule, reasons = (stopped[0][0], tuple(reason for _, reason in stopped)) if stopped else _passed(champion, tasks)
    return Verdict(
        model=evidence.model,
        verdict="stop" if stopped else "pass",
        rule=rule,
        reasons=reasons,
        candidate=candidate.name,
        champion=champion.name if champion else None,
        day=evidence.day,
        candidate_days=candidate.days,
        champion_days=champion.days if champion else None,
        rows=len(evidence.group),
        tasks=tasks,
        left_out=dict(evidence.left_out),
        parity=evidence.parity,
        conf=conf,
    )


def _passed(champion: Scored | None, tasks: tuple[TaskVerdict, ...]) -> tuple[Rule, tuple[str, ...]]:
    judged = ", ".join(task.task for task in tasks)
    if champion is None:
        return "first_model", (f"there is no champion to compare with; every floor is met on {judged}",)
    return "champion_comparison", (
        f"every floor is met, and no task falls behind {champion.name} beyond its rules: {judged}",
    )


def _judge_tasks(
    candidate: Scored, champion: Scored | None, evidence: Evidence, conf: GateConf
) -> Iterator[TaskVerdict]:
    for task, score in candidate.scores.items():
        if task in evidence.left_out or task not in evidence.labels:
            continue
        truth = evidence.labels[task], evidence.weights[task], evidence.group
        rows = Judged.of(score, *truth)
        against = champion.scores.get(task) if champion else None
        other = Judged.of(against, *truth) if against is not None else None
        compared = _compare(rows, other, conf)
        yield TaskVerdict(
            task=task,
            rows=len(rows.label),
            positives=int((rows.label > 0).sum()),
            negatives=int((rows.label <= 0).sum()),
            users=len(np.unique(rows.group)),
            candidate=_figures(rows, compared.auc, compared.gauc),
            champion=_figures(other, compared.other_auc, compared.other_gauc) if other is not None else None,
            auc_interval=compared.auc,
            gauc_interval=compared.gauc,
            auc_difference=compared.auc_difference,
            gauc_difference=compared.gauc_difference,
        )


def _compare(rows: Judged, other: Judged | None, conf: GateConf) -> Comparison:
    finite = np.isfinite(rows.score).all() and (other is None or np.isfinite(other.score).all())
    if not finite or len(rows.label) == 0:  # an order of NaN means nothing: no figure, so the rules stop
        return Comparison(auc=None, gauc=None)
    return compare(rows, other, rounds=conf.rounds, seed=conf.seed, level=conf.level)


def _figures(rows: Judged, auc: Interval | None, gauc: Interval | None) -> Figures:
    total, clicks = rows.weight.sum(), (rows.weight * rows.label).sum()
    p = np.clip(rows.score, 1e-7, 1 - 1e-7)
    with np.errstate(invalid="ignore", divide="ignore"):
        loss = -(rows.weight * (rows.label * np.log(p) + (1 - rows.label) * np.log1p(-p))).sum() / total
        pcoc = (rows.weight * rows.score).sum() / clicks
    return Figures(
        auc=auc.point if auc else None,
        gauc=gauc.point if gauc else None,
        logloss=float(loss) if np.isfinite(loss) else None,
        pcoc=float(pcoc) if np.isfinite(pcoc) else None,
    )


def _no_data(case: _Case) -> Iterator[str]:
    """Are there rows, and enough of both classes, for every task that is judged?"""
    judged = {task.task for task in case.tasks}
    if case.conf.main_task not in judged:
        why = case.evidence.left_out.get(case.conf.main_task, "the candidate does not score it, or it has no labels")
        yield f"the main task {case.conf.main_task} is not judged: {why}"
    for name in sorted(case.candidate.scores.keys() - judged - case.evidence.left_out.keys()):
        yield f"{name}: scored by the candidate, but the gate day has no labels of it"
    for task in case.tasks:
        rules = case.conf.rules(task.task)
        for what, seen, floor in (
            ("rows", task.rows, rules.min_rows),
            ("positives", task.positives, rules.min_positives),
            ("negatives", task.negatives, rules.min_negatives),
        ):
            if seen < floor:
                yield f"{task.task}: {seen:,} {what} on {case.evidence.day}, at least {floor:,} are needed"


def _no_unseen_day(case: _Case) -> Iterator[str]:
    """Train days < validation day < gate day, and nobody has seen the gate day."""
    days, day = case.candidate.days, case.evidence.day
    if not days.train:
        yield "the candidate names no train days"
        return
    if days.valid and max(days.train) >= min(days.valid):
        yield f"train day {max(days.train)} is not before validation day {min(days.valid)}"
    for who, model in (("candidate", case.candidate), ("champion", case.champion)):
        if model is not None and model.days.seen_until >= day:
            yield f"no verdict: the {who} {model.name} has seen {model.days.seen_until}, the gate day is {day}"


def _not_finite(case: _Case) -> Iterator[str]:
    """Every score and every figure that a later rule reads must be a number."""
    for who, model in (("candidate", case.candidate), ("champion", case.champion)):
        for name, score in (model.scores if model else {}).items():
            bad = int((~np.isfinite(score)).sum())
            if bad:
                yield f"{name}: {bad:,} of {len(score):,} scores of the {who} are not finite"
    for task in case.tasks:
        undefined = [figure for figure, value in task.candidate.model_dump().items() if value is None]
        if task.auc_interval is None:
            undefined.append("auc_interval")
        if task.champion is not None:
            undefined += [n for n in ("auc_difference", "gauc_difference") if getattr(task, n) is None]
        if undefined:
            yield f"{task.task}: undefined on the gate day: {', '.join(undefined)}"


def _parity(case: _Case) -> Iterator[str]:
    """The exported graph must give what was trained."""
    parity, conf = case.evidence.parity, case.conf
    if parity is None:
        yield "the exported graph was not compared with the trained model"
        return
    wanted = min(conf.min_parity_rows, len(case.evidence.group))
    if parity.rows < wanted or parity.single_row_batches < 1:
        yield f"parity was checked on {parity.rows:,} rows, {wanted:,} are needed, and at least one batch of 1"
    for column, rows in parity.differing_columns.items():
        yield f"the published folder encodes {column} unlike the train set in {rows:,} of {parity.rows:,} rows"
    for what, seen, limit in (
        ("logits", parity.logit_difference, conf.max_logit_difference),
        ("probabilities", parity.probability_difference, conf.max_probability_difference),
    ):
        if not seen <= limit:  # NaN must stop too
            yield f"exported {what} differ by up to {seen:.3g}, at most {limit:.3g} is allowed"


def _floors(case: _Case) -> Iterator[str]:
    """Absolute floors, whatever the champion does."""
    for task in case.tasks:
        rules, auc, pcoc = case.conf.rules(task.task), task.candidate.auc, task.candidate.pcoc
        reached = auc if task.auc_interval is None else getattr(task.auc_interval, rules.bound)
        if reached is not None and not reached >= rules.min_auc:
            of = "" if rules.bound == "point" else f" ({rules.bound} end of its interval: {reached:.4f})"
            yield f"{task.task}: AUC {auc:.4f}{of} is below the floor {rules.min_auc:.4f}"
        if pcoc is not None and not rules.min_pcoc <= pcoc <= rules.max_pcoc:
            yield f"{task.task}: PCOC {pcoc:.3f} is outside [{rules.min_pcoc:g}, {rules.max_pcoc:g}]"


def _champion_comparison(case: _Case) -> Iterator[str]:
    """No task may fall behind the champion by more than its rules allow."""
    for task in case.tasks:
        rules = case.conf.rules(task.task)
        for what, difference, drop in (
            ("AUC", task.auc_difference, rules.max_auc_drop),
            ("GAUC", task.gauc_difference, rules.max_gauc_drop),
        ):
            if difference is not None and not getattr(difference, rules.bound) >= -drop:
                yield (
                    f"{task.task}: {what} differs from the champion's by {difference.point:+.4f} "
                    f"[{difference.low:+.4f}, {difference.high:+.4f}]; its {rules.bound} must not be below {-drop:.4f}"
                )


RULES: tuple[tuple[Rule, Callable[[_Case], Iterator[str]]], ...] = (
    ("no_data", _no_data),
    ("no_unseen_day", _no_unseen_day),
    ("not_finite", _not_finite),
    ("parity", _parity),
    ("floors", _floors),
    ("champion_comparison", _champion_comparison),
)
