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
from pipeline.config import PipelineConf, full_retrain_days
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
        first, last = run.context.raw.listing.days["impressions"][0], run.context.raw.listing.days["impressions"][-1]
        shorter = shorter_days(run.settings.pipeline, first, last)
        if shorter:
            console.print(f"[dim]The logs span {(last - first).days + 1} days: {', '.join(shorter)}[/]")
            run = open_run(spark, str(warehouse), place, [*overrides, *shorter])
        retrained = retrain_with(run, "full", last + ONE_DAY, steps, out, str(truth) if truth else None)
    _say_where(warehouse, truth, last, simulated=source == "simulate", days=DEMO_DAYS)
    return int(ExitCode.GATE_STOPPED if retrained.stopped else ExitCode.OK)


def shorter_days(conf: PipelineConf, first: datetime.date, last: datetime.date) -> list[str]:
    """Overrides that fit the days of a full retrain into a short history; none when it is long enough.

    The first day has no profile before it, so it is left out; booster days go first, then train days.
    """
    days = full_retrain_days(last + ONE_DAY, conf)
    room = (days.valid[0] - first).days - 1
    if room >= conf.days.fit + conf.days.train:
        return []
    fit = max(2, min(conf.days.fit, room - conf.days.train))
    train = max(1, min(conf.days.train, room - fit))
    return [f"days.fit={fit}", f"days.train={train}"]


def _say_where(warehouse: Path, truth: Path | None, last: datetime.date, *, simulated: bool, days: int) -> None:
    console.print(f"→ .venv/bin/limelight status -w {warehouse}", soft_wrap=True)
    if simulated:
        common = f"-w {warehouse} --truth {truth}"
        console.print(
            "→ the next day:\n"
            f"  .venv/bin/limelight ingest simulate {common} --from-day {days} --to-day {days + 1}\n"
            f"  .venv/bin/limelight incremental {common} --date {last + 2 * ONE_DAY}",
            soft_wrap=True,
        )
