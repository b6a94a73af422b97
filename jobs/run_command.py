"""What the commands do once they are parsed: one Spark session, one context, one function."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from features.errors import MAX_EXAMPLES, ConfError, DataError, ExitCode, Problem, ResourceError
from jobs.console import Steps, console
from jobs.ingest import IngestOptions, find_source
from jobs.retrain import Retrained, Retrainer
from jobs.settings import Settings
from jobs.spark_session import spark_session
from jobs.summarise import summarise, write_summary_and_report
from pipeline.check_raw import RawCheckConf, Violation, check_raw, has_errors
from pipeline.config import day_range
from pipeline.context import ONE_DAY, Context
from pipeline.run import open_context
from pipeline.sources.report import SourceFacts, read_source_facts

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True, kw_only=True)
class Run:
    """An open command."""

    spark: SparkSession
    settings: Settings
    facts: SourceFacts | None
    context: Context


@contextmanager
def session(name: str, warehouse: str, place: str) -> Iterator[SparkSession]:
    """A Spark session in the business time zone, after a look at the disk."""
    settings = Settings.load(place)
    require_disk(warehouse, settings.pipeline.raw.min_free_bytes)
    with spark_session(name, place, settings.pipeline.time.zone) as spark:
        yield spark


def require_disk(warehouse: str, needed: int) -> None:
    """Stop before work that would fill the disk.

    Raises:
        ResourceError: names free and needed bytes.
    """
    if "://" in warehouse and not warehouse.startswith("file://"):
        return
    folder = Path(warehouse.removeprefix("file://")).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ResourceError(
            f"the disk of {warehouse} has {free / 1e9:.2f} GB free and {needed / 1e9:.2f} GB are needed: "
            "free some, or lower conf raw.min_free_bytes"
        )


def open_run(
    spark: SparkSession,
    warehouse: str,
    place: str,
    overrides: Sequence[str],
    *,
    last_day: datetime.date | None = None,
    force: bool = False,
) -> Run:
    """Settings that follow the source, and the context.

    Raises:
        ConfError: on any bad value.
        DataError: when the warehouse holds no raw tables.
    """
    facts = read_source_facts(spark, warehouse)
    settings = Settings.load(place, overrides, facts)
    source = facts.source if facts else "own logs"
    context = open_context(spark, warehouse, settings.pipeline, last_day=last_day, source=source, force=force)
    if not context.raw.listing.days.get("impressions"):
        remedy = "Write it with `limelight ingest SOURCE --warehouse URL`, or point --warehouse at your logs"
        raise DataError([Problem(table="raw/impressions", what=f"{warehouse} holds no raw day", remedy=remedy)])
    return Run(spark=spark, settings=settings, facts=facts, context=context)


def ingest_source(source: str, options: IngestOptions, warehouse: str, place: str, steps: Steps) -> None:
    """Write the raw tables of a source."""
    find_source(source)  # an unknown name is told before Spark starts
    with session(f"ingest {source}", warehouse, place) as spark:
        ingest_with(spark, source, options, warehouse, steps)


def ingest_with(spark: SparkSession, source: str, options: IngestOptions, warehouse: str, steps: Steps) -> None:
    """The same in an open session."""
    with steps.step(f"ingest {source}") as step:
        rows = find_source(source)(spark, options, warehouse)
        step.rows = sum(rows.values())
        step.note = ", ".join(f"{table} {count:,}" for table, count in rows.items())


def check_raw_tables(
    warehouse: str, first: datetime.date | None, last: datetime.date | None, place: str, overrides: Sequence[str]
) -> int:
    """Show every violation of the raw contract; non-zero when one is an error."""
    with session("check-raw", warehouse, place) as spark:
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
    with session("backfill", warehouse, place) as spark:
        run = open_run(spark, warehouse, place, overrides, force=force)
        retrainer = Retrainer(run.context, run.settings, run.facts, steps)
        retrainer.samples(day_range(first, last))


def retrain(
    kind: str, warehouse: str, date: datetime.date, place: str, overrides: Sequence[str], out: Path, truth: str | None
) -> int:
    """A full or incremental retrain, with summary and report; the exit code says what the gate said."""
    steps = Steps()
    with session(kind, warehouse, place) as spark:
        run = open_run(spark, warehouse, place, overrides, last_day=date - ONE_DAY)
        retrained = retrain_with(run, kind, date, steps, out, truth)
    return int(ExitCode.GATE_STOPPED if retrained.stopped else ExitCode.OK)


def retrain_with(run: Run, kind: str, date: datetime.date, steps: Steps, out: Path, truth: str | None) -> Retrained:
    """The same in an open session."""
    retrainer = Retrainer(run.context, run.settings, run.facts, steps)
    retrained = retrainer.full(date) if kind == "full" else retrainer.incremental(date)
    facts = run.facts
    days = [day.isoformat() for day in run.context.raw.listing.days["impressions"]]
    notes = [*(facts.notes if facts else ())]
    if facts is not None and facts.sampled_scale:
        notes.append("Exposures were drawn, not logged: PCOC is on a sampled scale.")
    added = sum(retrained.ids_added.values())
    if kind == "incremental":
        notes.append(f"Warm start from the champion: {added:,} ids added to the vocabularies.")
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
    show_outcome(retrained, files)
    return retrained


def show_outcome(retrained: Retrained, files: Sequence[Path]) -> None:
    """What became of every model, and where to look."""
    table = Table("model", "task", "AUC", "GAUC", "logloss", "PCOC", "verdict", "version")
    for name, found in retrained.releases.items():
        for index, task in enumerate(found.verdict.tasks):
            figures = task.candidate
            numbers = [
                "–" if value is None else f"{value:.4f}"
                for value in (figures.auc, figures.gauc, figures.logloss, figures.pcoc)
            ]
            verdict = f"{found.verdict.verdict} ({found.verdict.rule})" if index == 0 else ""
            table.add_row(name if index == 0 else "", task.task, *numbers, verdict, found.version if index == 0 else "")
    console.print(table)
    for name, found in retrained.releases.items():
        if not found.verdict.passed:
            console.print(f"[yellow]{name} was stopped:[/] {'; '.join(found.verdict.reasons)}")
    for name, why in retrained.skipped.items():
        console.print(f"[yellow]{name} was not trained:[/] {why}")
    for path in files:
        console.print(f"→ {path}")
