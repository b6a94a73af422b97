"""Is it time to retrain? Nothing, incremental or full, decided from committed facts and conf alone: no reads, no clock.

Steps:
  1. reasons   every reason of every model gets a figure, the thresholds it is held against, and a sentence
  2. action    the strongest that any reason asks for
  3. possible  an incremental retrain that cannot be becomes a full one, or waits for a day to train on

A reason whose fact is missing asks for what it would ask for if it fired, and says which fact is missing: what nobody
has looked at is not known to be well. docs/trigger.md has the formulas in words.
"""

from __future__ import annotations

import datetime
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping

from features.evaluation import Evaluation, TaskFigures
from pipeline.decision import STRENGTH, Action, Decision, Finding, Reason
from pipeline.stability import psi
from pipeline.trigger_facts import Champion, Facts, Limits, Making, ModelFacts, TriggerConf

Measure = Callable[[Facts, Champion, TriggerConf], tuple[float, str]]
ONE_DAY = datetime.timedelta(days=1)


class MissingFactError(Exception):
    """A fact that a reason rests on is not there: which, in words."""


def decide(facts: Facts, conf: TriggerConf) -> Decision:
    """What the facts ask for, by the thresholds."""
    findings = tuple(finding for model in facts.models for finding in _findings(facts, model, conf))
    asked = max((found.asks for found in findings), key=STRENGTH.__getitem__)
    action, notes = _possible(asked, facts)
    notes = (*notes, *_uncommitted(facts))
    return Decision(action=action, key=key_of(facts, conf), mature=facts.mature, findings=findings, notes=notes)


def _uncommitted(facts: Facts) -> tuple[str, ...]:
    """Said, and no reason: raw days may still arrive, and the hours go on until a retrain computes the samples."""
    if facts.mature in facts.samples or all(model.champion is None for model in facts.models):
        return ()
    newest = max((str(day) for day in facts.samples), default="no day")
    what = f"samples of {facts.mature} are not committed: performance and drift are those of {newest}"
    return (f"{what}; `limelight backfill` computes them, or the retrain that `hours` asks for",)


def key_of(facts: Facts, conf: TriggerConf) -> str:
    """Names a decision by what it rests on: equal facts and thresholds have equal keys."""
    text = f"{facts.model_dump_json()}\n{conf.model_dump_json()}"
    return f"{facts.mature}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _possible(asked: Action, facts: Facts) -> tuple[Action, tuple[str, ...]]:
    """An incremental retrain starts from one train set, and needs a new day beside its gate day."""
    champions = {model.model: model.champion for model in facts.models if model.champion is not None}
    if asked != "incremental":
        return asked, ()
    if len({champion.trainset for champion in champions.values()}) > 1:
        listed = ", ".join(f"{model}: {champion.trainset}" for model, champion in champions.items())
        return "full", (f"full instead of incremental: champions rest on different train sets ({listed})",)
    trained = max(champion.trained_until for champion in champions.values())
    seen = max(champion.seen_until for champion in champions.values())
    if facts.mature <= seen or facts.mature - ONE_DAY <= trained:
        waits = f"an incremental retrain is asked for, and waits for a day: the champion was trained up to {trained}"
        return "nothing", (f"{waits}, and {facts.mature}, the newest that can be mature, would be the gate day",)
    return "incremental", ()


def _findings(facts: Facts, model: ModelFacts, conf: TriggerConf) -> Iterator[Finding]:
    champion = model.champion
    if champion is None:
        yield _no_champion(facts, model)
        return
    yield from _changes(model.model, champion.making, model.making)
    for reason, measure in MEASURES.items():
        yield _measured(facts, model.model, champion, reason, measure, conf)


def _no_champion(facts: Facts, model: ModelFacts) -> Finding:
    """Without any champion only a full retrain can be; a single model that lacks one waits for the next."""
    alone = all(other.champion is None for other in facts.models)
    why = (
        "nothing was published yet" if alone else "others have one; the next full retrain trains it, none starts for it"
    )
    return Finding(
        model=model.model,
        reason="champion",
        asks="full" if alone else "nothing",
        missing="a champion",
        why=why,
    )


def _changes(model: str, was: Making, now: Making) -> Iterator[Finding]:
    """Another catalog, conf or model: what was learned is about something else, and a warm start would mix the two."""
    pairs: tuple[tuple[Reason, str, str | None, str | None], ...] = (
        ("catalog", "the feature catalog", was.catalog, now.catalog),
        ("conf", "conf of the train set", was.trainset, now.trainset),
        ("settings", "the model's settings", was.model, now.model),
    )
    for reason, what, before, after in pairs:
        missing = f"the fingerprint of {what} that the champion was made with" if before is None else None
        changed = before != after
        said = f"{what} changed: {before} then, {after} now" if changed else f"{what}: {after}, as then"
        why = f"{missing} is missing" if missing else said
        yield Finding(model=model, reason=reason, asks="full" if changed else "nothing", missing=missing, why=why)


def _measured(
    facts: Facts, model: str, champion: Champion, reason: Reason, measure: Measure, conf: TriggerConf
) -> Finding:
    """A reason that is a number, against its thresholds; a missing fact asks for the weakest that it may ask for."""
    limits: Limits = getattr(conf, reason)
    try:
        figure, why = measure(facts, champion, conf)
    except MissingFactError as lacking:
        weakest: Action = "incremental" if limits.incremental is not None else "full"
        asks = "nothing" if limits.incremental is None and limits.full is None else weakest
        return Finding(
            model=model, reason=reason, limits=limits, asks=asks, missing=str(lacking), why=f"{lacking}: missing"
        )
    return Finding(model=model, reason=reason, figure=figure, limits=limits, asks=_asked(figure, limits), why=why)


def _asked(figure: float, limits: Limits) -> Action:
    if limits.full is not None and not figure <= limits.full:  # NaN must ask too
        return "full"
    return "incremental" if limits.incremental is not None and not figure <= limits.incremental else "nothing"


def _new_rows(facts: Facts, champion: Champion, _: TriggerConf) -> tuple[float, str]:
    """Committed rows after all that the champion has seen, the newest day apart: that is the next gate day."""
    days = [day for day in facts.samples if champion.seen_until < day < facts.mature]
    rows = sum(facts.samples[day].rows for day in days)
    lacking = max(0, (facts.mature - champion.seen_until).days - 1 - len(days))
    note = f", {lacking} more are not committed" if lacking else ""
    return float(rows), f"{rows:,} rows on {len(days)} unseen days before {facts.mature}{note}"


def _hours(facts: Facts, champion: Champion, _: TriggerConf) -> tuple[float, str]:
    """From the end of the newest day that the champion has seen to the end of the newest day that can be mature."""
    hours = 24.0 * (facts.mature - champion.seen_until).days
    return hours, f"it has seen {champion.seen_until}; {facts.mature} can be mature"


def _auc_drop(facts: Facts, champion: Champion, conf: TriggerConf) -> tuple[float, str]:
    """AUC of the main task on the champion's own gate day − on the newest labelled day."""
    (gate_day, gate), (day, now) = _judged(facts, champion, conf)
    before, after = (_defined("AUC", facts, *side) for side in ((gate_day, gate.auc), (day, now.auc)))
    return before - after, f"AUC of {facts.main_task} {after:.4f} on {day}, {before:.4f} on its gate day {gate_day}"


def _calibration(facts: Facts, champion: Champion, conf: TriggerConf) -> tuple[float, str]:
    """|ln PCOC| on the newest labelled day − on its gate day: how much further from 1 it is, on either side of 1."""
    (gate_day, gate), (day, now) = _judged(facts, champion, conf)
    before, after = (_defined("PCOC", facts, *side) for side in ((gate_day, gate.pcoc), (day, now.pcoc)))
    why = f"PCOC of {facts.main_task} {after:.3f} on {day}, {before:.3f} on its gate day {gate_day}"
    return abs(math.log(after)) - abs(math.log(before)), why


def _score_psi(facts: Facts, champion: Champion, conf: TriggerConf) -> tuple[float, str]:
    """The largest psi of any output's scores against those of its gate day."""
    gate, now = _compared(facts, champion, conf)
    return _worst_psi(gate, gate.scores, now, now.scores, conf)


def _feature_psi(facts: Facts, champion: Champion, conf: TriggerConf) -> tuple[float, str]:
    """The largest psi of any dense feature, as the champion encodes it, against that of its gate day."""
    gate, now = _compared(facts, champion, conf)
    return _worst_psi(gate, gate.features, now, now.features, conf)


def _oov(facts: Facts, champion: Champion, conf: TriggerConf) -> tuple[float, str]:
    """The largest rise of any vocabulary's share of OOV ids over that of its gate day."""
    gate, now = _compared(facts, champion, conf)
    rises = {
        name: (after - before, f"{name}: {after:.1%} of ids are OOV on {now.day}, {before:.1%} on {gate.day}")
        for name in gate.oov
        if (before := gate.oov[name].share) is not None
        and name in now.oov
        and (after := now.oov[name].share) is not None
    }
    if not rises:
        raise MissingFactError(f"the OOV share of any vocabulary on both {gate.day} and {now.day}")
    return max(rises.values())


MEASURES: Mapping[Reason, Measure] = {
    "new_rows": _new_rows,
    "hours": _hours,
    "auc_drop": _auc_drop,
    "calibration": _calibration,
    "score_psi": _score_psi,
    "feature_psi": _feature_psi,
    "oov": _oov,
}


def _both(facts: Facts, champion: Champion) -> tuple[Evaluation, Evaluation]:
    """The champion on its gate day, and on the newest labelled day."""
    if champion.reference is None:
        raise MissingFactError(f"an evaluation of version {champion.version} on its gate day {champion.gate_day}")
    if champion.newest is None:
        newest = max((str(day) for day in facts.samples if day > champion.seen_until), default="any: none is committed")
        raise MissingFactError(f"an evaluation of version {champion.version} on the newest labelled day {newest}")
    return champion.reference, champion.newest


Side = tuple[datetime.date, TaskFigures]


def _judged(facts: Facts, champion: Champion, conf: TriggerConf) -> tuple[Side, Side]:
    """Figures of the main task on both days, each with enough rows and positives to mean something."""
    gate, now = _both(facts, champion)
    return _judged_day(gate, facts.main_task, conf), _judged_day(now, facts.main_task, conf)


def _judged_day(evaluation: Evaluation, task: str, conf: TriggerConf) -> Side:
    figures = evaluation.tasks.get(task)
    if figures is None:
        raise MissingFactError(f"figures of the main task {task} on {evaluation.day}, which the model does not score")
    needed = (("rows", figures.rows, conf.min_rows), ("positives", figures.positives, conf.min_positives))
    for what, seen, floor in needed:
        if seen < floor:
            raise MissingFactError(f"{floor:,} {what} of {task} on {evaluation.day}, which has {seen:,}")
    return evaluation.day, figures


def _defined(what: str, facts: Facts, day: datetime.date, value: float | None) -> float:
    if value is None or not 0 < value < math.inf:
        raise MissingFactError(f"a defined {what} of {facts.main_task} on {day}")
    return value


def _compared(facts: Facts, champion: Champion, conf: TriggerConf) -> tuple[Evaluation, Evaluation]:
    """Both days, cut into the same bins, with enough rows that shares are not noise."""
    gate, now = _both(facts, champion)
    for evaluation in (gate, now):
        if evaluation.rows < conf.min_rows:
            raise MissingFactError(f"{conf.min_rows:,} rows on {evaluation.day}, which has {evaluation.rows:,}")
    if (gate.score_edges, gate.feature_edges) != (now.score_edges, now.feature_edges):
        raise MissingFactError(f"histograms of {gate.day} and {now.day} in the same bins")
    return gate, now


Histograms = Mapping[str, tuple[int, ...]]


def _worst_psi(
    gate: Evaluation, before: Histograms, now: Evaluation, after: Histograms, conf: TriggerConf
) -> tuple[float, str]:
    found = {name: psi(after[name], counts, conf.empty_share) for name, counts in before.items() if name in after}
    figures = {name: figure for name, figure in found.items() if figure is not None}
    if not figures:
        raise MissingFactError(f"histograms of both {gate.day} and {now.day}")
    worst = max(figures, key=figures.__getitem__)
    return figures[worst], f"{worst}, the furthest of {len(figures)}, on {now.day} against its gate day {gate.day}"
