"""tiles of actions → the last actions of every user before a day, now and then: so that few tiles are read.

Samples read the newest state and the tiles since (pipeline/recent_state.py). One is made where the newest is more
than `windows.max_deltas` days old; one that would be read and is not up to date is made anew.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from features.spark.recent_actions import recent_actions
from pipeline.context import ONE_DAY, Context, StageResult, summarise
from pipeline.manifests import PartitionManifest
from pipeline.recent_state import committed_states, stored_before, tiles_before
from pipeline.stages.names import RECENT_ACTIONS


def run(context: Context, days: Sequence[datetime.date]) -> StageResult:
    """The states that samples of some days, written in one pass, are to begin with."""
    there = committed_states(context)
    first = min(days)
    near = [day for day in there if first - ONE_DAY * context.conf.windows.max_deltas <= day <= first]
    wanted = {*(day for day in days if day in there), max(near, default=first)}
    inputs = {day: tiles_before(context, day) for day in wanted}
    todo = sorted(context.stale_days(RECENT_ACTIONS, inputs))
    manifests: list[PartitionManifest] = []
    for number, day in enumerate(todo):
        context.report(f"{day}")
        stored = stored_before(context, day, other_than=todo[number:])
        lag = context.conf.time.event_lag_seconds
        frame = recent_actions(context.catalog, stored, days=[day], event_lag_s=lag)
        provenance = context.provenance(RECENT_ACTIONS, {day: inputs[day]})
        manifests += context.warehouse.write_days(frame, RECENT_ACTIONS, [day], provenance).values()
    return summarise(manifests, todo, [day for day in days if day not in todo])
