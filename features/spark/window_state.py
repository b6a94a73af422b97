"""Which columns the state of an entity's windows has, and the features in it.

    keys...                    of the entity
    _tiles_<N>                 tiles in the longest window: the key is there exactly while there is one (or air)
    _sum_, _active_, _last_    over its own tiles (ops.py)
    _partners_<measure>_<N>    for DistinctPartners
    _sum_on_air_ms_<H>h_<N>    over its tiles on air, for OnAir
    _top_<measure>_<N>         for TopCategory: the category itself, null when there is none

The state of a pair also carries what the operations of users and anchors ask of pairs: the sum whose sign says
whether a partner counts, the sum by which categories are ranked.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TypeVar

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from features.errors import CatalogError
from features.schema import Catalog
from features.spark.ops import (
    CATEGORY,
    DAY,
    PartnerCount,
    StateColumn,
    TileColumn,
    TileOp,
    Total,
    tile_columns_of,
    tile_value,
    zero,
)
from features.spec import TILED_ENTITIES, DistinctPartners, Entity, Feature, OnAir, TopCategory, WindowOp, fingerprint

Item = TypeVar("Item")

PAIRS: Mapping[type[object], Entity] = {
    DistinctPartners: Entity.USER_ANCHOR,
    TopCategory: Entity.USER_CATEGORY,
}
"""The pairs whose state an operation of users or anchors asks."""


@dataclass(frozen=True, kw_only=True)
class StateLayout:
    """The state of one entity.

    Attributes:
        tiles: columns over the entity's own tiles.
        partners, air, tops: columns of the further operations; tops by name.
        days: the longest window; a row lives while it holds a tile.
        own_days: the longest window of the entity's own features; 0 when only others ask for the state.
    """

    keys: tuple[str, ...]
    tiles: tuple[TileColumn, ...]
    partners: tuple[PartnerCount, ...]
    air: tuple[Total, ...]
    tops: Mapping[str, TopCategory]
    days: int
    own_days: int

    @property
    def sums(self) -> tuple[StateColumn, ...]:
        """The integer columns, which merge over a base and its deltas: all but the tops."""
        return (*self.tiles, *self.partners, *self.air)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the state columns, in order; the content digest is over keys and these."""
        return (*(column.name for column in self.sums), *self.tops)

    def tile_lengths(self) -> tuple[int, ...]:
        """Window lengths that the entity's own tiles enter and leave, those of its pairs included."""
        further = {column.days for column in self.partners} | {op.days for op in self.tops.values()}
        return tuple(sorted({column.days for column in self.tiles} | further))

    def air_lengths(self) -> tuple[int, ...]:
        """Window lengths that tiles on air enter and leave."""
        return tuple(sorted({column.days for column in self.air}))

    def reach(self, tiles: Entity) -> int:
        """How many days back some tiles count: the entity's own, or those of the pairs that its operations ask."""
        if tiles.keys == self.keys:
            return self.days
        asked = [op.days for op in self.tops.values()] if tiles is PAIRS[TopCategory] else []
        asked += [column.days for column in self.partners] if tiles is PAIRS[DistinctPartners] else []
        return max(asked, default=0)

    def alive(self, value: Mapping[str, Column] | None = None) -> Column:
        """Whether a row counts: the longest window holds a tile, or time on air.

        Args:
            value: the columns to judge, where they are not those of the row itself.
        """
        return self._holds(self.days, value)

    def has_features(self) -> Column:
        """Whether the longest window of the entity's own features holds a tile, or time on air."""
        return self._holds(self.own_days, None)

    def meanings(self) -> dict[str, str]:
        """State column → fingerprint of what it is made of, in order."""
        tops = {name: fingerprint(op) for name, op in self.tops.items()}
        return {column.name: fingerprint(column) for column in self.sums} | tops

    def keys_meaning(self) -> str:
        """Fingerprint of what decides which keys have a row: two layouts with the same one have the same keys."""
        on_air: dict[str, int] = {}
        for column in self.air:
            on_air[str(column.source)] = max(column.days, on_air.get(str(column.source), 0))
        return fingerprint((self.keys, self.days, tuple(sorted(on_air.items()))))

    def only(self, columns: Container[str]) -> StateLayout:
        """The layout with some of its columns; its rows must be those of the whole one."""
        return replace(
            self,
            tiles=tuple(column for column in self.tiles if column.name in columns),
            partners=tuple(column for column in self.partners if column.name in columns),
            air=tuple(column for column in self.air if column.name in columns),
            tops={name: op for name, op in self.tops.items() if name in columns},
        )

    def _holds(self, days: int, value: Mapping[str, Column] | None) -> Column:
        names = [Total(source=None, days=days).name, *(column.name for column in self.air)]
        return reduce(lambda one, other: one | other, ((value[n] if value else F.col(n)) > 0 for n in names))


def stored_entities(catalog: Catalog) -> tuple[Entity, ...]:
    """Entities whose state is kept: pairs first, as the others are carried from them."""
    pairs = {PAIRS[type(f.op)] for entity in TILED_ENTITIES for f in catalog.windows(entity) if type(f.op) in PAIRS}
    kept = [entity for entity in TILED_ENTITIES if catalog.windows(entity) or entity in pairs]
    return tuple(sorted(kept, key=lambda entity: entity not in PAIRS.values()))


def state_layout(entity: Entity, catalog: Catalog) -> StateLayout:
    """The state columns that the catalog's window features need.

    Raises:
        CatalogError: no feature needs the state of the entity, or one has no meaning for it.
    """
    own = checked_windows(entity, catalog) if catalog.windows(entity) else ()
    asked = _asked_of_pairs(entity, catalog)
    if not own and not asked:
        raise CatalogError(f"the catalog has no window feature of {entity}: there is no profile to compute")
    own_days = max((feature.days or 0 for feature in own), default=0)
    days = max(own_days, *(column.days for column in asked), 0)
    counts = [Total(source=None, days=length) for length in sorted({own_days, days} - {0})]
    ops = [feature.op for feature in own]
    tile_ops = [column for op in ops if isinstance(op, TileOp) for column in tile_columns_of(op)]
    return StateLayout(
        keys=entity.keys,
        tiles=_unique((*counts, *tile_ops, *asked)),
        partners=_unique(_partner_count(op) for op in ops if isinstance(op, DistinctPartners)),
        air=_unique(_air_total(op) for op in ops if isinstance(op, OnAir)),
        tops={_top_name(op): op for op in ops if isinstance(op, TopCategory)},
        days=days,
        own_days=own_days,
    )


def catalog_of_state(entity: Entity, catalog: Catalog, columns: Sequence[str]) -> Catalog:
    """Those features of the catalog, of whichever entity, that some state columns of an entity are kept for."""
    alone = [Catalog(features=(f,), sequences=(), labels=()) for f in catalog.features if isinstance(f.op, WindowOp)]
    asking = [one for one in alone if entity in stored_entities(one)]
    wanted = [one for one in asking if not {*columns}.isdisjoint(state_layout(entity, one).columns)]
    return Catalog(features=tuple(one.features[0] for one in wanted), sequences=(), labels=())


def checked_windows(entity: Entity, catalog: Catalog) -> tuple[Feature, ...]:
    """The window features of an entity.

    Raises:
        CatalogError: there is none, or some have no meaning for the entity; all of them are named.
    """
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


def as_features(entity: Entity, catalog: Catalog, state: DataFrame) -> DataFrame:
    """Window features as of each row's `DAY`, from merged state (one row per day and key).

    Returns:
        day: date, keys..., then the catalog's window features of the entity in its order and types, never null.

    Raises:
        CatalogError: as `checked_windows`.
    """
    windows = checked_windows(entity, catalog)
    layout = state_layout(entity, catalog)
    values = [_value(feature).cast(feature.dtype.value).alias(feature.name) for feature in windows]
    return state.where(layout.has_features()).select(DAY, *layout.keys, *values)


def top_total(op: TopCategory) -> Total:
    """The sum by which the categories of a user are ranked."""
    return Total(source=op.measure.name, days=op.days)


def best_categories(sums: DataFrame, tops: Iterable[str], keys: Sequence[str]) -> DataFrame:
    """keys..., and per name in `tops` the category with the largest sum above 0; ties by name, null for none.

    Categories are compared only where sums are equal: Spark interprets aggregates of strings, row by row.
    """
    names, of_key = tuple(tops), Window.partitionBy(*keys)
    largest = {name: F.col(f"_largest{name}") for name in names}
    known = sums.withColumns({f"_largest{name}": F.max(name).over(of_key) for name in names})
    is_best = {name: (F.col(name) == most) & (most > 0) for name, most in largest.items()}
    has_none = reduce(lambda one, other: one & other, (most <= 0 for most in largest.values()))
    kept = known.where(reduce(lambda one, other: one | other, is_best.values(), has_none))
    return kept.groupBy(*keys).agg(*(F.min(F.when(is_best[name], F.col(CATEGORY))).alias(name) for name in names))


def on_air_measure(op: OnAir) -> str:
    """Column of the tiles on air: milliseconds of sessions that are cut at so many hours."""
    return f"on_air_ms_{op.max_session_hours}h"


def on_air_ops(catalog: Catalog) -> dict[str, OnAir]:
    """Column of the tiles on air → an operation that reads it; empty when no feature needs such tiles."""
    ops = [feature.op for feature in catalog.windows(Entity.ANCHOR)]
    return {on_air_measure(op): op for op in ops if isinstance(op, OnAir)}


def _asked_of_pairs(entity: Entity, catalog: Catalog) -> tuple[Total, ...]:
    ops = [feature.op for owner in (Entity.USER, Entity.ANCHOR) for feature in catalog.windows(owner)]
    asked = [op for op in ops if isinstance(op, DistinctPartners | TopCategory) and PAIRS[type(op)] is entity]
    return _unique(Total(source=op.measure.name, days=op.days) for op in asked)


def _value(feature: Feature) -> Column:
    """The feature in a row of state; what the state does not know of a key is what an empty window has."""
    op = feature.op
    if isinstance(op, TileOp):
        return tile_value(op)
    if isinstance(op, DistinctPartners):
        return F.coalesce(F.col(_partner_count(op).name), zero())
    if isinstance(op, OnAir):
        return F.coalesce(F.col(_air_total(op).name), zero())
    if isinstance(op, TopCategory):
        return F.coalesce(F.col(_top_name(op)), F.lit(feature.default))
    raise CatalogError(f"{feature.name}: {type(op).__name__} is no window")


def _partner_count(op: DistinctPartners) -> PartnerCount:
    return PartnerCount(source=op.measure.name, days=op.days)


def _air_total(op: OnAir) -> Total:
    return Total(source=on_air_measure(op), days=op.days)


def _top_name(op: TopCategory) -> str:
    return f"_top_{op.measure.name}_{op.days}"


def _unique(items: Iterable[Item]) -> tuple[Item, ...]:
    return tuple(dict.fromkeys(items))
