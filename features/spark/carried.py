"""Carried windows: the state of D + 1 from the state of D, at the cost of one day.

    W_N(D + 1) = W_N(D) + {a = D, D + 1 − N ≤ e ≤ D} − {e = D − N, a < D}

  tiles that enter or leave a window       one row per key, e, a: those of one arrival day, and of one day e per N
  → grouped by key                         what each state column gains and loses; only keys that are TOUCHED
  ⟕ state of D, only of touched keys       old row beside it: the state is streamed past the touched keys, not sorted
  ⟕ partners, tops                         from the touched pairs, old and new
  → old and new state                      one row per touched key
  → a delta row                            new − old (bits: xor), so that a key's state is the sum of its rows in the
                                           base and its deltas; a key that dies sums up to nothing
Tiles on air may lie ahead (e > a): they enter when e = D, whenever they arrived.

The content digest is a sum over row hashes, so it is carried too: each delta row brings the hashes of the new row
less those of the old one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import pairwise

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from features.schema import Catalog
from features.spark.ops import ARRIVED, DAY, E_NUMBER, HAPPENED, PartnerCount, TileColumn, Total, zero
from features.spark.row_hash import high_half, low_half
from features.spark.window_state import (
    PAIRS,
    StateLayout,
    best_categories,
    state_layout,
    stored_entities,
    top_total,
)
from features.spec import Entity

ONE_DAY = dt.timedelta(days=1)
RANKED = "_ranked"
ROWS, HIGH, LOW = "rows_change", "high_change", "low_change"
DIGEST_CHANGES = (ROWS, HIGH, LOW)
"""What a row of a delta changes in the number of rows and in the two sums of row hashes."""
IMPOSSIBLE = "impossible"
"""Names, by commas, of the columns whose new value no tiles can have made: what lies below is not what it was."""
BESIDE = (*DIGEST_CHANGES, IMPOSSIBLE)
"""Columns of a delta that are looked at while it is written, and not written."""


def merged_state(layout: StateLayout, rows: DataFrame, keys: Sequence[str]) -> DataFrame:
    """State from the rows of bases and deltas.

    Args:
        rows: day: date (when the row was written), then `keys` and state columns.
        keys: what names a row of state: the layout's keys, and whatever else tells states apart.

    Returns:
        keys..., state columns; only rows that count.
    """
    merged = (column.alias(name) for name, column in _merged(layout).items())
    return rows.groupBy(*keys).agg(*merged).where(layout.alive())


def _merged(layout: StateLayout) -> dict[str, Column]:
    """State column → aggregate over the rows of a key; of a top the newest row counts."""
    sums = {column.name: column.merged() for column in layout.sums}
    return sums | {name: F.max_by(name, DAY) for name in layout.tops}


def carried_day(
    catalog: Catalog,
    *,
    states: Mapping[Entity, DataFrame],
    tiles: Mapping[Entity, DataFrame],
    on_air: DataFrame | None,
    day: dt.date,
    keep: Callable[[DataFrame], DataFrame],
) -> dict[Entity, DataFrame]:
    """`touched` of every stored entity, pairs first, as users and anchors are carried from theirs.

    Args:
        states: rows of the bases and the deltas of `day`, for every stored entity.
        tiles, on_air: at least the tiles that enter or leave a window; more do no harm.
        keep: makes a frame that is read several times, such as `DataFrame.persist`.
    """
    moved: dict[Entity, DataFrame] = {}
    for entity in stored_entities(catalog):
        layout = state_layout(entity, catalog)
        partners = tops = None
        if layout.partners:
            partners = partner_changes(moved[Entity.USER_ANCHOR], layout.partners, layout.keys)
        if layout.tops:
            tops = top_categories(layout, states[Entity.USER_CATEGORY], moved[Entity.USER_CATEGORY])
        frame = touched(
            layout, states[entity], day=day, tiles=tiles[entity], on_air=on_air, partners=partners, tops=tops
        )
        moved[entity] = keep(frame) if entity in PAIRS.values() else frame
    return moved


def touched(
    layout: StateLayout,
    state: DataFrame,
    *,
    day: dt.date,
    tiles: DataFrame,
    on_air: DataFrame | None = None,
    partners: DataFrame | None = None,
    tops: DataFrame | None = None,
) -> DataFrame:
    """Old and new state of every key whose row may differ between `day` and the day after.

    Args:
        state: rows of the base and the deltas of `day`.
        tiles: at least those that `enters` or `leaves` a window of the entity's own tiles; more do no harm.
        on_air: the same of tiles on air, where the layout has any.
        partners: of `partner_changes`, where the layout has any.
        tops: of `top_categories`, where the layout has any; a user who is not in it keeps the old ones.

    Returns:
        keys..., each state column twice: as it was (`_was` + name) and as it is.
    """
    keys = list(layout.keys)
    gains = _gains(layout, tiles, on_air, day)
    if partners is not None:
        gains = gains.join(partners, on=keys, how="left")
    gained = gains.select(*keys, *(F.col(n).alias(_gained_name(n)) for n in gains.columns if n not in keys))
    beside = state.join(gained.hint("shuffle_hash"), on=keys, how="right")
    # A key has one row per base or delta that holds it; what it gained stands beside each of them.
    merged = _merged(layout)
    old = beside.groupBy(*keys).agg(
        *(merged[column.name].alias(_was(column.name)) for column in layout.sums),
        *(F.max(name).alias(name) for name in gained.columns if name not in keys),
    )
    if tops is not None:
        # Apart from the sums: with a string among them Spark would sort and interpret instead of hashing.
        newest = beside.groupBy(*keys).agg(*(merged[name].alias(_was(name)) for name in layout.tops))
        ranked = tops.withColumnsRenamed({name: _gained_name(name) for name in layout.tops})
        old = old.join(newest.hint("shuffle_hash"), on=keys, how="left")
        old = old.join(ranked.hint("shuffle_hash"), on=keys, how="left")
    was = {column.name: F.coalesce(F.col(_was(column.name)), zero()) for column in layout.sums}
    new = {
        column.name: column.after(was[column.name], F.coalesce(F.col(_gained_name(column.name)), zero()), day)
        for column in layout.sums
    }
    return old.select(
        *layout.keys,
        *(value.alias(_was(name)) for name, value in was.items()),
        *(_was(name) for name in layout.tops),
        *(value.alias(name) for name, value in new.items()),
        *(
            F.when(F.col(RANKED), F.col(_gained_name(name))).otherwise(F.col(_was(name))).alias(name)
            for name in layout.tops
        ),
    )


def delta(layout: StateLayout, moved: DataFrame, *, day: dt.date) -> DataFrame:
    """The rows to write for the day after `day`, from `touched`.

    Returns:
        day: date, keys..., state columns, then BESIDE.
    """
    was = {name: F.col(_was(name)) for name in layout.columns}
    now = {name: F.col(name) for name in layout.columns}
    return moved.select(
        F.lit(day + ONE_DAY).alias(DAY),
        *layout.keys,
        *_changes(layout, was, now),
        F.concat_ws(",", *_impossible(layout, now, day + ONE_DAY)).alias(IMPOSSIBLE),
    )


def without_partner(layout: StateLayout, state: DataFrame, pairs: DataFrame) -> DataFrame:
    """Delta rows that take one partner out of the state of the keys that count it.

    Args:
        state: day, keys..., state columns; of any number of days.
        pairs: day, keys..., the state columns of the pairs that `layout.partners` ask: those of this partner alone.

    Returns:
        day: date, keys..., state columns, then DIGEST_CHANGES; only keys that change.
    """
    names = [partner.name for partner in layout.partners]
    counted = ((F.col(partner.pair.name) > 0).cast("bigint").alias(_was(partner.name)) for partner in layout.partners)
    beside = state.join(pairs.select(DAY, *layout.keys, *counted), on=[DAY, *layout.keys])
    was = {name: F.col(name) for name in layout.columns}
    now = was | {name: F.col(name) - F.col(_was(name)) for name in names}
    some = reduce(lambda one, other: one | other, (F.col(_was(name)) > 0 for name in names))
    return beside.where(some).select(DAY, *layout.keys, *_changes(layout, was, now))


def _changes(layout: StateLayout, was: Mapping[str, Column], now: Mapping[str, Column]) -> list[Column]:
    """State columns of a delta's row, then DIGEST_CHANGES."""
    changes = {column.name: column.change(now[column.name], was[column.name]) for column in layout.sums}
    hashes = {}
    for label, row in (("now", now), ("was", was)):
        row_hash = F.xxhash64(*layout.keys, *row.values())
        hashes[label] = F.when(layout.alive(row), row_hash)
    return [
        *(change.alias(name) for name, change in changes.items()),
        *(now[name].alias(name) for name in layout.tops),
        (layout.alive(now).cast("bigint") - layout.alive(was).cast("bigint")).alias(ROWS),
        *(
            (F.coalesce(half(hashes["now"]), zero()) - F.coalesce(half(hashes["was"]), zero())).alias(name)
            for name, half in ((HIGH, high_half), (LOW, low_half))
        ),
    ]


def _impossible(layout: StateLayout, now: Mapping[str, Column], day: dt.date) -> list[Column]:
    """Per column its name where it cannot be: by itself, above a longer window's, or of a key that is not there."""
    is_there = layout.alive(now)
    longer: dict[str, str] = {}
    totals = [column for column in layout.sums if isinstance(column, Total)]
    for source in dict.fromkeys(column.source for column in totals):
        nested = sorted((column for column in totals if column.source == source), key=lambda column: column.days)
        longer |= {short.name: long.name for short, long in pairwise(nested)}
    named = []
    for column in layout.sums:
        value = now[column.name]
        may_be = column.may_be(value, day) & (is_there | (value == 0))
        if column.name in longer:
            may_be &= value <= now[longer[column.name]]
        named.append(F.when(~may_be, F.lit(column.name)))
    return named


def partner_changes(pairs: DataFrame, partners: Sequence[PartnerCount], keys: Sequence[str]) -> DataFrame:
    """How many partners each key gained less how many it lost.

    Args:
        pairs: `touched` of the user-anchor pairs.
        keys: key columns of the entity whose partners are counted.

    Returns:
        keys..., one bigint per partner count, by its name; only keys for which one is not 0.
    """

    def counts(name: str) -> Column:
        return (F.col(name) > 0).cast("bigint")

    changes = {p.name: counts(p.pair.name) - counts(_was(p.pair.name)) for p in partners}
    moved = pairs.select(*keys, *(change.alias(name) for name, change in changes.items()))
    some = reduce(lambda one, other: one | other, (F.col(name) != 0 for name in changes))
    return moved.where(some).groupBy(*keys).agg(*(F.sum(name).alias(name) for name in changes))


def top_categories(layout: StateLayout, state: DataFrame, pairs: DataFrame) -> DataFrame:
    """Top categories of the users of whom some category is touched; all their categories compete.

    Args:
        layout: of the users.
        state: rows of the base and the deltas of the user-category pairs, as of the day before.
        pairs: `touched` of those pairs.

    Returns:
        user_id, one string per top, null when no sum is above 0, and RANKED, which is true.
    """
    totals = {name: top_total(op).name for name, op in layout.tops.items()}
    (user,) = layout.keys
    keys = Entity.USER_CATEGORY.keys
    held = state.select(*keys, *(F.col(total).alias(name) for name, total in totals.items()))
    moves = ((F.col(total) - F.col(_was(total))).alias(name) for name, total in totals.items())
    every = held.unionByName(pairs.select(*keys, *moves)).repartition(user)
    users = pairs.select(user).distinct().hint("shuffle_hash")
    competing = every.join(users, on=user, how="left_semi")
    sums = competing.groupBy(*keys).agg(*(F.sum(name).alias(name) for name in totals))
    return best_categories(sums, totals, (user,)).withColumn(RANKED, F.lit(True))


def enters(length: int, day: dt.date) -> Column:
    """Whether a tile is in the window of `length` days as of the day after `day`, and was not as of `day`."""
    arrives = F.greatest(HAPPENED, ARRIVED) == F.lit(day)
    return arrives & (F.col(HAPPENED) > F.lit(day - ONE_DAY * length))


def leaves(length: int, day: dt.date) -> Column:
    """Whether a tile was in the window of `length` days as of `day`, and is not as of the day after."""
    return (F.col(HAPPENED) == F.lit(day - ONE_DAY * length)) & (F.col(ARRIVED) < F.lit(day))


def _gains(layout: StateLayout, tiles: DataFrame, on_air: DataFrame | None, day: dt.date) -> DataFrame:
    """keys..., per column over tiles what entered it less what left it; every key that anything entered or left."""
    gains = _gained(layout, layout.tiles, layout.tile_lengths(), tiles, day)
    if not layout.air or on_air is None:
        return gains
    on_air_gains = _gained(layout, layout.air, layout.air_lengths(), on_air, day)
    return gains.join(on_air_gains, on=list(layout.keys), how="full_outer")


def _gained(
    layout: StateLayout, columns: Sequence[TileColumn], lengths: Sequence[int], tiles: DataFrame, day: dt.date
) -> DataFrame:
    moves = reduce(lambda one, other: one | other, (enters(n, day) | leaves(n, day) for n in lengths))
    measures = dict.fromkeys(column.source for column in columns if column.source is not None)
    moving = tiles.where(moves).select(
        *layout.keys, HAPPENED, ARRIVED, F.unix_date(HAPPENED).alias(E_NUMBER), *measures
    )
    return moving.groupBy(*layout.keys).agg(
        *(column.aggregate(enters(column.days, day), leaves(column.days, day)).alias(column.name) for column in columns)
    )


def left_on(layout: StateLayout, day: dt.date) -> list[dt.date]:
    """The days e whose tiles leave some window between `day` and the day after."""
    return [day - ONE_DAY * length for length in layout.tile_lengths()]


def _gained_name(name: str) -> str:
    return f"_gained{name}"


def _was(name: str) -> str:
    return f"_was{name}"
