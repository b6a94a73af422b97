"""How good the candidates are: against the runs before, calibrated, by segment. Facts → blocks; nothing is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from jobs.page.facts import HISTORY, Facts, ModelFacts, RunFacts
from jobs.page.model import (
    UNKNOWN,
    Block,
    DataTable,
    Fold,
    IntervalChart,
    LineChart,
    Missing,
    Note,
    ReliabilityChart,
    Section,
)
from jobs.page.words import around, count, number, percent
from training.calibration_curve import Bin
from training.verdict import Figures, SegmentVerdict, TaskVerdict, Verdict

FigureOf = Callable[[Figures], float | None]
FIGURES: tuple[tuple[str, FigureOf, int, float | None], ...] = (
    ("AUC", lambda figures: figures.auc, 4, None),
    ("GAUC", lambda figures: figures.gauc, 4, None),
    ("PCOC", lambda figures: figures.pcoc, 3, 1.0),
)
"""Name, figure, digits, and where it is perfect if that is a level worth drawing."""


def quality(facts: Facts) -> Section:
    """AUC, GAUC and PCOC of the main task along the runs, and every task of this run."""
    runs = [*facts.earlier[-HISTORY:], facts.run]
    blocks: list[Block] = []
    if any(_task(run, model.model, facts.main_task) for run in runs for model in facts.models):
        blocks += [_along(runs, facts, *figure) for figure in FIGURES]
        blocks.append(Note("A hollow point was stopped by the gate; each run is judged on a gate day of its own."))
        if not facts.earlier:
            blocks.append(Missing(what="earlier runs", why="this is the first run that this warehouse still has"))
    else:
        blocks.append(Missing(what="figures", why=f"no run has a verdict on the main task {facts.main_task}"))
    for model in facts.models:
        verdict = facts.run.verdicts.get(model.model)
        if verdict is not None and verdict.tasks:
            blocks.append(Fold(title=f"{model.model}: every task of this run", blocks=(_tasks(verdict),)))
    return Section(
        anchor="quality",
        title=f"Quality on the gate day: {facts.main_task}, up to {HISTORY} runs back",
        blocks=tuple(blocks),
    )


def _task(run: RunFacts, model: str, task: str) -> TaskVerdict | None:
    verdict = run.verdicts.get(model)
    return next((found for found in verdict.tasks if found.task == task), None) if verdict is not None else None


def _along(
    runs: Sequence[RunFacts], facts: Facts, name: str, figure: FigureOf, digits: int, level: float | None
) -> LineChart:
    lines, hollow = {}, {}
    for model in (found.model for found in facts.models):
        tasks = [_task(run, model, facts.main_task) for run in runs]
        lines[model] = tuple(figure(task.candidate) if task is not None else None for task in tasks)
        verdicts = [run.verdicts.get(model) for run in runs]
        hollow[model] = frozenset(at for at, found in enumerate(verdicts) if found is not None and not found.passed)
    rows = []
    for at, run in enumerate(runs):
        cells = (number(lines[m][at], digits) + (" (stopped)" if at in hollow[m] else "") for m in lines)
        rows.append((run.name, *cells))
    return LineChart(
        title=f"{name} of {facts.main_task}",
        along="run",
        places=tuple(run.date.strftime("%m-%d") if run.date else run.name for run in runs),
        lines=lines,
        digits=digits,
        hollow=hollow,
        level=level,
        table=DataTable(caption=f"{name} of {facts.main_task} by run", head=("run", *lines), rows=tuple(rows)),
    )


def _tasks(verdict: Verdict) -> DataTable:
    rows = []
    for task in verdict.tasks:
        counts = (count(task.rows), count(task.positives), count(task.users))
        rows.append((task.task, "candidate", *counts, *_figures(task.candidate), "", ""))
        if task.champion is not None:
            differences = (around(task.auc_difference), around(task.gauc_difference))
            rows.append((task.task, verdict.champion or "champion", "", "", "", *_figures(task.champion), *differences))
    compared = ("AUC: candidate − champion", "GAUC: candidate − champion")
    head = ("task", "model", "rows", "positives", "users", "AUC", "GAUC", "logloss, nats", "PCOC", *compared)
    return DataTable(caption=f"{verdict.model} on the gate day {verdict.day}", head=head, rows=tuple(rows), left=2)


def _figures(figures: Figures) -> tuple[str, ...]:
    return (number(figures.auc), number(figures.gauc), number(figures.logloss), number(figures.pcoc, 3))


def calibration(facts: Facts) -> Section:
    """Predicted against observed shares of every candidate; the main task open, the others folded."""
    blocks: list[Block] = []
    for model in facts.models:
        drawn = {task: bins for task, bins in model.calibration.items() if bins}
        if not drawn:
            blocks.append(
                Missing(what=f"calibration of {model.model}", why="its run has no predictions of the gate day")
            )
            continue
        if facts.main_task in drawn:
            blocks.append(_reliability(model, facts.main_task, drawn[facts.main_task]))
        rest = tuple(_reliability(model, task, bins) for task, bins in drawn.items() if task != facts.main_task)
        if rest:
            blocks.append(Fold(title=f"{model.model}: calibration of its other tasks", blocks=rest))
    if any(isinstance(block, ReliabilityChart) for block in blocks):
        words = "Bins of equally many rows; the line through a dot is its 95 % interval, the dashes are perfect."
        blocks.insert(0, Note(words))
    return Section(anchor="calibration", title="Calibration on the gate day", blocks=tuple(blocks))


def _reliability(model: ModelFacts, task: str, bins: Sequence[Bin]) -> ReliabilityChart:
    rows = tuple(
        (
            str(place),
            count(b.rows),
            percent(b.predicted, 2),
            percent(b.observed, 2),
            f"{percent(b.low, 2)} to {percent(b.high, 2)}",
            number(b.predicted / b.observed, 3) if b.observed else UNKNOWN,
        )
        for place, b in enumerate(bins, start=1)
    )
    head = ("bin", "rows", "predicted", "observed", "95 % interval", "PCOC")
    title = f"{model.model}: {task}"
    return ReliabilityChart(
        title=title, bins=tuple(bins), table=DataTable(caption=f"Calibration of {title}", head=head, rows=rows)
    )


def segments(facts: Facts) -> Section:
    """Every segment of the gate day; of the main task also as a chart."""
    blocks: list[Block] = []
    for model in facts.models:
        verdict = facts.run.verdicts.get(model.model)
        if verdict is None:
            blocks.append(Missing(what=f"segments of {model.model}", why="it was not judged in this run"))
        elif not verdict.segments:
            blocks.append(Missing(what=f"segments of {model.model}", why=_no_segments(verdict)))
        else:
            blocks.extend(_segments_of(verdict, facts.main_task))
    return Section(anchor="segments", title="Segments", blocks=tuple(blocks))


def _no_segments(verdict: Verdict) -> str:
    if verdict.format_version == 1:
        return "an earlier Limelight judged it, which looked at none"
    return "conf has no thresholds" if verdict.conf is None else "the gate ended before it looked at any"


def _segments_of(verdict: Verdict, main: str) -> Iterator[Block]:
    stopped = {(check.task, check.segment) for check in verdict.checks if check.segment and not check.passed}
    if stopped:
        shown = ", ".join(sorted(f"{segment} ({task})" for task, segment in stopped))
        yield Note(f"{verdict.model} was stopped for: {shown}.")
    mains = [one for one in verdict.segments if one.task == main]
    compared = [one for one in mains if one.auc_difference is not None]
    table = _segment_table(verdict, mains, stopped)
    if compared:
        intervals = tuple((one.segment, one.auc_difference) for one in mains)
        title = f"{verdict.model}, {main}: AUC − champion's, by segment"
        yield IntervalChart(title=title, intervals=intervals, table=table)
    elif mains:
        yield Fold(title=f"{verdict.model}: {main} by segment", blocks=(table,))
    others = [one for one in verdict.segments if one.task != main]
    if others:
        yield Fold(
            title=f"{verdict.model}: its other tasks by segment", blocks=(_segment_table(verdict, others, stopped),)
        )


def _segment_table(
    verdict: Verdict, segments: Sequence[SegmentVerdict], stopped: set[tuple[str | None, str]]
) -> DataTable:
    rows = tuple(
        (
            one.segment,
            one.task,
            count(one.rows),
            count(one.positives),
            number(one.candidate.auc),
            around(one.auc_difference),
            number(one.candidate.pcoc, 3),
            number(one.champion.pcoc, 3) if one.champion else UNKNOWN,
            f"no: {one.not_judged}"
            if one.not_judged
            else "stopped"
            if (one.task, one.segment) in stopped
            else "passed",
        )
        for one in segments
    )
    head = ("segment", "task", "rows", "positives", "AUC", "AUC − champion's", "PCOC", "champion's PCOC", "judged")
    return DataTable(caption=f"Segments of {verdict.model} on {verdict.day}", head=head, rows=rows, left=2)
