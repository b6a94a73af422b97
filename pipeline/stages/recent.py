"""raw actions → the last actions of every user before each day, carried from an earlier day where there is one."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from features.schema import Catalog
from features.spark.recent_actions import action_events, max_age_days, recent_actions
from pipeline.context import ONE_DAY, Context, StageResult, summarise
from pipeline.freshness import Standing
from pipeline.manifests import PartitionManifest
from pipeline.stages.names import RECENT_ACTIONS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def inputs_of(context: Context, day: datetime.date) -> dict[str, str]:
    """Raw partitions that the state of a day depends on, whichever of them it was computed from."""
    reach = context.raw_inputs("actions", day - ONE_DAY * max_age_days(context.catalog), day - ONE_DAY)
    return reach | context.raw_inputs("rooms", context.first_raw_day("rooms") or day, day - ONE_DAY)


def run(context: Context, days: Sequence[datetime.date]) -> StageResult:
    """States of some days in one pass: from the newest fresh state before them, or from raw alone (backfill)."""
    inputs = {day: inputs_of(context, day) for day in days}
    todo = context.stale_days(RECENT_ACTIONS, inputs)
    manifests: list[PartitionManifest] = []
    whole = list(todo)
    for standing in context.partly_standing(RECENT_ACTIONS, {day: inputs[day] for day in todo}):
        frame = _widened(context, standing)
        provenance = context.provenance(RECENT_ACTIONS, inputs, standing)
        manifests += context.warehouse.write_days(frame, RECENT_ACTIONS, list(standing), provenance).values()
        whole = [day for day in whole if day not in standing]
    if whole:
        start = carried_from(context, min(whole))
        context.report(f"{len(whole)} days from {start or 'raw'}")
        frame = _computed(context, context.catalog, whole, start)
        provenance = context.provenance(RECENT_ACTIONS, inputs)
        manifests += context.warehouse.write_days(frame, RECENT_ACTIONS, whole, provenance).values()
    return summarise(manifests, todo, [day for day in days if day not in todo])


def _computed(
    context: Context, catalog: Catalog, days: Sequence[datetime.date], start: datetime.date | None
) -> DataFrame:
    """States of some days by the sequences of a catalog: from that of `start`, or from raw alone."""
    first, last = min(days), max(days) - ONE_DAY
    since = start or first - ONE_DAY * max_age_days(catalog)
    events = action_events(
        catalog,
        context.raw.read("actions", context.raw_days("actions", since, last)),
        context.raw.read("rooms", context.raw_days("rooms", context.first_raw_day("rooms") or first, last)),
    )
    return recent_actions(
        catalog,
        events,
        days=days,
        event_lag_s=context.conf.time.event_lag_seconds,
        before=context.warehouse.read_days(context.spark, RECENT_ACTIONS, [start]) if start else None,
    )


def _widened(context: Context, standing: Mapping[datetime.date, Standing]) -> DataFrame:
    """States of days of which the rows of some actions stand; those of the others are computed from raw."""
    days, (lacks, *_) = list(standing), standing.values()
    context.report(f"{len(days)} days, {lacks.told()}")
    manifests = {day: found.manifest for day, found in standing.items()}
    stored = context.warehouse.read_files(context.spark, RECENT_ACTIONS, manifests)
    rows = stored.where(stored["action"].isin(*lacks.kept))
    if not lacks.computed:
        return rows
    sequences = tuple(s for s in context.catalog.sequences if s.action in lacks.computed)
    return rows.unionByName(_computed(context, replace(context.catalog, sequences=sequences), days, None))


def carried_from(context: Context, day: datetime.date) -> datetime.date | None:
    """The newest day before `day`, within reach, whose state is up to date."""
    for age in range(1, max_age_days(context.catalog)):
        earlier = day - ONE_DAY * age
        if context.is_fresh(RECENT_ACTIONS, earlier, inputs_of(context, earlier)):
            return earlier
    return None
