"""The daily page from facts: the verdict first, then what it rests on. A pure function."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.page import making, population, quality
from jobs.page.facts import Facts, ModelFacts
from jobs.page.model import ModelVerdict, Page
from jobs.page.words import verdict_sentence
from training.version_history import Version

KINDS = {"full": "Full retrain", "incremental": "Incremental retrain", "other": "Run"}


def compose(facts: Facts) -> Page:
    """Everything that the page says."""
    run = facts.run
    days = sorted({verdict.day for verdict in run.verdicts.values()})
    judged = f"judged on {', '.join(days)}" if days else "not judged"
    source = facts.trainset.source if facts.trainset is not None else facts.summary.source if facts.summary else ""
    return Page(
        title=f"{KINDS[run.kind]} of {run.date or run.name}",
        subtitle=" · ".join(part for part in (run.name, source, judged) if part),
        verdicts=tuple(_verdict(facts, model) for model in facts.models),
        notes=tuple(_notes(facts)),
        sections=(
            quality.quality(facts),
            quality.calibration(facts),
            quality.segments(facts),
            population.drift(facts),
            population.coverage(facts),
            making.stages(facts),
            making.training(facts),
            making.lineage(facts),
        ),
    )


def _verdict(facts: Facts, model: ModelFacts) -> ModelVerdict:
    verdict = facts.run.verdicts.get(model.model)
    users = _users(facts, model)
    if verdict is None:
        why = _why_not_judged(facts, model.model)
        return ModelVerdict(model=model.model, state="missing", headline=why, users=users)
    return ModelVerdict(
        model=model.model,
        state="passed" if verdict.passed else "stopped",
        headline=verdict_sentence(verdict),
        users=users,
        reasons=verdict.reasons,
    )


def _why_not_judged(facts: Facts, model: str) -> str:
    said = [note for note in (facts.summary.notes if facts.summary else ()) if note.startswith(f"{model} was not ")]
    if said:
        return said[0]
    return f"{model} was not judged in this run: its folder has no verdict."


def _users(facts: Facts, model: ModelFacts) -> str:
    """What users get now, by the registry."""
    name = model.model
    digest, verdict = facts.run.digests.get(name), facts.run.verdicts.get(name)
    champion = next((version for version in model.versions if version.state == "champion"), None)
    ours = next((version for version in model.versions if digest is not None and version.digest == digest), None)
    if champion is not None and champion.digest == digest:
        return f"Users now get this run's {name}, version {champion.version}."
    before = f" This run's is version {ours.version}, {ours.state}." if ours is not None else ""
    if verdict is not None and verdict.passed and ours is None:
        before = " This run's passed, but no version of it is in the registry: its publication did not end."
    if champion is None:
        why = "it has no champion" if model.versions else "none was ever published"
        return f"Users get no {name}: {why}.{before}"
    return f"Users now get {name} version {champion.version}{_since(champion)}.{before}"


def _since(version: Version) -> str:
    move = version.promotion
    return f", published {move.when} ({move.why})" if move is not None else ""


def _notes(facts: Facts) -> Iterator[str]:
    decision = facts.decision
    if decision is not None:
        why = "; ".join(f"{found.model}, {found.reason}: {found.why}" for found in decision.decision.reasons)
        yield f"The trigger asked for this run ({decision.state}): {why or 'no reason is written down'}."
    if facts.trainset is not None:
        for task, reason in facts.trainset.left_out.items():
            yield f"The task {task} was left out: {reason}."
        for task, reason in facts.trainset.unjudged.items():
            yield f"The task {task} was trained on and not judged: {reason}."
    judged = {model.model for model in facts.models}
    for note in facts.summary.notes if facts.summary is not None else ():
        if not any(note.startswith(f"{model} was not ") for model in judged):  # it is the model's headline
            yield note
