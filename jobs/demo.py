"""`limelight demo`: the whole chain on one machine, in one Spark session, from nothing to a published model."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Sequence
from pathlib import Path

from features.errors import ExitCode
from jobs.console import Steps, console
from jobs.ingest import IngestOptions, find_source
from jobs.open_run import open_run, session
from jobs.run_command import ingest_with, retrain_with
from pipeline.context import ONE_DAY

DEMO_DAYS = 18


def run_demo(source: str, data: str | None, out: Path, place: str, overrides: Sequence[str], impressions: int) -> int:
    """Ingest, backfill, daily; then where to look.

    An earlier demo's warehouse in `out` is replaced: the demo shows a first day.

    Returns:
        0 when every model passed the gate, 7 when one was stopped.
    """
    find_source(source)
    steps = Steps()
    warehouse = out / "warehouse"
    truth = out / "truth" if source == "simulate" else None
    for folder in (warehouse, truth):
        if folder is not None and folder.exists():
            shutil.rmtree(folder)
    out.mkdir(parents=True, exist_ok=True)
    console.print(f"[bold]Limelight demo[/]: {source} → {out}")
    with session("demo", str(warehouse), place, overrides) as spark:
        options = IngestOptions(
            data=data,
            truth=str(truth) if truth else None,
            impressions=impressions,
            days=DEMO_DAYS if source == "simulate" else None,
        )
        ingest_with(spark, source, options, str(warehouse), steps)
        run = open_run(spark, str(warehouse), place, overrides)
        last = run.context.raw.listing.days["impressions"][-1]
        retrained = retrain_with(run, "full", last + ONE_DAY, steps, out, str(truth) if truth else None)
    _say_where(warehouse, truth, last, simulated=source == "simulate", days=DEMO_DAYS)
    return int(ExitCode.GATE_STOPPED if retrained.stopped else ExitCode.OK)


def _say_where(warehouse: Path, truth: Path | None, last: datetime.date, *, simulated: bool, days: int) -> None:
    console.print(f"→ limelight status -w {warehouse}")
    if simulated:
        console.print(
            "→ the next day:\n"
            f"  limelight ingest simulate -w {warehouse} --truth {truth} --from-day {days} --to-day {days + 1}\n"
            f"  limelight incremental -w {warehouse} --truth {truth} --date {last + 2 * ONE_DAY}"
        )
