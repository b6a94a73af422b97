"""The stored form of profiles: window state as a base and deltas, and what is read of it.

A bulk partition of `profiles_<entity>` lists one base, whose rows are the state itself. A carried one lists the files
of the day before and one delta on them: rows of the touched keys alone, which add up with what lies below
(`features.spark.carried`). The digest is over keys and state, without the day a row was written on, and is carried
with the deltas; a partition has the same one whichever way it was made.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from features.errors import DataError, Problem
from features.spark.carried import BESIDE, merged_state
from features.spark.ops import DAY, zero
from features.spark.window_state import StateLayout, as_features, state_layout
from pipeline.checks import BorderRules
from pipeline.context import Context
from pipeline.delta_watch import DeltaWatch
from pipeline.freshness import Standing
from pipeline.manifests import PartitionManifest, Provenance, day_partition
from pipeline.observed import Keys
from pipeline.stages.names import profile_table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from features.spec import Entity

AS_OF = "_as_of"


def read_features(context: Context, entity: Entity, days: Sequence[datetime.date]) -> DataFrame:
    """day, keys..., the window features of an entity as of some days.

    Raises:
        NotReadyError: when a day was not computed.
        DataError: when the days were written with different columns.
    """
    manifests = context.warehouse.require(profile_table(entity), days)
    return as_features(entity, context.catalog, state_of(context, entity, manifests))


def state_of(
    context: Context,
    entity: Entity,
    manifests: Mapping[datetime.date, PartitionManifest],
    layout: StateLayout | None = None,
) -> DataFrame:
    """day, keys..., state columns: one row per key and day, of these partitions.

    Args:
        layout: of the columns to read; all that the catalog wants, by default.

    Raises:
        DataError: when they were written with different columns, or lack some.
    """
    layout, table = layout or state_layout(entity, context.catalog), profile_table(entity)
    stored = {name for name, _ in context.warehouse.schema_of(table, manifests)}
    if lacking := [name for name in layout.columns if name not in stored]:
        raise DataError([_lacking_problem(table, manifests, lacking)])
    bases = {day: manifest for day, manifest in manifests.items() if manifest.carried_from is None}
    layered = [day for day in manifests if day not in bases]
    columns = [DAY, *layout.keys, *layout.columns]
    parts = []
    if bases or not layered:
        parts.append(context.warehouse.read_files(context.spark, table, bases or manifests).select(*columns))
    if layered:
        rows = [read_layers(context, entity, manifests[day], layout).withColumn(AS_OF, F.lit(day)) for day in layered]
        merged = merged_state(layout, _union(rows), [AS_OF, *layout.keys])
        parts.append(merged.withColumnRenamed(AS_OF, DAY).select(*columns))
    return _union(parts)


def widened_state(
    context: Context, entity: Entity, standing: Mapping[datetime.date, Standing], added: DataFrame | None
) -> DataFrame:
    """The state of some days as the catalog wants it: stored columns that stand, and others beside them.

    Args:
        standing: partitions that keep the same columns and lack the same ones.
        added: day, keys..., at least the columns that they lack (a key that is not in it has nothing in their windows);
            None where they lack none.

    Returns:
        As `features.spark.profiles.profile_state`.
    """
    layout, (first, *_) = state_layout(entity, context.catalog), standing.values()
    manifests = {day: found.manifest for day, found in standing.items()}
    state, keys = state_of(context, entity, manifests, layout.only(first.kept)), [DAY, *layout.keys]
    if added is not None:
        state = state.join(added.select(*keys, *first.computed), on=keys, how="left")
    sums = [F.coalesce(F.col(column.name), zero()).alias(column.name) for column in layout.sums]
    return state.select(*keys, *sums, *layout.tops)


def read_layers(
    context: Context, entity: Entity, manifest: PartitionManifest, layout: StateLayout | None = None
) -> DataFrame:
    """Every row of a partition's base and deltas; `day` is when it was written."""
    layout = layout or state_layout(entity, context.catalog)
    day = datetime.date.fromisoformat(manifest.partition.removeprefix("dt="))
    rows = context.warehouse.read_files(context.spark, manifest.table, {day: manifest})
    return rows.select(DAY, *layout.keys, *layout.columns)


def write_base(
    context: Context,
    entity: Entity,
    state: DataFrame,
    inputs: Mapping[datetime.date, Mapping[str, str]],
    kept_of: Mapping[datetime.date, Standing] | None = None,
) -> list[PartitionManifest]:
    """Commit the whole state of some days (those of `inputs`); `kept_of` is what columns of it were copied from."""
    layout = state_layout(entity, context.catalog)
    written = context.warehouse.write_days(
        state,
        profile_table(entity),
        list(inputs),
        context.provenance(profile_table(entity), inputs, kept_of),
        day_column=DAY,
        hashed=(*layout.keys, *layout.columns),
    )
    return list(written.values())


def write_delta(
    context: Context,
    rows: DataFrame,
    day: datetime.date,
    below: PartitionManifest,
    inputs: Mapping[str, str],
) -> PartitionManifest:
    """Commit the state of `day`: what lies below, and a delta on it.

    Args:
        rows: of `features.spark.carried.delta`.
        below: the partition of the day before.

    Raises:
        DataError: when the state below has other columns, or a border check stops the day.
        HeldError: when another run holds the day, or has committed it meanwhile.
    """
    provenance = context.provenance(below.table, {day: inputs})
    columns = tuple((name, sql_type) for name, sql_type in rows.dtypes if name not in BESIDE)
    if columns != below.schema_:
        raise DataError([_schema_problem(below, columns)])
    plan = _border(context).plan(below.table, columns)
    watch = DeltaWatch(rows, plan.keys)
    with context.warehouse.attempt(below.table, [day_partition(day)]) as attempt:
        written, spans = attempt.write(watch.rows, DAY, layer=layers(below) + 1)
        now = Keys.of_digest(below.digest) + watch.change()
        checks = context.warehouse.judged(provenance, plan, {day: watch.seen(now.rows, spans.get(day, {}))})
        manifest = attempt.manifest(
            day,
            provenance,
            files=(*below.files, *written.get(day, ())),
            rows=now.rows,
            digest=now.digest(),
            schema=columns,
            checks=checks.get(day),
            carried_from=below.partition,
        )
        context.warehouse.commit([manifest])
    return manifest


def compacted(context: Context, entity: Entity, manifest: PartitionManifest) -> PartitionManifest:
    """The partition with a base of its own, as a new generation of the same content and the same inputs.

    Raises:
        DataError: when base and deltas do not add up to the digest that was carried; nothing is committed then.
        HeldError: when another run holds the day, or has committed it meanwhile.
    """
    layout = state_layout(entity, context.catalog)
    day = datetime.date.fromisoformat(manifest.partition.removeprefix("dt="))
    columns = (*layout.keys, *layout.columns)
    written = context.warehouse.write_days(
        state_of(context, entity, {day: manifest}),
        manifest.table,
        [day],
        Provenance(
            inputs={day: manifest.inputs},
            code=manifest.code,
            conf=manifest.conf,
            meanings=manifest.meanings,
            same_rows_as={day: manifest.same_rows_as},
            border=_border(context),
        ),
        day_column=DAY,
        hashed=columns,
        key=columns,
        expected={day: Keys.of_digest(manifest.digest)},
    )
    return written[day]


def _border(context: Context) -> BorderRules:
    return BorderRules(catalog=context.catalog, conf=context.conf.checks)


def needs_compaction(manifest: PartitionManifest, *, max_deltas: int, max_delta_share: float) -> bool:
    """Whether one more delta would be too many, or the deltas hold too many rows against their base."""
    base = sum(file.rows for file in manifest.files if file.layer == 0)
    above = sum(file.rows for file in manifest.files if file.layer > 0)
    return layers(manifest) >= max_deltas or above > max_delta_share * base


def layers(manifest: PartitionManifest) -> int:
    """The highest delta of a partition; 0 for a base alone."""
    return max((file.layer for file in manifest.files), default=0)


def _lacking_problem(table: str, days: Iterable[datetime.date], lacking: Sequence[str]) -> Problem:
    return Problem(
        table=table,
        day=f"{min(days)} … {max(days)}",
        what="state lacks columns that the catalog wants",
        count=len(lacking),
        examples=lacking,
        remedy="`limelight backfill --stale` adds them, and keeps the others",
    )


def _schema_problem(below: PartitionManifest, schema: Sequence[tuple[str, str]]) -> Problem:
    return Problem(
        table=below.table,
        day=below.partition,
        what="the state below has other columns",
        examples=sorted(name for name, _ in set(below.schema_) ^ set(schema)),
        remedy="Recompute that day: `limelight backfill`",
    )


def _union(frames: Sequence[DataFrame]) -> DataFrame:
    first, *others = frames
    for other in others:
        first = first.unionByName(other)
    return first
