"""The last actions before a day, as they are stored: a state now and then, and a tile for each arrival day since.

A partition of `recent_actions` spares reading the tiles before it, and holds nothing that they do not: whoever reads
rests on the tiles, whether or not there is a state. It is made anew where the newest one is too many days old.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from features.spark.ops import ARRIVED
from features.spark.recent_actions import STATE_DAY, STATE_SCHEMA, as_stored, max_age_days
from pipeline.context import ONE_DAY, Context
from pipeline.stages.names import ACTION_TILES, RECENT_ACTIONS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def tiles_before(context: Context, day: datetime.date) -> dict[str, str]:
    """The tiles that the last actions before a day are made of: partition → digest; those not computed are absent."""
    return context.derived_inputs(ACTION_TILES, _arrivals(context, day - _reach(context), day))


def stored_before(context: Context, day: datetime.date, other_than: Collection[datetime.date] = ()) -> DataFrame:
    """The last actions before a day: of `as_stored`, from the newest state that is up to date.

    Args:
        other_than: days whose state is not to be used.

    Raises:
        NotReadyError: when a tile was not computed.
    """
    newest = newest_state(replace(context, force=False), day, other_than)
    arrived = _arrivals(context, newest or day - _reach(context), day)
    state = context.warehouse.read_days(context.spark, RECENT_ACTIONS, [newest]) if newest else None
    if arrived:
        return as_stored(context.warehouse.read_days(context.spark, ACTION_TILES, arrived), state)
    none = context.spark.createDataFrame([], STATE_SCHEMA)
    return state if state is not None else as_stored(none.withColumnRenamed(STATE_DAY, ARRIVED))


def newest_state(
    context: Context, day: datetime.date, other_than: Collection[datetime.date] = ()
) -> datetime.date | None:
    """The newest day up to `day`, within reach, whose state is up to date."""
    within = (found for found in committed_states(context) if day - _reach(context) < found <= day)
    for found in sorted(within, reverse=True):
        if found not in other_than and context.is_fresh(RECENT_ACTIONS, found, tiles_before(context, found)):
            return found
    return None


def committed_states(context: Context) -> list[datetime.date]:
    """Days whose state is there, up to date or not, oldest first."""
    names = context.warehouse.partitions(RECENT_ACTIONS)
    return sorted(datetime.date.fromisoformat(name.removeprefix("dt=")) for name in names)


def _reach(context: Context) -> datetime.timedelta:
    return ONE_DAY * max_age_days(context.catalog)


def _arrivals(context: Context, since: datetime.date, day: datetime.date) -> list[datetime.date]:
    return context.raw_days("actions", since, day - ONE_DAY)
