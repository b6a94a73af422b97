"""What day-by-day stages did, one line each; needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape

from jobs.console import Steps, console
from jobs.summary import StageTime
from pipeline.context import Context
from pipeline.run import StageRun


def tell_stages(steps: Steps, runs: Sequence[StageRun], context: Context) -> None:
    """One line per stage with what it counted, then the raw columns that nothing reads."""
    for run in runs:
        counted = [f"{name} {count:,}" for name, count in run.result.counts.items() if count]
        done = f"{len(run.result.computed)} days computed, {len(run.result.skipped)} up to date"
        note = ", ".join([done, *counted])
        steps.record(StageTime(name=run.name, seconds=run.seconds, rows=run.result.rows), note)
    tell_unread(context)


def tell_unread(context: Context) -> None:
    """Columns of the raw days that were looked at and that neither the contract nor the catalog names."""
    for table, columns in context.raw.columns.all_unread(context.catalog).items():
        found = ", ".join(f"{name} ({days} days)" for name, days in columns.items())
        console.print(f"  [dim]raw/{table} has columns that nothing reads: {escape(found)}[/]", soft_wrap=True)
