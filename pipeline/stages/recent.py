"""raw actions → the last actions of every user before each day, carried from an earlier day where there is one."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from features.spark.recent_actions import action_events, max_age_days, recent_actions
from pipeline.context import ONE_DAY, Context, StageResult, summarise
from pipeline.stages.names import RECENT_ACTIONS


def inputs_of(context: Context, day: datetime.date) -> dict[str, str]:
    """Raw partitions that the state of a day depends on, whichever of them it was computed from."""
    reach = context.raw_inputs("actions", day - ONE_DAY * max_age_days(context.catalog), day - ONE_DAY)
    return reach | context.raw_inputs("rooms", context.first_raw_day("rooms") or day, day - ONE_DAY)


def run(context: Context, days: Sequence[datetime.date]) -> StageResult:
    """States of some days in one pass: from the newest fresh state before them, or from raw alone (backfill)."""
    inputs = {day: inputs_of(context, day) for day in days}
    todo = context.stale_days(RECENT_ACTIONS, inputs)
    manifests = []
    if todo:
        first, last = min(todo), max(todo) - ONE_DAY
        start = carried_from(context, first)
        context.report(f"{len(todo)} days from {start or 'raw'}")
        since = start or first - ONE_DAY * max_age_days(context.catalog)
        events = action_events(
            context.catalog,
            context.raw.read("actions", context.raw_days("actions", since, last)),
            context.raw.read("rooms", context.raw_days("rooms", context.first_raw_day("rooms") or first, last)),
        )
        frame = recent_actions(
            context.catalog,
            events,
            days=todo,
            event_lag_s=context.conf.time.event_lag_seconds,
            before=context.warehouse.read_days(context.spark, RECENT_ACTIONS, [start]) if start else None,
        )
        written = context.warehouse.write_days(frame, RECENT_ACTIONS, todo, context.provenance(RECENT_ACTIONS, inputs))
        manifests = list(written.values())
    return summarise(manifests, todo, [day for day in days if day not in todo])


def carried_from(context: Context, day: datetime.date) -> datetime.date | None:
    """The newest day before `day`, within reach, whose state is up to date."""
    for age in range(1, max_age_days(context.catalog)):
        earlier = day - ONE_DAY * age
        if context.is_fresh(RECENT_ACTIONS, earlier, inputs_of(context, earlier)):
            return earlier
    return None
