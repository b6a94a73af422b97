"""Runs the day-by-day stages of the plan, in order, for the days that are asked for."""

from __future__ import annotations

import datetime
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from features.schema import load_catalog
from features.spark.on_air import session_days
from features.spark.window_state import on_air_ops
from pipeline.config import PipelineConf, day_range
from pipeline.context import ONE_DAY, Context, StageResult
from pipeline.looking import raw_days_to_read
from pipeline.manifests import day_partition
from pipeline.plan import Stage, sample_stages
from pipeline.raw_input import RawInput
from pipeline.raw_listing import list_raw
from pipeline.tables import Warehouse

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Report = Callable[[str], None]
DAYS = "days"  # a folder of leases alone: who computes which days


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
    air = on_air_ops(context.catalog)
    reach = context.catalog.max_days() + (session_days(air) if air else 0)
    first = min(days) - ONE_DAY * reach
    return day_range(first, max(days) - ONE_DAY)


def compute_samples(context: Context, days: Sequence[datetime.date], report: Report) -> list[StageRun]:
    """Everything up to the samples of some days; what is up to date is left alone.

    Raises:
        HeldError: when another run computes one of these days: who, since when.
        DataError: when raw days lack columns or have them of other types: all of them, before anything is computed.
    """
    staged = {stage: days_of(stage, days, context) for stage in sample_stages()}
    return run_stages(context, staged, days, report)


def run_stages(
    context: Context, staged: Mapping[Stage, Sequence[datetime.date]], held: Iterable[datetime.date], report: Report
) -> list[StageRun]:
    """Run day-by-day stages in order, each for its own days, alone on the days of `held`.

    The lease on whole days is taken beside those of the single tables: of two runs of one day the second is told at
    once, and the first is not overtaken between two of its tables.

    Raises:
        HeldError, DataError: as `compute_samples`.
    """
    holder = uuid.uuid4().hex[:12]
    with context.warehouse.lease(DAYS, [day_partition(day) for day in sorted(set(held))], holder):
        report("looking at the columns of raw days")
        context.raw.columns.require(raw_days_to_read(context, staged), context.catalog)
        return [_run(context, stage, days, report) for stage, days in staged.items() if stage.run is not None]


def _run(context: Context, stage: Stage, days: Sequence[datetime.date], report: Report) -> StageRun:
    def tell(text: str) -> None:
        report(f"{stage.name}: {text}")

    assert stage.run is not None
    started = time.monotonic()
    tell("looking at what is up to date")
    result = stage.run(replace(context, report=tell), days)
    return StageRun(name=stage.name, seconds=time.monotonic() - started, result=result)
