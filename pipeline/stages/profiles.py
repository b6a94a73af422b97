"""tiles → profiles as of each day: what a model may know of an entity on the morning of D.

What is stored is the state of the windows (pipeline/profile_state.py). A day whose eve is up to date is CARRIED from
it: only what arrived on the eve and what leaves a window is read. Other days are made in BULK, all in one pass per
entity, from the tiles of their whole windows; where stored columns stand (pipeline/freshness.py), only those that are
lacking. Each way a partition has the same rows, the same content digest and the same inputs: the tiles of its windows.
So its freshness does not depend on how it was made.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pyspark import StorageLevel

from features.spark.carried import carried_day, delta
from features.spark.on_air import session_days
from features.spark.profiles import profile_state, reads_on_air, tiles_read
from features.spark.window_state import catalog_of_state, on_air_ops, state_layout, stored_entities
from features.spec import Entity
from pipeline.context import ONE_DAY, Context, StageResult, summarise
from pipeline.freshness import Standing
from pipeline.manifests import DataFile, PartitionManifest
from pipeline.profile_state import (
    compacted,
    needs_compaction,
    read_layers,
    widened_state,
    write_base,
    write_delta,
)
from pipeline.stages.names import ON_AIR_TILES, profile_table, tile_table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Inputs = Mapping[datetime.date, Mapping[str, str]]


def inputs_of(context: Context, entity: Entity, day: datetime.date) -> dict[str, str]:
    """Tiles that arrived before D and may hold rows of its windows."""
    found: dict[str, str] = {}
    for tile in tiles_read(entity, context.catalog):
        found |= context.derived_inputs(tile_table(tile), _arrivals(context, entity, tile, day))
    if reads_on_air(entity, context.catalog):
        found |= context.derived_inputs(ON_AIR_TILES, _on_air_arrivals(context, day))
    return found


def run(context: Context, days: Sequence[datetime.date]) -> StageResult:
    """Profiles of all entities as of each day: what lacks columns is widened, the others carried or made in bulk."""
    entities = stored_entities(context.catalog)
    inputs = {entity: {day: inputs_of(context, entity, day) for day in days} for entity in entities}
    todo = {entity: context.stale_days(profile_table(entity), inputs[entity]) for entity in entities}
    wanted = sorted({day for stale in todo.values() for day in stale})
    manifests: list[PartitionManifest] = []
    for entity in entities:
        for standing in context.partly_standing(profile_table(entity), {d: inputs[entity][d] for d in todo[entity]}):
            manifests += widen(context, entity, standing, {day: inputs[entity][day] for day in standing})
            todo[entity] = [day for day in todo[entity] if day not in standing]
    carried_days = days_to_carry(context, sorted({day for stale in todo.values() for day in stale}))
    for entity in entities:
        if in_bulk := {day: inputs[entity][day] for day in todo[entity] if day not in carried_days}:
            context.report(f"{entity}: {len(in_bulk)} days in bulk")
            manifests += bulk(context, entity, in_bulk)
    for day in carried_days:
        context.report(f"{day} carried from the day before")
        manifests += carry(context, day, {entity: inputs[entity][day] for entity in entities if day in todo[entity]})
    return summarise(manifests, wanted, [day for day in days if day not in wanted])


def days_to_carry(context: Context, wanted: Sequence[datetime.date]) -> list[datetime.date]:
    """Of the days that have to be computed: those to carry, oldest first, if they are few enough to be worth it."""
    if len(wanted) > context.conf.windows.max_carried_days:
        return []
    found: list[datetime.date] = []
    for day in sorted(wanted):
        eve = day - ONE_DAY
        if eve in found or (eve not in wanted and _is_up_to_date(context, eve)):
            found.append(day)
    return found


def bulk(context: Context, entity: Entity, inputs: Inputs) -> list[PartitionManifest]:
    """Profiles of an entity as of the days of `inputs`, in one pass over the tiles of all their windows."""
    return write_base(context, entity, _in_bulk(context, entity, list(inputs)), inputs)


def widen(
    context: Context, entity: Entity, standing: Mapping[datetime.date, Standing], inputs: Inputs
) -> list[PartitionManifest]:
    """Profiles of days that keep the same columns: those that they lack are made in bulk, and joined by key."""
    lacks = next(iter(standing.values()))
    context.report(f"{entity}: {len(standing)} days, {lacks.told()}")
    added = None
    if lacks.computed:
        part = replace(context, catalog=catalog_of_state(entity, context.catalog, lacks.computed))
        added = _in_bulk(part, entity, list(standing))
    return write_base(context, entity, widened_state(context, entity, standing, added), inputs, standing)


def _in_bulk(context: Context, entity: Entity, days: Sequence[datetime.date]) -> DataFrame:
    tiles = {
        tile: context.warehouse.read_days(
            context.spark, tile_table(tile), _arrivals(context, entity, tile, max(days), first=min(days))
        )
        for tile in tiles_read(entity, context.catalog)
    }
    on_air = None
    if reads_on_air(entity, context.catalog):
        arrivals = _on_air_arrivals(context, max(days), first=min(days))
        on_air = context.warehouse.read_days(context.spark, ON_AIR_TILES, arrivals)
    return profile_state(entity, catalog=context.catalog, tiles=tiles, on_air=on_air, days=days)


def carry(context: Context, day: datetime.date, inputs: Mapping[Entity, Mapping[str, str]]) -> list[PartitionManifest]:
    """Profiles as of `day` of the entities of `inputs`, from those of the day before."""
    eve, catalog = day - ONE_DAY, context.catalog
    entities = stored_entities(catalog)
    below = {entity: _few_layers(context, entity, eve) for entity in entities}
    kept: list[DataFrame] = []

    def keep(frame: DataFrame) -> DataFrame:
        kept.append(frame.persist(StorageLevel.MEMORY_AND_DISK))
        return kept[-1]

    moved = carried_day(
        catalog,
        states={entity: read_layers(context, entity, below[entity]) for entity in entities},
        tiles={entity: moving_tiles(context, entity, eve) for entity in entities},
        on_air=moving_on_air(context, eve),
        day=eve,
        keep=keep,
    )
    manifests = []
    for entity in entities:
        if entity in inputs:
            rows = delta(state_layout(entity, catalog), moved[entity], day=eve)
            manifests.append(write_delta(context, rows, day, below[entity], inputs[entity]))
    for frame in kept:
        frame.unpersist()
    return manifests


def moving_tiles(context: Context, entity: Entity, day: datetime.date) -> DataFrame:
    """Tiles that enter or leave a window between `day` and the day after; files hold one day e, so few others."""
    leaving = {day - ONE_DAY * length for length in state_layout(entity, context.catalog).tile_lengths()}
    late = range(context.conf.time.max_lateness_days + 1)
    arrivals = {day} | {min(left + ONE_DAY * days, day) for left in leaving for days in late}
    return _files_of(context, tile_table(entity), "impressions", arrivals, day, leaving)


def moving_on_air(context: Context, day: datetime.date) -> DataFrame | None:
    """The same of tiles on air, which may also lie ahead of their arrival; None where no feature reads them."""
    ops = on_air_ops(context.catalog)
    if not ops:
        return None
    lengths = state_layout(Entity.ANCHOR, context.catalog).air_lengths()
    turning = {day, *(day - ONE_DAY * length for length in lengths)}
    arrivals = {day - ONE_DAY * back for back in range(max(lengths) + session_days(ops) + 1)}
    return _files_of(context, ON_AIR_TILES, "rooms", arrivals, day, turning)


def _files_of(
    context: Context,
    table: str,
    raw: str,
    arrivals: set[datetime.date],
    day: datetime.date,
    happened: set[datetime.date],
) -> DataFrame:
    """All rows of the arrival day `day`, and of the other arrivals those that happened on one of some days."""

    def wanted(arrived: datetime.date, file: DataFile) -> bool:
        return arrived == day or file.happened is None or file.happened in happened

    known = context.raw.listing.since_history(raw, sorted(arrivals))
    return context.warehouse.read_files(context.spark, table, context.warehouse.require(table, known), wanted)


def _few_layers(context: Context, entity: Entity, day: datetime.date) -> PartitionManifest:
    """The partition of a day, compacted first where its deltas have become too many."""
    table = profile_table(entity)
    manifest = context.warehouse.require(table, [day])[day]
    windows = context.conf.windows
    if not needs_compaction(manifest, max_deltas=windows.max_deltas, max_delta_share=windows.max_delta_share):
        return manifest
    context.report(f"{entity}: compacting {manifest.partition}")
    return compacted(context, entity, manifest)


def _is_up_to_date(context: Context, day: datetime.date) -> bool:
    """Whether every entity's profiles of a day are there, made from what is there now, by this code and conf."""
    return all(
        context.is_fresh(profile_table(entity), day, inputs_of(context, entity, day))
        for entity in stored_entities(context.catalog)
    )


def _arrivals(
    context: Context, entity: Entity, tile: Entity, last: datetime.date, first: datetime.date | None = None
) -> list[datetime.date]:
    """Arrival days of the tiles that the windows of an entity hold on the days from `first` to `last`."""
    reach = ONE_DAY * state_layout(entity, context.catalog).reach(tile)
    return context.raw_days("impressions", (first or last) - reach, last - ONE_DAY)


def _on_air_arrivals(context: Context, last: datetime.date, first: datetime.date | None = None) -> list[datetime.date]:
    days = max(state_layout(Entity.ANCHOR, context.catalog).air_lengths()) + session_days(on_air_ops(context.catalog))
    return context.raw_days("rooms", (first or last) - ONE_DAY * days, last - ONE_DAY)
