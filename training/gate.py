"""The gate: may a candidate become champion? It fails closed: what is absent or undefined stops.

Pure on arrays and conf: no reads, no clock. The rules are asked in the order of `training.gate_rules.RULES`; the
verdict names the first one that stops, and gives every reason of every rule. docs/gate.md explains them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from training.bootstrap import Judged, Resamples, require_same_rows
from training.gate_case import Case, Evidence, Scored
from training.gate_conf import GateConf
from training.gate_figures import TaskRows, segment_verdicts, task_verdict
from training.gate_rules import RULES
from training.verdict import Check, Rule, Verdict


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
    case = _case(candidate, champion, evidence, conf) if conf is not None else None
    checks = [check for rule in RULES for check in rule(case)] if case is not None else [_no_thresholds(evidence)]
    rule, reasons = _decided(case, checks)
    return Verdict(
        model=evidence.model,
        verdict="stop" if any(not check.passed for check in checks) else "pass",
        rule=rule,
        reasons=reasons,
        candidate=candidate.name,
        champion=champion.name if champion else None,
        day=evidence.day,
        candidate_days=candidate.days,
        champion_days=champion.days if champion else None,
        rows=len(evidence.group),
        tasks=case.tasks if case is not None else (),
        segments=case.segments if case is not None else (),
        checks=tuple(checks),
        left_out=dict(evidence.left_out),
        parity=evidence.parity,
        conf=conf,
    )


def _case(candidate: Scored, champion: Scored | None, evidence: Evidence, conf: GateConf) -> Case:
    rows = list(_task_rows(candidate, champion, evidence, conf))
    return Case(
        candidate=candidate,
        champion=champion,
        evidence=evidence,
        conf=conf,
        tasks=tuple(task_verdict(one, conf) for one in rows),
        segments=segment_verdicts(rows, evidence.segments, conf.segments),
    )


def _task_rows(
    candidate: Scored, champion: Scored | None, evidence: Evidence, conf: GateConf
) -> Iterator[TaskRows]:  # fmt: skip
    """The judged rows of every task that is to be judged, all on the same draws of the day's users."""
    if len(evidence.group) == 0:
        return
    draws = Resamples.draw(evidence.group, rounds=conf.rounds, seed=conf.seed)
    for task, score in candidate.scores.items():
        if task in evidence.left_out or task not in evidence.labels:
            continue
        truth = evidence.labels[task], evidence.weights[task], evidence.group
        rows = Judged.of(score, *truth)
        against = champion.scores.get(task) if champion else None
        other = Judged.of(against, *truth) if against is not None else None
        if other is not None:
            require_same_rows(rows, other)
        kept = evidence.weights[task] > 0
        yield TaskRows(task=task, kept=kept, draws=draws.of(kept), candidate=rows, champion=other)


def _no_thresholds(evidence: Evidence) -> Check:
    reason = f"no gate thresholds are configured for {evidence.model}"
    return Check(rule="no_thresholds", figure="thresholds", seen=None, limit="must be in conf", reason=reason)


def _decided(case: Case | None, checks: Sequence[Check]) -> tuple[Rule, tuple[str, ...]]:
    """The rule that decided, and the reasons: of all that stop, or why it may pass."""
    stopped = [(check.rule, check.reason) for check in checks if check.reason is not None]
    if stopped or case is None:
        return stopped[0][0], tuple(reason for _, reason in stopped)
    judged = ", ".join(task.task for task in case.tasks)
    if case.champion is None:
        return "first_model", (f"there is no champion to compare with; every floor is met on {judged}",)
    return "champion_comparison", (
        f"every floor is met, and no task falls behind {case.champion.name} beyond its rules: {judged}",
    )
