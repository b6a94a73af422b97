"""Profiles: the window features of an entity as of many days, in one pass.

As of D counts what happened and arrived before D, so a tile (e, a) is seen by every D with max(e, a) < D ≤ e + N.

  tiles of the entity                      one row per key, e, a
  → hashed by key, then spread over days   one row per key, e, a and day that sees it; no shuffle after this one
  → grouped by (day, key)                  the aggregates that the catalog asks for
  ⟕ partners, top categories               each (day, key) from finer tiles
  ⟗ on air                                 an anchor that only was on air exists too
  → the catalog's columns
A hot user or anchor costs no more than another one: it has one tile per (e, a). Where the partners of a hot anchor
are counted, each of them is one row by then, and rows are counted before the shuffle.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import TypeVar

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from features.errors import CatalogError
from features.schema import Catalog
from features.spark.ops import (
    AGE,
    ARRIVED,
    CATEGORY,
    HAPPENED,
    TileOp,
    in_window,
    tile_aggregates,
    tile_measures,
    tile_value,
    window_sum,
)
from features.spark.rooms import room_versions
from features.spec import DistinctPartners, Entity, Feature, Measure, OnAir, TopCategory

DAY = "day"
EPOCH = dt.date(1970, 1, 1)
MS_PER_HOUR = 3_600_000

WindowOpT = TypeVar("WindowOpT", DistinctPartners, TopCategory, OnAir)


def tiles_read(entity: Entity, catalog: Catalog) -> tuple[Entity, ...]:
    """Which tiles the profiles of an entity are made of; its own come first."""
    finer = {DistinctPartners: Entity.USER_ANCHOR, TopCategory: Entity.USER_CATEGORY}
    read = [entity, *(finer[type(f.op)] for f in catalog.windows(entity) if type(f.op) in finer)]
    return tuple(dict.fromkeys(read))


def reads_rooms(entity: Entity, catalog: Catalog) -> bool:
    """Whether the profiles of an entity are made of the rooms table too."""
    return any(isinstance(feature.op, OnAir) for feature in catalog.windows(entity))


def profiles(
    entity: Entity,
    *,
    catalog: Catalog,
    tiles: Mapping[Entity, DataFrame],
    rooms: DataFrame,
    days: Sequence[dt.date],
) -> DataFrame:
    """Window features of every key of an entity, as of each of `days`.

    Args:
        entity: one of TILED_ENTITIES with at least one window feature in the catalog.
        tiles: those that `tiles_read` names, with e from min(days) − the longest window on; more do no harm.
        rooms: raw rows of the rooms table; used where `reads_rooms`.
        days: target days, in any order.

    Returns:
        day: date, keys..., then the catalog's window features of the entity in its order and types, never null.
        Key: (day, keys...). A key is there exactly while the entity's longest window has a tile of it, or (anchors)
        while it was on air within one of its on-air windows.

    Raises:
        CatalogError: the catalog has no window feature of the entity, or one that its tiles cannot answer.
        ValueError: no target day.
    """
    windows = _checked(entity, catalog)
    if not days:
        raise ValueError("profiles need at least one target day")
    days = sorted(set(days))
    longest = max(feature.days or 0 for feature in windows)
    profile = _from_tiles(entity, tiles[entity], windows, days=days, longest=longest)
    keys = [DAY, *entity.keys]
    if partners := _of_kind(windows, DistinctPartners):
        profile = profile.join(_partners(entity, tiles[Entity.USER_ANCHOR], partners, days=days), on=keys, how="left")
    if tops := _of_kind(windows, TopCategory):
        profile = profile.join(_top_categories(tiles[Entity.USER_CATEGORY], tops, days=days), on=keys, how="left")
    if on_air := _of_kind(windows, OnAir):
        profile = profile.join(_on_air(rooms, on_air, days=days), on=keys, how="full_outer")
    return profile.select(*keys, *(_value(feature).alias(feature.name) for feature in windows))


def _checked(entity: Entity, catalog: Catalog) -> tuple[Feature, ...]:
    windows = catalog.windows(entity)
    if not windows:
        raise CatalogError(f"the catalog has no window feature of {entity}: there is no profile to compute")
    problems = [
        f"{feature.name}: {type(feature.op).__name__} has no meaning for {entity}"
        for feature in windows
        if (isinstance(feature.op, TopCategory) and entity is not Entity.USER)
        or (isinstance(feature.op, OnAir) and entity is not Entity.ANCHOR)
    ]
    if problems:
        raise CatalogError("; ".join(problems))
    return windows


def _of_kind(windows: Sequence[Feature], kind: type[WindowOpT]) -> dict[str, WindowOpT]:
    """Column in the joined parts → operation, for the features whose operation is of that kind."""
    return {_part_name(feature): feature.op for feature in windows if isinstance(feature.op, kind)}


def _value(feature: Feature) -> Column:
    """The feature in the joined parts; what a part does not know of a key is what an empty window has."""
    if isinstance(feature.op, TileOp):
        return tile_value(feature.op).cast(feature.dtype.value)
    return F.coalesce(F.col(_part_name(feature)), F.lit(feature.default)).cast(feature.dtype.value)


def _part_name(feature: Feature) -> str:
    """Beginning with "_", it meets no key and no other feature."""
    return f"_{feature.name}"


def _seen(
    tiles: DataFrame,
    keys: Sequence[str],
    measures: Iterable[Measure],
    *,
    days: Sequence[dt.date],
    longest: int,
    hashed_by: Sequence[str] | None = None,
) -> DataFrame:
    """Tiles once per target day that sees them: day, keys..., AGE, measures; hashed by `hashed_by` (the keys).

    Days are spread as integers: Spark compiles a sequence of those, but interprets a filter over an array of dates.
    """
    targets = [(day - EPOCH).days for day in days]
    happened = F.unix_date(HAPPENED)
    first = F.greatest(happened + 1, F.unix_date(ARRIVED) + 1, F.lit(min(targets)))
    last = F.least(happened + longest, F.lit(max(targets)))
    names = list(dict.fromkeys(measure.name for measure in measures))
    return (
        tiles.select(*keys, happened.alias("_happened"), first.alias("_first"), last.alias("_last"), *names)
        .where(F.col("_first") <= F.col("_last"))
        .repartition(*(hashed_by or keys))
        .withColumn("_day", F.explode(F.sequence("_first", "_last")))
        .where(F.col("_day").isin(targets))
        .select(
            F.date_from_unix_date("_day").alias(DAY), *keys, (F.col("_day") - F.col("_happened")).alias(AGE), *names
        )
    )


def _from_tiles(
    entity: Entity, tiles: DataFrame, windows: Sequence[Feature], *, days: Sequence[dt.date], longest: int
) -> DataFrame:
    """day, keys..., aggregates of the features that need the entity's own tiles alone."""
    ops = [feature.op for feature in windows if isinstance(feature.op, TileOp)]
    aggregates = {name: column for op in ops for name, column in tile_aggregates(op).items()}
    measures = [measure for op in ops for measure in tile_measures(op)]
    seen = _seen(tiles, entity.keys, measures, days=days, longest=longest).groupBy(DAY, *entity.keys)
    if not aggregates:
        return seen.count().select(DAY, *entity.keys)
    return seen.agg(*(column.alias(name) for name, column in aggregates.items()))


def _partners(
    entity: Entity, pairs: DataFrame, ops: Mapping[str, DistinctPartners], *, days: Sequence[dt.date]
) -> DataFrame:
    """day, key, one count per operation: of each pair, whether it was active; of each key, how many pairs were."""
    seen = _seen_active(pairs, Entity.USER_ANCHOR.keys, ops, days=days)
    per_pair = seen.groupBy(DAY, *Entity.USER_ANCHOR.keys).agg(
        *(F.max(in_window(op.measure, op.days)).cast("bigint").alias(name) for name, op in ops.items())
    )
    return per_pair.groupBy(DAY, *entity.keys).agg(*(F.sum(name).alias(name) for name in ops))


def _top_categories(pairs: DataFrame, ops: Mapping[str, TopCategory], *, days: Sequence[dt.date]) -> DataFrame:
    """day, user_id, one category per operation: the largest sum above 0; ties by name, the smallest first."""
    seen = _seen_active(pairs, Entity.USER_CATEGORY.keys, ops, days=days, hashed_by=Entity.USER.keys)
    sums = seen.groupBy(DAY, *Entity.USER_CATEGORY.keys).agg(
        *(window_sum(op.measure, op.days).alias(name) for name, op in ops.items())
    )
    ranked = {name: F.when(F.col(name) > 0, F.struct((-F.col(name)).alias("_rank"), CATEGORY)) for name in ops}
    best = sums.groupBy(DAY, *Entity.USER.keys).agg(*(F.min(rank).alias(name) for name, rank in ranked.items()))
    return best.select(DAY, *Entity.USER.keys, *(F.col(name).getField(CATEGORY).alias(name) for name in ops))


def _seen_active(
    pairs: DataFrame,
    keys: Sequence[str],
    ops: Mapping[str, DistinctPartners] | Mapping[str, TopCategory],
    *,
    days: Sequence[dt.date],
    hashed_by: Sequence[str] | None = None,
) -> DataFrame:
    """Like `_seen`, without the tiles that count for none of the operations: most pairs only met in impressions."""
    active = reduce(lambda left, right: left | right, (F.col(op.measure.name) > 0 for op in ops.values()))
    longest = max(op.days for op in ops.values())
    measures = [op.measure for op in ops.values()]
    return _seen(pairs.where(active), keys, measures, days=days, longest=longest, hashed_by=hashed_by)


def _on_air(rooms: DataFrame, ops: Mapping[str, OnAir], *, days: Sequence[dt.date]) -> DataFrame:
    """day, anchor_id, milliseconds on air per operation; only anchors that were on air in one of the windows.

    1. versions of each room                        one row per room and interval of cutoffs
    2. spread over the days D whose cutoff D − 1    one row per room and day that may have seen it on air
       is in the interval
    3. overlap of session and window, summed        one row per anchor and day
    """
    versions = room_versions(rooms, ["anchor_id", "started_at", "ended_at"])
    longest_session = max(op.max_session_hours for op in ops.values())
    # The last day that can still see the session: its longest possible end, rounded up, and the longest window.
    reach = F.date_add(F.to_date("started_at"), max(op.days for op in ops.values()) + longest_session // 24 + 1)
    visible = F.filter(
        F.array(*(F.lit(day) for day in days)),
        lambda day: (day > F.col("valid_from")) & (day <= F.col("valid_to")) & (day <= reach),
    )
    seen = versions.withColumn(DAY, F.explode(visible))
    overlaps = seen.select(DAY, "anchor_id", *(_overlap_ms(op).alias(name) for name, op in ops.items()))
    sums = overlaps.groupBy(DAY, "anchor_id").agg(*(F.sum(name).alias(name) for name in ops))
    return sums.where(F.greatest(*ops, F.lit(0)) > 0)


def _overlap_ms(op: OnAir) -> Column:
    """Milliseconds of [started, min(ended, started + max_session_hours, D)) in [D − days, D), bigint."""
    started = F.unix_millis("started_at")
    day_ends = F.unix_millis(F.col(DAY).cast("timestamp"))
    window_begins = F.unix_millis(F.date_sub(DAY, op.days).cast("timestamp"))
    latest = F.least(F.unix_millis("ended_at"), started + F.lit(op.max_session_hours * MS_PER_HOUR), day_ends)
    return F.greatest(latest - F.greatest(started, window_begins), F.lit(0)).cast("bigint")
