"""profiles, snapshots, last actions and vocabulary as of D → the serving tables, one per entity.

A key-value store loads a partition in one pass: row r lies in the file of its bucket, pmod(hash(keys), buckets) with
Spark's `hash` (Murmur3, seed 42), rows of a file are sorted by key, and a bucket is one file.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING

from features.spark.recent_actions import recent_actions
from features.spark.serving import AS_OF, key_vocabularies, recent_sequences, serving_rows
from features.spark.snapshots import SNAPSHOT_TABLES, choose_snapshots, snapshot_features
from features.spark.vocabulary import ids_in_use
from features.spec import TILED_ENTITIES, Entity, SnapshotOp
from pipeline import trainset
from pipeline.context import ONE_DAY, Context, StageResult, summarise
from pipeline.profile_state import read_features
from pipeline.recent_state import stored_before, tiles_before
from pipeline.stages.names import TRAINSETS, profile_table, serving_table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def run(context: Context, days: Sequence[datetime.date]) -> StageResult:
    """The serving tables as of some days.

    Raises:
        NotReadyError: when profiles or tiles of actions of a day were not computed, or there is no fresh snapshot.
    """
    manifests = []
    computed: set[datetime.date] = set()
    for entity in TILED_ENTITIES:
        table = serving_table(entity)
        inputs = {day: inputs_of(context, entity, day) for day in days}
        for day in context.stale_days(table, inputs):
            context.report(f"{entity}: {day}")
            rows = serving_rows(
                context.catalog,
                entity,
                day=day,
                newest_arrival=max(context.raw_days("actions", day - ONE_DAY, day - ONE_DAY), default=day - ONE_DAY),
                parts=_parts(context, entity, day),
                vocabularies=_vocabularies(context, entity),
            )
            bucketed = rows.repartition(context.conf.serving.buckets, *entity.keys)
            ordered = bucketed.sortWithinPartitions(AS_OF, *entity.keys)
            provenance = context.provenance(table, {day: inputs[day]})
            written = context.warehouse.write_days(ordered, table, [day], provenance)
            manifests += list(written.values())
            computed.add(day)
    return summarise(manifests, sorted(computed), [day for day in days if day not in computed])


def inputs_of(context: Context, entity: Entity, day: datetime.date) -> dict[str, str]:
    """Partitions that the rows of a day depend on."""
    found = context.derived_inputs(profile_table(entity), [day])
    if entity is Entity.USER:
        found |= tiles_before(context, day)
    chosen = _snapshot_day(context, entity, day)
    if chosen is not None:
        found |= context.raw_inputs(SNAPSHOT_TABLES[entity], chosen, chosen)
    name = newest_trainset(context)
    manifest = context.warehouse.manifest(TRAINSETS, trainset.trainset_partition(name)) if name else None
    return found | ({f"{TRAINSETS}/{manifest.partition}": manifest.digest} if manifest else {})


def newest_trainset(context: Context) -> str | None:
    """Name of the train set that was committed last; its vocabularies give the ids."""
    found = [context.warehouse.manifest(TRAINSETS, name) for name in context.warehouse.partitions(TRAINSETS)]
    newest = max((m for m in found if m is not None), key=lambda manifest: manifest.created_at, default=None)
    return newest.partition.removeprefix("name=") if newest else None


def _parts(context: Context, entity: Entity, day: datetime.date) -> list[DataFrame]:
    parts = [read_features(context, entity, [day]).drop("day")]
    chosen = _snapshot_day(context, entity, day)
    if chosen is not None:
        raw = context.raw.read(SNAPSHOT_TABLES[entity], {chosen})
        features = snapshot_features(entity, catalog=context.catalog, snapshots=raw, chosen={day: chosen})
        parts.append(features.drop("day"))
    if entity is Entity.USER:
        lag = context.conf.time.event_lag_seconds
        recent = recent_actions(context.catalog, stored_before(context, day), days=[day], event_lag_s=lag)
        parts.append(recent_sequences(context.catalog, recent))
    return parts


def _snapshot_day(context: Context, entity: Entity, day: datetime.date) -> datetime.date | None:
    """The snapshot partition that a day sees; None for an entity without snapshot features."""
    table = SNAPSHOT_TABLES.get(entity)
    if table is None or not any(isinstance(f.op, SnapshotOp) for f in context.catalog.of_entity(entity)):
        return None
    ready = [day for day, partition in context.raw.listing.partitions[table].items() if partition.ready]
    age = context.conf.time.max_snapshot_age_days
    return choose_snapshots(table, ready, days=[day], max_age_days=age)[day]


def _vocabularies(context: Context, entity: Entity) -> dict[str, DataFrame]:
    name = newest_trainset(context)
    wanted = key_vocabularies(context.catalog, entity)
    if name is None:
        empty = {key: "string" if key == "category" else "bigint" for key in wanted}
        return {key: context.spark.createDataFrame([], f"key {sql}, id int") for key, sql in empty.items()}
    described, root = trainset.load(context.warehouse, name)
    paths = {vocabulary.name: vocabulary.path for vocabulary in described.vocabularies}
    stored = {key: context.spark.read.parquet(f"{root}/{paths[vocabulary]}") for key, vocabulary in wanted.items()}
    return {key: ids_in_use(vocabulary) for key, vocabulary in stored.items()}
