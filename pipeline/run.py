"""Runs the day-by-day stages of the plan, in order, for the days that are asked for."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from features.schema import load_catalog
from pipeline.config import PipelineConf, day_range
from pipeline.context import ONE_DAY, Context, StageResult
from pipeline.plan import PLAN, Stage
from pipeline.raw_input import RawInput
from pipeline.raw_listing import list_raw
from pipeline.tables import Warehouse

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class StageRun:
    """A stage that has run: what it did, and how long it took."""

    name: str
    seconds: float
    result: StageResult


def open_context(
    spark: SparkSession,
    warehouse: str,
    conf: PipelineConf,
    *,
    last_day: datetime.date | None = None,
    source: str = "unknown",
    force: bool = False,
) -> Context:
    """List the raw tables once and open everything that stages share.

    Args:
        last_day: nothing that arrived later is listed: `daily --date D` sees dt < D.
    """
    listing = list_raw(spark, Warehouse(warehouse).url, last_day=last_day)
    raw = RawInput(
        spark,
        listing,
        zone=conf.time.zone,
        max_lateness_days=conf.time.max_lateness_days,
        max_repeat_share=conf.raw.max_repeat_share,
    )
    return Context(
        spark=spark,
        warehouse=Warehouse(warehouse),
        raw=raw,
        catalog=load_catalog(),
        conf=conf,
        source=source,
        force=force,
    )


def days_of(stage: Stage, days: Sequence[datetime.date], context: Context) -> list[datetime.date]:
    """The days a stage works on so that samples of `days` can be written."""
    if stage.name != "tiles":
        return list(days)
    first = min(days) - ONE_DAY * context.catalog.max_days()
    return day_range(first, max(days) - ONE_DAY)


def compute_samples(context: Context, days: Sequence[datetime.date], report: Report) -> list[StageRun]:
    """Tiles, profiles and samples for some days; what is up to date is left alone."""
    done = []
    for stage in PLAN:
        if stage.run is None:
            continue
        name = stage.name

        def tell(text: str, name: str = name) -> None:
            report(f"{name}: {text}")

        started = time.monotonic()
        tell("looking at what is up to date")
        result = stage.run(replace(context, report=tell), days_of(stage, days, context))
        done.append(StageRun(name=name, seconds=time.monotonic() - started, result=result))
    return done
