"""raw logs + profiles + recent actions → samples: sequences, room state and labels are computed on the way.

They are joined in one Spark job and written once, when the day is mature; a table of each would be written
and read again for nothing (docs/decisions/0004).
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING

from features.schema import Catalog
from features.spark.labels import flag_columns, labels
from features.spark.room_state import room_state
from features.spark.samples import sampled_impressions, samples
from features.spark.sequences import sequences
from features.spark.snapshots import SNAPSHOT_TABLES, choose_snapshots, snapshot_features
from features.spec import TILED_ENTITIES, Entity, SnapshotOp
from pipeline.context import ONE_DAY, Context, StageResult, summarise
from pipeline.observed import keys_of
from pipeline.profile_state import read_features
from pipeline.stages.names import RECENT_ACTIONS, SAMPLES, profile_table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

KEY = ("impression_id",)
ROOM_STATS_DAYS = 1  # minutes of the day before count for impressions just after midnight


def inputs_of(context: Context, day: datetime.date) -> dict[str, str]:
    """Partitions that the samples of a day depend on."""
    last = day + ONE_DAY * context.conf.time.label_delay_days
    found: dict[str, str] = {}
    for entity in _profiled(context.catalog):
        found |= context.derived_inputs(profile_table(entity), [day])
    for entity, snapshot in _snapshots(context, [day]).items():
        found |= context.raw_inputs(SNAPSHOT_TABLES[entity], snapshot[day], snapshot[day])
    found |= context.raw_inputs("impressions", day, last)
    found |= context.derived_inputs(RECENT_ACTIONS, [day])
    found |= context.raw_inputs("actions", day, last)
    found |= context.raw_inputs("room_stats", day - ONE_DAY * ROOM_STATS_DAYS, day)
    return found | context.raw_inputs("rooms", context.first_raw_day("rooms") or day, last)


def run(context: Context, days: Sequence[datetime.date]) -> StageResult:
    """Samples of mature days, many days in one pass.

    Raises:
        NotReadyError: when a day is not mature yet, or its profiles or recent actions were not computed.
        DataError: when the join lost or repeated impressions.
    """
    inputs = {day: inputs_of(context, day) for day in days}
    todo = context.stale_days(SAMPLES, inputs)
    manifests = []
    if todo:
        context.report(f"{len(todo)} days")
        shown = _shown(context, todo)
        wanted = shown.where(shown["day"].isin(todo))
        written = context.warehouse.write_days(
            _joined(context, shown, todo),
            SAMPLES,
            todo,
            context.provenance(inputs),
            counted=flag_columns(context.catalog),
            key=KEY,
            expected=keys_of(wanted, "day", KEY),
        )
        manifests = list(written.values())
    return summarise(manifests, todo, [day for day in days if day not in todo])


def _shown(context: Context, days: list[datetime.date]) -> DataFrame:
    """Impressions that arrived in time for their day's samples, of these days and up to their maturity."""
    delay = context.conf.time.label_delay_days
    arrived = context.raw_days("impressions", min(days), max(days) + ONE_DAY * delay)
    return sampled_impressions(context.raw.read("impressions", arrived), label_delay_days=delay)


def _joined(context: Context, shown: DataFrame, days: list[datetime.date]) -> DataFrame:
    catalog, time = context.catalog, context.conf.time
    first, last = min(days), max(days)
    mature = last + ONE_DAY * time.label_delay_days
    rooms = context.raw.read("rooms", context.raw_days("rooms", context.first_raw_day("rooms") or first, mature))
    actions = context.raw.read("actions", context.raw_days("actions", first, mature))
    stats_days = context.raw_days("room_stats", first - ONE_DAY * ROOM_STATS_DAYS, last)
    # What arrived before the first day is in its state; what arrived since is read from raw for all days alike.
    context.warehouse.require(RECENT_ACTIONS, days)
    recent = context.warehouse.read_days(context.spark, RECENT_ACTIONS, [first])
    wanted = shown.where(shown["day"].isin(days))
    labelled = labels(
        catalog,
        shown,
        actions,
        rooms,
        label_delay_days=time.label_delay_days,
        attribution_hours=time.attribution_hours,
        conversions_imply_enter=time.conversions_imply_enter,
        days=days,
    )
    return samples(
        catalog,
        wanted,
        profiles={entity: read_features(context, entity, days) for entity in _profiled(catalog)},
        snapshots=_snapshot_frames(context, days),
        sequences=sequences(catalog, wanted, actions, rooms, time.event_lag_seconds, recent),
        room_state=room_state(
            catalog, wanted, context.raw.read("room_stats", stats_days), rooms, time.event_lag_seconds
        ),
        labels=labelled,
        counted=flag_columns(catalog),
    )


def _profiled(catalog: Catalog) -> list[Entity]:
    return [entity for entity in TILED_ENTITIES if catalog.windows(entity)]


def _snapshots(context: Context, days: Sequence[datetime.date]) -> dict[Entity, dict[datetime.date, datetime.date]]:
    """Entity → day → the snapshot partition that it sees."""
    chosen = {}
    for entity, table in SNAPSHOT_TABLES.items():
        if any(isinstance(feature.op, SnapshotOp) for feature in context.catalog.of_entity(entity)):
            ready = [day for day, partition in context.raw.listing.partitions[table].items() if partition.ready]
            age = context.conf.time.max_snapshot_age_days
            chosen[entity] = choose_snapshots(table, ready, days=days, max_age_days=age)
    return chosen


def _snapshot_frames(context: Context, days: Sequence[datetime.date]) -> dict[Entity, DataFrame]:
    frames = {}
    for entity, chosen in _snapshots(context, days).items():
        raw = context.raw.read(SNAPSHOT_TABLES[entity], set(chosen.values()))
        frames[entity] = snapshot_features(entity, catalog=context.catalog, snapshots=raw, chosen=chosen)
    return frames
