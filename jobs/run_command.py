"""What the commands do once they are parsed: one Spark session, one context, one function."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from features.errors import MAX_EXAMPLES, ConfError, ExitCode
from features.manifest import TrainSet
from jobs.console import Steps, console
from jobs.ingest import IngestOptions, find_source
from jobs.open_run import Run, open_run, session
from jobs.page.command import keep_and_draw
from jobs.retrain import Retrained, Retrainer
from jobs.summarise import summarise, write_summary_and_report
from pipeline.check_raw import RawCheckConf, Violation, check_raw, has_errors
from pipeline.config import day_range
from pipeline.context import ONE_DAY
from pipeline.sources.kuailive_writer import write_kuailive

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def ingest_source(source: str, options: IngestOptions, warehouse: str, place: str, steps: Steps) -> None:
    """Write the raw tables of a source."""
    find_source(source)  # an unknown name is told before Spark starts
    with session(f"ingest {source}", warehouse, place) as spark:
        ingest_with(spark, source, options, warehouse, steps)


def ingest_with(spark: SparkSession, source: str, options: IngestOptions, warehouse: str, steps: Steps) -> None:
    """The same in an open session."""
    with steps.step(f"ingest {source}") as step:
        ingested = find_source(source)(spark, options, warehouse)
        step.rows = sum(ingested.rows.values())
        step.note = ", ".join(f"{table} {count:,}" for table, count in ingested.rows.items())
    for remark in ingested.remarks:
        console.print(f"  [dim]{escape(remark)}[/]", soft_wrap=True)


def check_raw_tables(
    warehouse: str, first: datetime.date | None, last: datetime.date | None, place: str, overrides: Sequence[str]
) -> int:
    """Show every violation of the raw contract; non-zero when one is an error."""
    with session("check-raw", warehouse, place, overrides) as spark:
        run = open_run(spark, warehouse, place, overrides)
        days = run.context.raw.listing.days["impressions"]
        pipeline = run.settings.pipeline
        conf = RawCheckConf(
            max_lateness_days=pipeline.time.max_lateness_days, max_repeat_share=pipeline.raw.max_repeat_share
        )
        violations = check_raw(spark, warehouse, first or days[0], last or days[-1], conf)
    return show_violations(violations)


def show_violations(violations: Sequence[Violation]) -> int:
    """All of them in one table; the exit code is bad data when one is an error."""
    if not violations:
        console.print("[green]✓[/] the raw tables keep the contract")
        return int(ExitCode.OK)
    table = Table("", "table", "day", "column", "what", "count", "examples", "what to do")
    for violation in violations:
        problem = violation.problem
        mark = "[red]error[/]" if violation.severity == "error" else "[yellow]warning[/]"
        shown = "\n".join(str(example) for example in problem.examples[:MAX_EXAMPLES])
        count = "" if problem.count is None else f"{problem.count:,}"
        place = (problem.table or "", problem.day or "", problem.column or "")
        table.add_row(mark, *place, problem.what, count, escape(shown), problem.remedy)
    console.print(table)
    return int(ExitCode.BAD_DATA if has_errors(violations) else ExitCode.OK)


def backfill_days(
    warehouse: str,
    first: datetime.date,
    last: datetime.date,
    place: str,
    overrides: Sequence[str],
    *,
    force: bool,
) -> None:
    """Tiles, profiles and samples of the days from first to last."""
    if last < first:
        raise ConfError(f"--from {first} is after --to {last}")
    steps = Steps()
    with session("backfill", warehouse, place, overrides) as spark:
        run = open_run(spark, warehouse, place, overrides, force=force)
        retrainer = Retrainer(run.context, run.settings, run.facts, steps)
        retrainer.samples(day_range(first, last))


def write_kuailive_layout(warehouse: str, folder: str, place: str) -> None:
    """Write a warehouse's raw tables in KuaiLive's layout, and say what that layout has no file for."""
    steps = Steps()
    with session("write-kuailive", warehouse, place) as spark, steps.step("write-kuailive") as step:
        left_out = write_kuailive(spark, warehouse, folder)
        step.note = f"{folder}; left out: " + (", ".join(f"{k} {v:,}" for k, v in left_out.items()) or "nothing")


def retrain(
    kind: str,
    warehouse: str,
    date: datetime.date,
    place: str,
    overrides: Sequence[str],
    out: Path,
    truth: str | None,
    *,
    resume: bool = False,
) -> int:
    """A full or incremental retrain, with summary and report; the exit code says what the gate said."""
    steps = Steps()
    with session(kind, warehouse, place, overrides) as spark:
        run = open_run(spark, warehouse, place, overrides, last_day=date - ONE_DAY)
        retrained = retrain_with(run, kind, date, steps, out, truth, resume=resume)
    return int(ExitCode.GATE_STOPPED if retrained.stopped else ExitCode.OK)


def retrain_with(
    run: Run, kind: str, date: datetime.date, steps: Steps, out: Path, truth: str | None, *, resume: bool = False
) -> Retrained:
    """The same in an open session."""
    retrainer = Retrainer(run.context, run.settings, run.facts, steps, resume=resume)
    retrained = retrainer.full(date) if kind == "full" else retrainer.incremental(date)
    facts = run.facts
    days = [day.isoformat() for day in run.context.raw.listing.days["impressions"]]
    notes = [*(facts.notes if facts else ())]
    if facts is not None and facts.sampled_scale:
        notes.append("Exposures were drawn, not logged: PCOC is on a sampled scale.")
    if kind == "incremental":
        notes.append(growth_note(retrained.ids_added, retrained.trainset))
    summary = summarise(
        retrained,
        steps,
        retrainer.registry,
        source=run.context.source,
        days=days,
        truth=truth,
        notes=notes,
    )
    main = run.settings.pipeline.tasks.main
    files = write_summary_and_report(summary, retrained, main, out)
    drawn = keep_and_draw(
        run.context.warehouse, run.settings, retrainer.registry.history, summary, retrained.trainset.name
    )
    show_outcome(retrained, [*files, *drawn])
    if kind == "incremental":
        console.print(growth_note(retrained.ids_added, retrained.trainset), soft_wrap=True, markup=False)
    return retrained


def growth_note(added: Mapping[str, int], trainset: TrainSet) -> str:
    """What an incremental retrain did to the vocabularies, and which older rows it saw again."""
    evicted = trainset.evicted()
    note = f"Warm start from the champion: {sum(added.values()):,} ids added to the vocabularies{_each(added)}, "
    note += f"{sum(evicted.values()):,} evicted{_each(evicted)}"
    if trainset.replayed:
        rows = sum(trainset.replayed.values())
        note += f"; {rows:,} rows of {min(trainset.replayed)} to {max(trainset.replayed)} replayed"
    return f"{note}."


def _each(counts: Mapping[str, int]) -> str:
    listed = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
    return f" ({listed})" if listed else ""


def show_outcome(retrained: Retrained, files: Sequence[Path]) -> None:
    """What became of every model, and where to look."""
    table = Table("model", "task", "AUC", "GAUC", "logloss", "PCOC")
    for name, found in retrained.releases.items():
        for index, task in enumerate(found.verdict.tasks):
            figures = task.candidate
            numbers = [
                "–" if value is None else f"{value:.4f}"
                for value in (figures.auc, figures.gauc, figures.logloss, figures.pcoc)
            ]
            table.add_row(name if index == 0 else "", task.task, *numbers)
    console.print(table)
    for name, found in retrained.releases.items():
        reasons = escape("; ".join(found.verdict.reasons))
        if found.verdict.passed:
            line = f"[green]✓[/] {name} passed by rule {found.verdict.rule}: version {found.version} is champion"
        else:
            line = f"[yellow]✗ {name} was stopped by rule {found.verdict.rule}:[/] {reasons}"
        console.print(line, soft_wrap=True)
    for name, why in retrained.skipped.items():
        console.print(f"[yellow]✗ {name} was not trained:[/] {escape(why)}", soft_wrap=True)
    for path in files:
        console.print(f"→ {path}", soft_wrap=True)
