"""raw logs + profiles + last actions → samples: sequences, room state and labels are computed on the way.

They are joined in one Spark job and written once, when the day is mature; a table of each would be written
and read again for nothing (docs/decisions/0004). A day whose stored columns stand but for some (pipeline/freshness.py)
keeps them: the samples of a catalog that has only the others are computed, and joined by impression.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from features.schema import KEY_COLUMNS, Catalog
from features.spark.labels import flag_columns, labels
from features.spark.room_state import room_state
from features.spark.samples import sampled_impressions, samples
from features.spark.sequences import sequences
from features.spark.snapshots import SNAPSHOT_TABLES, choose_snapshots, snapshot_features
from features.spec import TILED_ENTITIES, Entity, Field, SnapshotOp
from pipeline.context import ONE_DAY, Context, StageResult, summarise
from pipeline.freshness import Standing
from pipeline.manifests import PartitionManifest
from pipeline.observed import keys_of
from pipeline.profile_state import read_features
from pipeline.recent_state import stored_before, tiles_before
from pipeline.stages.names import SAMPLES, profile_table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

KEY = ("impression_id",)
ROOM_STATS_DAYS = 1  # minutes of the day before count for impressions just after midnight

Inputs = Mapping[datetime.date, Mapping[str, str]]


def inputs_of(context: Context, day: datetime.date) -> dict[str, str]:
    """Partitions that the samples of a day depend on."""
    last = day + ONE_DAY * context.conf.time.label_delay_days
    found: dict[str, str] = {}
    for entity in _profiled(context.catalog):
        found |= context.derived_inputs(profile_table(entity), [day])
    for entity, snapshot in _snapshots(context, context.catalog, [day]).items():
        found |= context.raw_inputs(SNAPSHOT_TABLES[entity], snapshot[day], snapshot[day])
    found |= context.raw_inputs("impressions", day, last)
    if context.catalog.sequences:
        found |= tiles_before(context, day)
    found |= context.raw_inputs("actions", day, last)
    found |= context.raw_inputs("room_stats", day - ONE_DAY * ROOM_STATS_DAYS, day)
    return found | context.raw_inputs("rooms", context.first_room_day(day), last)


def run(context: Context, days: Sequence[datetime.date]) -> StageResult:
    """Samples of mature days, many days in one pass.

    Raises:
        NotReadyError: when a day is not mature yet, or its profiles or tiles of actions were not computed.
        DataError: when the join lost or repeated impressions.
    """
    inputs = {day: inputs_of(context, day) for day in days}
    todo = context.stale_days(SAMPLES, inputs)
    manifests: list[PartitionManifest] = []
    whole = list(todo)
    for standing in context.partly_standing(SAMPLES, {day: inputs[day] for day in todo}):
        manifests += _widen(context, standing, {day: inputs[day] for day in standing})
        whole = [day for day in whole if day not in standing]
    if whole:
        context.report(f"{len(whole)} days")
        manifests += _write(context, {day: inputs[day] for day in whole})
    return summarise(manifests, todo, [day for day in days if day not in todo])


def _write(context: Context, inputs: Inputs) -> list[PartitionManifest]:
    """Samples of the days of `inputs`, all their columns."""
    days = list(inputs)
    shown = _shown(context, days)
    wanted = shown.where(shown["day"].isin(days))
    written = context.warehouse.write_days(
        _joined(context, context.catalog, _Rows(context=context, days=days, wanted=wanted, shown=shown)),
        SAMPLES,
        days,
        context.provenance(SAMPLES, inputs),
        counted=flag_columns(context.catalog),
        key=KEY,
        expected=keys_of(wanted, "day", KEY),
    )
    return list(written.values())


def _widen(context: Context, standing: Mapping[datetime.date, Standing], inputs: Inputs) -> list[PartitionManifest]:
    """Samples of days that keep the same columns and lack the same ones.

    1. the catalog, cut down to what is lacking              its declarations
    2. its samples of the impressions that are stored        impression_id and the lacking columns
    3. stored columns that stand ⟕ 2, by impression          all columns, in their order of now
    """
    days, (lacks, *_) = list(standing), standing.values()
    context.report(f"{len(days)} days, {lacks.told()}")
    stored = context.warehouse.read_files(context.spark, SAMPLES, {day: s.manifest for day, s in standing.items()})
    lacking = context.catalog.only(lacks.computed)
    counted = flag_columns(lacking) if lacking.labels else ()
    rows = stored.select(*KEY_COLUMNS, *lacks.kept)
    if lacks.computed:
        added = _lacking(context, lacking, stored, days).select("impression_id", *lacks.computed, *counted)
        rows = rows.join(added, on="impression_id", how="left")
    written = context.warehouse.write_days(
        rows.select(*_names(context.catalog), *counted),
        SAMPLES,
        days,
        context.provenance(SAMPLES, inputs, standing),
        counted=counted,
        counts={} if counted else {day: found.manifest.counts for day, found in standing.items()},
        key=KEY,
        expected=keys_of(stored, "dt", KEY),
    )
    return list(written.values())


def _lacking(context: Context, lacking: Catalog, stored: DataFrame, days: Sequence[datetime.date]) -> DataFrame:
    """Samples of a cut-down catalog, and the keys of profiles that are fields of rooms, as they are stored."""
    keys = (context.catalog.key_column(key) for entity in _profiled(lacking) for key in entity.keys)
    known = {key: f"known_{key}" for key in keys if key not in {*KEY_COLUMNS, *_names(lacking)}}
    wanted, shown = stored.withColumnsRenamed(known).select(*KEY_COLUMNS, *known.values()), None
    if lacking.labels or any(isinstance(feature.op, Field) for feature in lacking.features):
        # Only raw rows have columns of the impression itself, and other impressions that compete for an action.
        shown = _shown(context, days)
        wanted = shown.join(wanted.select("impression_id", *known.values()), on="impression_id", how="inner")
    return _joined(context, lacking, _Rows(context=context, days=days, wanted=wanted, shown=shown), known)


def _shown(context: Context, days: Sequence[datetime.date]) -> DataFrame:
    """Impressions that arrived in time for their day's samples, of these days and up to their maturity."""
    delay = context.conf.time.label_delay_days
    arrived = context.raw_days("impressions", min(days), max(days) + ONE_DAY * delay)
    return sampled_impressions(context.raw.read("impressions", arrived), label_delay_days=delay)


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """What the parts of some days' samples are made of; raw tables are read when the first part asks for them.

    Attributes:
        wanted: the impressions of these days: impression_id, user_id, anchor_id, room_id, ts; raw ones have more.
        shown: raw, those of the days up to their maturity too; None where nobody asks.
    """

    context: Context
    days: Sequence[datetime.date]
    wanted: DataFrame
    shown: DataFrame | None

    @cached_property
    def rooms(self) -> DataFrame:
        return self._read("rooms", self.context.first_room_day(min(self.days)), self._mature)

    @cached_property
    def actions(self) -> DataFrame:
        return self._read("actions", min(self.days), self._mature)

    @cached_property
    def room_stats(self) -> DataFrame:
        return self._read("room_stats", min(self.days) - ONE_DAY * ROOM_STATS_DAYS, max(self.days))

    @property
    def _mature(self) -> datetime.date:
        return max(self.days) + ONE_DAY * self.context.conf.time.label_delay_days

    def _read(self, table: str, first: datetime.date, last: datetime.date) -> DataFrame:
        return self.context.raw.read(table, self.context.raw_days(table, first, last))


def _joined(context: Context, catalog: Catalog, rows: _Rows, known: Mapping[str, str] | None = None) -> DataFrame:
    """The samples of a catalog, which may be the context's cut down, and features that are `known` to `rows`."""
    time = context.conf.time
    lag, room_age = time.event_lag_seconds, time.max_room_age_days
    has_room_features = bool(catalog.of_entity(Entity.ROOM))
    # Which keys a profile has, and the defaults of others, is a matter of all features of its entity.
    profiles = {entity: read_features(context, entity, rows.days) for entity in _profiled(catalog)}
    return samples(
        context.catalog.only({*_names(catalog), *known}) if known else catalog,
        rows.wanted,
        profiles=profiles,
        snapshots=_snapshot_frames(context, catalog, rows.days),
        sequences=_sequences(context, catalog, rows) if catalog.sequences else None,
        room_state=room_state(catalog, rows.wanted, rows.room_stats, rows.rooms, lag, room_age)
        if has_room_features
        else None,
        labels=_labels(context, catalog, rows) if catalog.labels else None,
        counted=flag_columns(catalog) if catalog.labels else (),
        known=known,
    )


def _sequences(context: Context, catalog: Catalog, rows: _Rows) -> DataFrame:
    # What arrived before the first day is stored; what arrived since is read from raw for all days alike.
    stored, time = stored_before(context, min(rows.days)), context.conf.time
    lag, room_age = time.event_lag_seconds, time.max_room_age_days
    return sequences(catalog, rows.wanted, rows.actions, rows.rooms, lag, stored, room_age)


def _labels(context: Context, catalog: Catalog, rows: _Rows) -> DataFrame:
    time = context.conf.time
    assert rows.shown is not None, "labels are of raw impressions"
    return labels(
        catalog,
        rows.shown,
        rows.actions,
        rows.rooms,
        label_delay_days=time.label_delay_days,
        attribution_hours=time.attribution_hours,
        conversions_imply_enter=time.conversions_imply_enter,
        days=rows.days,
        max_room_age_days=time.max_room_age_days,
    )


def _names(catalog: Catalog) -> list[str]:
    return [column.name for column in catalog.sample_columns()]


def _profiled(catalog: Catalog) -> list[Entity]:
    return [entity for entity in TILED_ENTITIES if catalog.windows(entity)]


def _snapshots(
    context: Context, catalog: Catalog, days: Sequence[datetime.date]
) -> dict[Entity, dict[datetime.date, datetime.date]]:
    """Entity → day → the snapshot partition that it sees."""
    chosen = {}
    for entity, table in SNAPSHOT_TABLES.items():
        if any(isinstance(feature.op, SnapshotOp) for feature in catalog.of_entity(entity)):
            ready = [day for day, partition in context.raw.listing.partitions[table].items() if partition.ready]
            age = context.conf.time.max_snapshot_age_days
            chosen[entity] = choose_snapshots(table, ready, days=days, max_age_days=age)
    return chosen


def _snapshot_frames(context: Context, catalog: Catalog, days: Sequence[datetime.date]) -> dict[Entity, DataFrame]:
    frames = {}
    for entity, chosen in _snapshots(context, catalog, days).items():
        raw = context.raw.read(SNAPSHOT_TABLES[entity], set(chosen.values()))
        frames[entity] = snapshot_features(entity, catalog=catalog, snapshots=raw, chosen=chosen)
    return frames
