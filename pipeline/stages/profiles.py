"""tiles → profiles as of each day: what a model may know of an entity on the morning of D."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from features.spark.profiles import profiles, reads_rooms, tiles_read
from features.spec import TILED_ENTITIES, Entity
from pipeline.context import ONE_DAY, Context, StageResult, summarise
from pipeline.stages.names import profile_table, tile_table


def inputs_of(context: Context, entity: Entity, day: datetime.date) -> dict[str, str]:
    """Tiles (and raw rooms) that arrived before D and may hold rows of its windows."""
    first = day - ONE_DAY * context.catalog.max_days()
    days = context.raw_days("impressions", first, day - ONE_DAY)
    found: dict[str, str] = {}
    for tile in tiles_read(entity, context.catalog):
        found |= context.derived_inputs(tile_table(tile), days)
    if reads_rooms(entity, context.catalog):
        found |= context.raw_inputs("rooms", context.first_raw_day("rooms") or day, day - ONE_DAY)
    return found


def run(context: Context, days: Sequence[datetime.date]) -> StageResult:
    """Profiles of all tiled entities as of each day, many days in one pass per entity."""
    manifests = []
    computed: set[datetime.date] = set()
    for entity in TILED_ENTITIES:
        inputs = {day: inputs_of(context, entity, day) for day in days}
        todo = context.stale_days(profile_table(entity), inputs)
        if not todo:
            continue
        context.report(f"{entity}: {len(todo)} days")
        first, last = min(todo) - ONE_DAY * context.catalog.max_days(), max(todo) - ONE_DAY
        arrivals = context.raw_days("impressions", first, last)
        frame = profiles(
            entity,
            catalog=context.catalog,
            tiles={
                tile: context.warehouse.read_days(context.spark, tile_table(tile), arrivals)
                for tile in tiles_read(entity, context.catalog)
            },
            rooms=context.raw.read("rooms", context.raw_days("rooms", _first(context, first), last)),
            days=todo,
        )
        written = context.warehouse.write_days(
            frame, profile_table(entity), todo, context.provenance(inputs), day_column="day"
        )
        manifests += list(written.values())
        computed |= set(todo)
    return summarise(manifests, sorted(computed), [day for day in days if day not in computed])


def _first(context: Context, otherwise: datetime.date) -> datetime.date:
    return context.first_raw_day("rooms") or otherwise
