"""raw logs → tiles, one partition per arrival day; those of windows in files of one day e each, as e leaves alone."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pyspark import StorageLevel
from pyspark.sql import functions as F

from features.schema import Catalog
from features.spark.action_events import action_events
from features.spark.on_air import on_air_tiles
from features.spark.ops import ARRIVED, CATEGORY, HAPPENED
from features.spark.recent_actions import action_tiles
from features.spark.tiles import roll_up, room_tiles
from features.spark.window_state import on_air_ops
from features.spec import TILED_ENTITIES, Entity
from pipeline.context import ONE_DAY, Context, StageResult, summarise
from pipeline.freshness import Standing
from pipeline.manifests import PartitionManifest, Provenance
from pipeline.stages.names import ACTION_TILES, ON_AIR_TILES, tile_table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

LATE_IMPRESSIONS = "impressions_too_late_for_samples"

Inputs = Mapping[datetime.date, Mapping[str, str]]


def inputs_of(context: Context, entity: Entity, day: datetime.date) -> dict[str, str]:
    """Raw partitions that the tiles of an arrival day depend on."""
    logs = {**context.raw_inputs("impressions", day, day), **context.raw_inputs("actions", day, day)}
    if CATEGORY not in entity.keys:
        return logs
    return logs | context.raw_inputs("rooms", context.first_room_day(day), day)


def on_air_inputs_of(context: Context, day: datetime.date) -> dict[str, str]:
    """Raw partitions that the tiles on air of an arrival day depend on."""
    return context.raw_inputs("rooms", context.first_room_day(day - ONE_DAY), day)


def run(context: Context, days: Sequence[datetime.date]) -> StageResult:
    """Tiles of arrival days; days before the history of the impressions (of the rooms) begins have none."""
    known = context.raw.listing.since_history("impressions", days)
    inputs = {entity: {day: inputs_of(context, entity, day) for day in known} for entity in TILED_ENTITIES}
    todo = {entity: context.stale_days(tile_table(entity), inputs[entity]) for entity in TILED_ENTITIES}
    manifests: list[PartitionManifest] = []
    wanted = sorted({day for stale in todo.values() for day in stale})
    if wanted:
        by_room = room_tiles(context.raw.read("impressions", wanted), context.raw.read("actions", wanted))
        by_room.persist(StorageLevel.MEMORY_AND_DISK)
        for entity in TILED_ENTITIES:
            if todo[entity]:
                context.report(f"{entity}: {len(todo[entity])} days")
                its_inputs = {day: inputs[entity][day] for day in todo[entity]}
                manifests += _roll_up(context, entity, by_room, its_inputs)
        by_room.unpersist()
    manifests += _on_air(context, days)
    manifests += _actions(context, days)
    computed = {datetime.date.fromisoformat(manifest.partition.removeprefix("dt=")) for manifest in manifests}
    return summarise(manifests, sorted(computed), [day for day in known if day not in computed])


def _roll_up(context: Context, entity: Entity, by_room: DataFrame, inputs: Inputs) -> list[PartitionManifest]:
    days = list(inputs)
    rooms = None
    if CATEGORY in entity.keys:
        known = context.raw_days("rooms", context.first_room_day(min(days)), max(days))
        rooms = context.raw.read("rooms", known)
    frame = roll_up(
        entity,
        by_room.where(F.col(ARRIVED).isin(days)),
        rooms=rooms,
        max_room_age_days=context.conf.time.max_room_age_days,
    )
    counted: list[str] = []
    counts: dict[datetime.date, dict[str, int]] = {}
    if entity is Entity.USER:
        counts = _raw_counts(context, days)
        # What arrives after its day's samples were written is in no sample; it is counted here.
        too_late = F.date_diff(ARRIVED, HAPPENED) > context.conf.time.label_delay_days
        frame = frame.withColumn(LATE_IMPRESSIONS, F.when(too_late, F.col("impressions")).otherwise(0))
        counted = [LATE_IMPRESSIONS]
    written = context.warehouse.write_days(
        frame,
        tile_table(entity),
        days,
        context.provenance(tile_table(entity), inputs),
        day_column=ARRIVED,
        counted=counted,
        counts=counts,
        split_by=HAPPENED,
    )
    return list(written.values())


def _on_air(context: Context, days: Sequence[datetime.date]) -> list[PartitionManifest]:
    """Tiles on air, where a feature reads them."""
    ops = on_air_ops(context.catalog)
    if not ops:
        return []
    known = context.raw.listing.since_history("rooms", days)
    inputs = {day: on_air_inputs_of(context, day) for day in known}
    todo = context.stale_days(ON_AIR_TILES, inputs)
    if not todo:
        return []
    context.report(f"on air: {len(todo)} days")
    rooms = context.raw_days("rooms", context.first_room_day(min(todo) - ONE_DAY), max(todo))
    age = context.conf.time.max_room_age_days
    frame = on_air_tiles(context.raw.read("rooms", rooms), ops, days=todo, max_room_age_days=age)
    written = context.warehouse.write_days(
        frame,
        ON_AIR_TILES,
        todo,
        context.provenance(ON_AIR_TILES, {day: inputs[day] for day in todo}),
        day_column=ARRIVED,
        split_by=HAPPENED,
    )
    return list(written.values())


def actions_inputs_of(context: Context, day: datetime.date) -> dict[str, str]:
    """Raw partitions that the tiles of actions of an arrival day depend on."""
    rooms = context.raw_inputs("rooms", context.first_room_day(day), day)
    return context.raw_inputs("actions", day, day) | rooms


def _actions(context: Context, days: Sequence[datetime.date]) -> list[PartitionManifest]:
    """Tiles of the actions that sequences are made of; of a day of which the rows of some actions stand, the others."""
    if not context.catalog.sequences:
        return []
    known = context.raw.listing.since_history("actions", days)
    inputs = {day: actions_inputs_of(context, day) for day in known}
    todo = context.stale_days(ACTION_TILES, inputs)
    manifests: list[PartitionManifest] = []
    for standing in context.partly_standing(ACTION_TILES, {day: inputs[day] for day in todo}):
        context.report(f"actions: {len(standing)} days, {next(iter(standing.values())).told()}")
        provenance = context.provenance(ACTION_TILES, inputs, standing)
        manifests += _write_actions(context, _widened_actions(context, standing), list(standing), provenance)
        todo = [day for day in todo if day not in standing]
    if todo:
        context.report(f"actions: {len(todo)} days")
        provenance = context.provenance(ACTION_TILES, inputs)
        manifests += _write_actions(context, _action_tiles(context, context.catalog, todo), todo, provenance)
    return manifests


def _write_actions(
    context: Context, frame: DataFrame, days: Sequence[datetime.date], provenance: Provenance
) -> list[PartitionManifest]:
    written = context.warehouse.write_days(frame, ACTION_TILES, days, provenance, day_column=ARRIVED)
    return list(written.values())


def _action_tiles(context: Context, catalog: Catalog, days: Sequence[datetime.date]) -> DataFrame:
    rooms = context.raw.read("rooms", context.raw_days("rooms", context.first_room_day(min(days)), max(days)))
    time = context.conf.time
    events = action_events(catalog, context.raw.read("actions", days), rooms, time.max_room_age_days)
    return action_tiles(catalog, events, days=days, event_lag_s=time.event_lag_seconds)


def _widened_actions(context: Context, standing: Mapping[datetime.date, Standing]) -> DataFrame:
    """Tiles of days that keep the rows of the same actions and lack those of the same ones."""
    days, (lacks, *_) = list(standing), standing.values()
    manifests = {day: found.manifest for day, found in standing.items()}
    stored = context.warehouse.read_files(context.spark, ACTION_TILES, manifests)
    rows = stored.where(stored["action"].isin(*lacks.kept))
    if not lacks.computed:
        return rows
    sequences = tuple(s for s in context.catalog.sequences if s.action in lacks.computed)
    return rows.unionByName(_action_tiles(context, replace(context.catalog, sequences=sequences), days))


def _raw_counts(context: Context, days: Sequence[datetime.date]) -> dict[datetime.date, dict[str, int]]:
    """Rows of each arrival day that count nowhere, and whether the day is there and empty."""
    counts: dict[datetime.date, dict[str, int]] = {day: {} for day in days}
    for table in ("impressions", "actions"):
        found = context.raw.counts(table, days)
        for day in days:
            counts[day][f"{table}_quarantined"] = found.quarantined.get(day, 0)
            counts[day][f"{table}_repeated"] = found.repeated.get(day, 0)
            counts[day][f"{table}_empty_days"] = int(day in found.empty_days)
            counts[day][f"{table}_unread_columns"] = len(context.raw.columns.unread(table, day, context.catalog))
    return counts
