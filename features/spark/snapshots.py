"""Features of the daily snapshots (users, anchors): the newest whole partition that arrived before D."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from features.errors import CatalogError, DataError, NotReadyError, Problem
from features.schema import Catalog
from features.spec import Entity, Feature, SnapshotAge, SnapshotOp

DAY = "day"
SNAPSHOT_TABLES: Mapping[Entity, str] = {Entity.USER: "users", Entity.ANCHOR: "anchors"}
"""The raw table that holds an entity's snapshots."""


def choose_snapshots(
    table: str, partitions: Collection[dt.date], *, days: Sequence[dt.date], max_age_days: int
) -> dict[dt.date, dt.date]:
    """Which partition each target day sees. A partition counts when it is ready, even if it is empty.

    Args:
        table: name of the raw table, for messages.
        partitions: arrival days that are ready.
        days: target days.
        max_age_days: largest D − dt of a snapshot that may still be used.

    Returns:
        Target day → the newest partition before it.

    Raises:
        NotReadyError: names every target day that has no snapshot before it, or only one that is too old.
    """
    chosen: dict[dt.date, dt.date] = {}
    problems = []
    for day in sorted(set(days)):
        newest = max((partition for partition in partitions if partition < day), default=None)
        if newest is not None and (day - newest).days <= max_age_days:
            chosen[day] = newest
            continue
        trouble = "no snapshot before it" if newest is None else f"newest snapshot is of {newest}, too old"
        oldest = day - dt.timedelta(days=max_age_days)
        remedy = f"Deliver a partition of {oldest} to {day - dt.timedelta(days=1)}, or raise max_snapshot_age_days."
        problems.append(Problem(what=trouble, table=table, day=day.isoformat(), remedy=remedy))
    if problems:
        raise NotReadyError(problems)
    return chosen


def snapshot_features(
    entity: Entity, *, catalog: Catalog, snapshots: DataFrame, chosen: Mapping[dt.date, dt.date]
) -> DataFrame:
    """Snapshot features of every key of an entity, as of each target day.

    Args:
        entity: one of SNAPSHOT_TABLES.
        snapshots: raw rows with `dt`, at least the partitions chosen; one row per (dt, key).
        chosen: target day → partition, see `choose_snapshots`.

    Returns:
        day: date, key, then the catalog's snapshot features of the entity in its order and types; a null field, or a
        date that is not before D yet, has the feature's default.

    Raises:
        CatalogError: the entity has no snapshots, or the catalog no feature of them.
        DataError: names every column that the catalog wants and the snapshots lack.
        ValueError: no target day.
    """
    ops = _snapshot_ops(entity, catalog)
    _check_columns(entity, ops, snapshots)
    if not chosen:
        raise ValueError("snapshot features need at least one target day")
    targets: dict[dt.date, list[dt.date]] = {}
    for day, partition in sorted(chosen.items()):
        targets.setdefault(partition, []).append(day)
    days_of = F.create_map(
        *(part for dt_, days in targets.items() for part in (F.lit(dt_), F.array(*(F.lit(day) for day in days))))
    )
    return (
        snapshots.where(F.col("dt").isin(list(targets)))
        .withColumn(DAY, F.explode(days_of[F.col("dt")]))
        .select(DAY, *entity.keys, *(_value(feature, op).alias(feature.name) for feature, op in ops))
    )


def _snapshot_ops(entity: Entity, catalog: Catalog) -> list[tuple[Feature, SnapshotOp]]:
    ops = [(feature, feature.op) for feature in catalog.of_entity(entity) if isinstance(feature.op, SnapshotOp)]
    if entity not in SNAPSHOT_TABLES:
        raise CatalogError(f"{entity} has no snapshots: only {[str(e) for e in SNAPSHOT_TABLES]} have")
    if not ops:
        raise CatalogError(f"the catalog has no snapshot feature of {entity}: there is nothing to compute")
    return ops


def _check_columns(entity: Entity, ops: Sequence[tuple[Feature, SnapshotOp]], snapshots: DataFrame) -> None:
    missing = [(feature, op) for feature, op in ops if op.column not in snapshots.columns]
    if missing:
        raise DataError(
            Problem(
                what=f"column wanted by feature {feature.name} is absent",
                table=SNAPSHOT_TABLES[entity],
                column=op.column,
                remedy="Add it to the raw table, or take the feature out of the catalog.",
            )
            for feature, op in missing
        )


def _value(feature: Feature, op: SnapshotOp) -> Column:
    raw = F.col(op.column)
    if isinstance(op, SnapshotAge):
        age = F.date_diff(DAY, raw)
        raw = F.when(age >= 0, age)
    value = raw.cast(feature.dtype.value)
    return value if feature.default is None else F.coalesce(value, F.lit(feature.default).cast(feature.dtype.value))
