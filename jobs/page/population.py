"""What the models meet: drift since a champion's gate day, and whom the data covers. Facts → blocks, without a read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from features.evaluation import Evaluation
from jobs.page.facts import Facts, ModelFacts
from jobs.page.model import BarChart, Block, DataTable, Fold, LineChart, Missing, Note, Section
from jobs.page.words import count, number, percent
from pipeline.stability import psi

MOST_FEATURES = 12
Histograms = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A champion on the newest of its days, on its gate day, and on all its days, oldest first."""

    reference: Evaluation
    newest: Evaluation
    days: tuple[Evaluation, ...]


def drift(facts: Facts) -> Section:
    """PSI of scores and of features, on the champion's days since its gate day."""
    blocks: list[Block] = [_against_champion(facts)]
    for model in facts.models:
        compared = _compared(facts, model)
        if isinstance(compared, str):
            blocks.append(Missing(what=f"drift under the champion of {model.model}", why=compared))
        elif facts.empty_share is None:
            why = "conf has no section `trigger`, which says what an empty bin counts for"
            blocks.append(Missing(what=f"drift under the champion of {model.model}", why=why))
        else:
            blocks.extend(_drift_of(model, compared, facts.empty_share))
    return Section(anchor="drift", title="Drift", blocks=tuple(blocks))


def _against_champion(facts: Facts) -> Block:
    """How far the candidates' scores lie from the champions' on the same rows."""
    verdicts = facts.run.verdicts.values()
    rows = tuple((v.model, task.task, number(task.score_psi)) for v in verdicts for task in v.tasks if v.champion)
    if not rows:
        return Missing(what="score PSI, candidate against champion", why="no candidate of this run had a champion")
    table = DataTable(caption="Same rows, two models", head=("model", "task", "score PSI"), rows=rows, left=2)
    return Fold(title="Scores of the candidates against those of the champions", blocks=(table,))


def _compared(facts: Facts, model: ModelFacts) -> Compared | str:
    """The evaluations that can be compared, or why there are none."""
    if not model.evaluations:
        return "no champion of this name was evaluated up to this run's gate day"
    newest = model.evaluations[-1]
    days = tuple(e for e in model.evaluations if (e.version, e.digest) == (newest.version, newest.digest))
    gate_day = facts.gate_days.get(newest.digest)
    reference = next((e for e in days if e.day.isoformat() == gate_day), None)
    if reference is None:
        known = f"its gate day {gate_day}" if gate_day else "its gate day, which no run that is still there names"
        return f"version {newest.version} was not evaluated on {known}"
    if newest.day == reference.day:
        return f"version {newest.version} was evaluated on no day after its gate day {gate_day}"
    if (newest.score_edges, newest.feature_edges) != (reference.score_edges, reference.feature_edges):
        return f"histograms of {reference.day} and {newest.day} are cut differently"
    return Compared(reference=reference, newest=newest, days=days)


def _drift_of(model: ModelFacts, compared: Compared, empty_share: float) -> Iterator[Block]:
    reference, newest = compared.reference, compared.newest
    days = [e for e in compared.days if e.day > reference.day]
    scores = tuple(_worst(e.scores, reference.scores, empty_share) for e in days)
    features = tuple(_worst(e.features, reference.features, empty_share) for e in days)
    rows = tuple(
        (str(e.day), number(score), number(feature)) for e, score, feature in zip(days, scores, features, strict=True)
    )
    title = f"{model.model}, version {newest.version}: largest PSI against its gate day {reference.day}"
    yield LineChart(
        title=title,
        along="day",
        places=tuple(e.day.strftime("%m-%d") for e in days),
        lines={"scores": scores, "features": features},
        digits=3,
        hollow={},
        table=DataTable(caption=title, head=("day", "score PSI", "feature PSI"), rows=rows),
    )
    found = _all_psi(newest.features, reference.features, empty_share)
    worst = sorted(found, key=lambda name: -(found[name] or 0.0))[:MOST_FEATURES]
    if worst:
        table = DataTable(
            caption=f"PSI on {newest.day}, largest first",
            head=("feature", "PSI"),
            rows=tuple((name, number(found[name])) for name in worst),
        )
        yield Fold(title=f"{model.model}: the {len(worst)} of {len(found)} features that moved most", blocks=(table,))


def _all_psi(now: Histograms, before: Histograms, empty_share: float) -> dict[str, float | None]:
    alike = [name for name in now if name in before and len(now[name]) == len(before[name])]
    return {name: psi(now[name], before[name], empty_share) for name in alike}


def _worst(now: Histograms, before: Histograms, empty_share: float) -> float | None:
    return max((figure for figure in _all_psi(now, before, empty_share).values() if figure is not None), default=None)


def coverage(facts: Facts) -> Section:
    """Who is in the gate day, who is known, and which ids the champions did not know."""
    blocks: tuple[Block, ...] = (_gate_day(facts), _known(facts), *(_oov(model) for model in facts.models))
    return Section(anchor="coverage", title="Coverage", blocks=blocks)


def _gate_day(facts: Facts) -> Block:
    verdicts = list(facts.run.verdicts.values())
    if not verdicts:
        return Missing(what="rows and users of the gate day", why="no model of this run was judged")
    rows = tuple(
        (v.model, task.task, count(v.rows), count(task.rows), count(task.users), count(task.positives))
        for v in verdicts
        for task in v.tasks
    )
    head = ("model", "task", "impressions", "judged rows", "users", "positives")
    table = DataTable(caption=f"Gate day {verdicts[0].day}", head=head, rows=rows, left=2)
    return Fold(title=f"The gate day {verdicts[0].day} in rows and users", blocks=(table,))


def _known(facts: Facts) -> Block:
    """Users and anchors with a profile, and ids of the vocabularies."""
    rows = [(f"{table}, keys with a profile", count(keys)) for table, keys in facts.profiles.items()]
    if facts.trainset is not None:
        fitted = [v for v in facts.trainset.vocabularies if v.path is not None]
        rows += [(f"vocabulary {v.name}, ids", count(v.num_ids)) for v in fitted]
        rows += [(f"vocabulary {v.name}, evicted keys", count(v.evicted)) for v in fitted if v.evicted]
    if not rows:
        return Missing(what="users and anchors that are known", why="the run's train set is no longer there")
    return DataTable(caption="Known to the data and to the models", head=("what", "how many"), rows=tuple(rows))


def _oov(model: ModelFacts) -> Block:
    if not model.evaluations:
        why = "no champion of this name was evaluated up to this run's gate day"
        return Missing(what=f"OOV shares of {model.model}", why=why)
    newest = model.evaluations[-1]
    shares = {name: oov.share for name, oov in newest.oov.items()}
    if not shares:
        return Note(f"{model.model} has no vocabulary that was fitted on keys, so no id of it can be OOV.")
    table = DataTable(
        caption=f"Ids on {newest.day} that version {newest.version} did not know",
        head=("vocabulary", "ids", "OOV", "share"),
        rows=tuple(
            (name, count(oov.values), count(oov.oov), percent(oov.share, 2)) for name, oov in newest.oov.items()
        ),
    )
    title = f"{model.model}, version {newest.version}: OOV share of ids on {newest.day}"
    return BarChart(title=title, bars=_bars(shares), table=table)


def _bars(shares: Mapping[str, float | None]) -> tuple[tuple[str, float | None, str], ...]:
    ordered: Sequence[str] = sorted(shares, key=lambda name: -(shares[name] or 0.0))
    return tuple((name, shares[name], percent(shares[name], 2)) for name in ordered)
