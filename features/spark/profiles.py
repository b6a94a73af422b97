"""Profiles in bulk: the window state of an entity as of many days, from tiles, in one pass.

As of D counts what happened and arrived before D, so a tile (e, a) is seen by every D with max(e, a) < D ≤ e + N.

  tiles of the entity                      one row per key, e, a
  → hashed by key, then spread over days   one row per key, e, a and day that sees it; no shuffle after this one
  → grouped by (day, key)                  the state columns over the entity's own tiles
  ⟕ partners, top categories               each (day, key) from finer tiles
  ⟗ on air                                 an anchor that only was on air exists too
A hot user or anchor costs no more than another one: it has one tile per (e, a). Where the partners of a hot anchor
are counted, each of them is one row by then, and rows are counted before the shuffle.

`features.spark.carried` gives the same rows for a day from the state of the day before; this is its oracle, and the
backfill.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from features.schema import Catalog
from features.spark.ops import ARRIVED, DAY, E_NUMBER, HAPPENED, PartnerCount, Total, epoch_days, zero
from features.spark.window_state import (
    PAIRS,
    StateLayout,
    as_features,
    best_categories,
    on_air_ops,
    state_layout,
    top_total,
)
from features.spec import Entity, TopCategory

AGE = "_age"
"""Of a tile seen from a day: day − e, at least 1. A window of N days is AGE ≤ N."""


def tiles_read(entity: Entity, catalog: Catalog) -> tuple[Entity, ...]:
    """Which tiles the profiles of an entity are made of; its own come first."""
    read = [entity, *(PAIRS[type(f.op)] for f in catalog.windows(entity) if type(f.op) in PAIRS)]
    return tuple(dict.fromkeys(read))


def reads_on_air(entity: Entity, catalog: Catalog) -> bool:
    """Whether the profiles of an entity are made of tiles on air too."""
    return entity is Entity.ANCHOR and bool(on_air_ops(catalog))


def profiles(
    entity: Entity,
    *,
    catalog: Catalog,
    tiles: Mapping[Entity, DataFrame],
    on_air: DataFrame | None,
    days: Sequence[dt.date],
) -> DataFrame:
    """Window features of every key of an entity, as of each of `days`.

    Args: as `profile_state`.

    Returns:
        day: date, keys..., then the catalog's window features of the entity in its order and types, never null.
        Key: (day, keys...). A key is there exactly while the entity's longest window has a tile of it, or (anchors)
        while it was on air within one of its on-air windows.

    Raises:
        CatalogError: the catalog has no window feature of the entity, or one that its tiles cannot answer.
        ValueError: no target day.
    """
    return as_features(entity, catalog, profile_state(entity, catalog=catalog, tiles=tiles, on_air=on_air, days=days))


def profile_state(
    entity: Entity,
    *,
    catalog: Catalog,
    tiles: Mapping[Entity, DataFrame],
    on_air: DataFrame | None,
    days: Sequence[dt.date],
) -> DataFrame:
    """Window state of every key of an entity, as of each of `days`.

    Args:
        entity: one of TILED_ENTITIES.
        tiles: those that `tiles_read` names, with e from min(days) − the longest window on; more do no harm.
        on_air: tiles on air, where `reads_on_air`.
        days: target days, in any order.

    Returns:
        day: date, keys..., then `state_layout(entity, catalog).columns`; bigint and never null, but tops, which are
        strings. Key: (day, keys...).

    Raises:
        CatalogError: no feature needs the state of the entity, or one that its tiles cannot answer.
        ValueError: no target day.
    """
    layout = state_layout(entity, catalog)
    if not days:
        raise ValueError("profiles need at least one target day")
    days = sorted(set(days))
    state = _from_tiles(layout, tiles[entity], days=days)
    keys = [DAY, *layout.keys]
    if layout.partners:
        state = state.join(_partners(layout, tiles[Entity.USER_ANCHOR], days=days), on=keys, how="left")
    if layout.tops:
        state = state.join(_top_categories(layout.tops, tiles[Entity.USER_CATEGORY], days=days), on=keys, how="left")
    if layout.air and on_air is not None:
        state = state.join(_on_air(layout, on_air, days=days), on=keys, how="full_outer")
    sums = [F.coalesce(F.col(column.name), zero()).alias(column.name) for column in layout.sums]
    return state.select(*keys, *sums, *layout.tops)


def _seen(
    tiles: DataFrame,
    keys: Sequence[str],
    measures: Iterable[str],
    *,
    days: Sequence[dt.date],
    longest: int,
    hashed_by: Sequence[str] | None = None,
) -> DataFrame:
    """Tiles once per target day that sees them: day, keys..., E_NUMBER, AGE, measures; hashed by keys or `hashed_by`.

    Days are spread as integers: Spark compiles a sequence of those, but interprets a filter over an array of dates.
    """
    targets = [epoch_days(day) for day in days]
    happened = F.unix_date(HAPPENED)
    first = F.greatest(happened + 1, F.unix_date(ARRIVED) + 1, F.lit(min(targets)))
    last = F.least(happened + longest, F.lit(max(targets)))
    names = list(dict.fromkeys(measures))
    seen = tiles.select(*keys, happened.alias(E_NUMBER), first.alias("_first"), last.alias("_last"), *names).where(
        F.col("_first") <= F.col("_last")
    )
    if len(targets) == 1:  # nothing to spread: what follows may sum before it shuffles
        age = F.lit(*targets) - F.col(E_NUMBER)
        return seen.select(F.lit(*days).alias(DAY), *keys, E_NUMBER, age.alias(AGE), *names)
    return (
        seen.repartition(*(hashed_by or keys))
        .withColumn("_day", F.explode(F.sequence("_first", "_last")))
        .where(F.col("_day").isin(targets))
        .select(
            F.date_from_unix_date("_day").alias(DAY),
            *keys,
            E_NUMBER,
            (F.col("_day") - F.col(E_NUMBER)).alias(AGE),
            *names,
        )
    )


def _from_tiles(layout: StateLayout, tiles: DataFrame, *, days: Sequence[dt.date]) -> DataFrame:
    """day, keys..., the columns over the entity's own tiles."""
    measures = [column.source for column in layout.tiles if column.source is not None]
    seen = _seen(tiles, layout.keys, measures, days=days, longest=layout.days)
    aggregates = [column.aggregate(F.col(AGE) <= column.days).alias(column.name) for column in layout.tiles]
    return seen.groupBy(DAY, *layout.keys).agg(*aggregates)


def _partners(layout: StateLayout, pairs: DataFrame, *, days: Sequence[dt.date]) -> DataFrame:
    """day, key, one count per operation: of each pair, whether it was active; of each key, how many pairs were."""
    keys = Entity.USER_ANCHOR.keys
    active = {column.name: F.col(column.source) > 0 for column in layout.partners}
    seen = _seen_active(pairs, keys, layout.partners, days=days)
    per_pair = seen.groupBy(DAY, *keys).agg(
        *(
            F.max(active[column.name] & (F.col(AGE) <= column.days)).cast("bigint").alias(column.name)
            for column in layout.partners
        )
    )
    counts = (F.sum(column.name).alias(column.name) for column in layout.partners)
    return per_pair.groupBy(DAY, *layout.keys).agg(*counts)


def _top_categories(tops: Mapping[str, TopCategory], pairs: DataFrame, *, days: Sequence[dt.date]) -> DataFrame:
    """day, user_id, one category per operation: the largest sum above 0; ties by name, the smallest first."""
    totals = {name: top_total(op) for name, op in tops.items()}
    keys = Entity.USER_CATEGORY.keys
    seen = _seen_active(pairs, keys, totals.values(), days=days, hashed_by=Entity.USER.keys)
    sums = seen.groupBy(DAY, *keys).agg(
        *(total.aggregate(F.col(AGE) <= total.days).alias(name) for name, total in totals.items())
    )
    return best_categories(sums, tops, (DAY, *Entity.USER.keys))


def _seen_active(
    pairs: DataFrame,
    keys: Sequence[str],
    columns: Collection[Total | PartnerCount],
    *,
    days: Sequence[dt.date],
    hashed_by: Sequence[str] | None = None,
) -> DataFrame:
    """Like `_seen`, without the tiles that count for none of the operations: most pairs only met in impressions."""
    measures = list(dict.fromkeys(str(column.source) for column in columns))
    longest = max(column.days for column in columns)
    active: Column = reduce(lambda left, right: left | right, (F.col(measure) > 0 for measure in measures))
    return _seen(pairs.where(active), keys, measures, days=days, longest=longest, hashed_by=hashed_by)


def _on_air(layout: StateLayout, on_air: DataFrame, *, days: Sequence[dt.date]) -> DataFrame:
    """day, anchor_id, milliseconds per operation; only anchors that were on air in one of the windows."""
    measures = [str(column.source) for column in layout.air]
    seen = _seen(on_air, layout.keys, measures, days=days, longest=max(layout.air_lengths()))
    sums = seen.groupBy(DAY, *layout.keys).agg(
        *(column.aggregate(F.col(AGE) <= column.days).alias(column.name) for column in layout.air)
    )
    return sums.where(F.greatest(*(column.name for column in layout.air), zero()) > 0)
