"""Tiles: partial aggregates of the logs, keyed by (entity, day happened `e`, day arrived `a`).

The tiles of arrival day a depend on raw rows with dt = a alone (and on rooms with a − R ≤ dt ≤ a), so they are stored
per `a` and never change. Every window, of any length, as of any day, is a sum of tiles. Tiles of several entities are
sums of one finer set (`room_tiles`), so that raw rows are read and summed once.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from features.errors import CatalogError
from features.spark.ops import ARRIVED, CATEGORY, HAPPENED
from features.spark.rooms import with_newest_room
from features.spec import MEASURES, TILED_ENTITIES, Entity, Measure

UNKNOWN_CATEGORY = ""
SAMPLED_NEGATIVE = "sampled_negative"
ROOM_TILE_KEYS = ("user_id", "anchor_id", "room_id", HAPPENED, ARRIVED)


def tile_columns(entity: Entity) -> tuple[str, ...]:
    """Columns of the tiles of an entity, in order."""
    return (*entity.keys, HAPPENED, ARRIVED, *(measure.name for measure in MEASURES))


def room_tiles(impressions: DataFrame, actions: DataFrame) -> DataFrame:
    """Adds up raw rows of any number of arrival days, in the one pass over them that all tiles are made of.

    1. impressions and actions as one log            one row per raw row
    2. measures summed by (user, anchor, room, e, a) partial sums before the shuffle

    Args:
        impressions, actions: deduplicated raw rows, with `dt`. Impressions that a source drew instead of logging
            (`sampled_negative`) are left out: nobody saw them.

    Returns:
        user_id, anchor_id, room_id, e: date, a: date, then every measure as bigint. Key: all but the measures.
    """
    log = _log(impressions, actions)
    return log.groupBy(*ROOM_TILE_KEYS).agg(*(_measured(measure) for measure in MEASURES))


def with_category(by_room: DataFrame, rooms: DataFrame, max_room_age_days: int | None = None) -> DataFrame:
    """Tiles or rows of rooms with the category that their room had by the day they arrived; '' where it is unknown."""
    known = with_newest_room(by_room, rooms, cutoff=ARRIVED, columns=[CATEGORY], max_age_days=max_room_age_days)
    return known.fillna(UNKNOWN_CATEGORY, subset=[CATEGORY])


def roll_up(
    entity: Entity, by_room: DataFrame, *, rooms: DataFrame | None, max_room_age_days: int | None = None
) -> DataFrame:
    """The tiles of an entity from those of `room_tiles`; a hot room joins few rows, not its log.

    Args:
        entity: one of TILED_ENTITIES.
        by_room: of `room_tiles`, or finer than the entity in another way.
        rooms: raw rows with dt up to the last arrival day, from the first less `max_room_age_days` on (all, when that
            is None); for entities with a category.
        max_room_age_days: rows of a room that arrived longer before do not count.

    Returns:
        keys..., e: date, a: date, then every measure as bigint. Key: all but the measures. A room without a known
        category counts for the category ''.

    Raises:
        CatalogError: the entity has no tiles, or a category and no rooms to look it up.
    """
    if entity not in TILED_ENTITIES:
        raise CatalogError(f"{entity} has no tiles: only {[str(e) for e in TILED_ENTITIES]} have windows")
    if CATEGORY in entity.keys:
        if rooms is None:
            raise CatalogError(f"tiles of {entity} need the rooms table")
        by_room = with_category(by_room, rooms, max_room_age_days)
    sums = (F.sum(measure.name).alias(measure.name) for measure in MEASURES)
    return by_room.groupBy(*entity.keys, HAPPENED, ARRIVED).agg(*sums).select(*tile_columns(entity))


def tiles(
    entity: Entity,
    *,
    impressions: DataFrame,
    actions: DataFrame,
    rooms: DataFrame,
    max_room_age_days: int | None = None,
) -> DataFrame:
    """The tiles of one entity from raw rows: `roll_up` of `room_tiles`."""
    by_room = room_tiles(impressions, actions)
    return roll_up(entity, by_room, rooms=rooms, max_room_age_days=max_room_age_days)


def row_tiles(impressions: DataFrame, actions: DataFrame) -> DataFrame:
    """Raw rows as tiles that nobody has summed: user_id, anchor_id, room_id, e, a, then every measure as bigint.

    Windows over them have the same sums and days as over tiles; only the number of tiles is another one. They serve
    where each row is summed once, for one day alone.
    """
    log = _log(impressions, actions)
    return log.select(*ROOM_TILE_KEYS, *(_amount(measure).alias(measure.name) for measure in MEASURES))


def _log(impressions: DataFrame, actions: DataFrame) -> DataFrame:
    """user_id, anchor_id, room_id, e, a, action (null: an impression), value; only what some measure counts."""
    seen = impressions
    if SAMPLED_NEGATIVE in impressions.columns:
        seen = impressions.where(~F.coalesce(F.col(SAMPLED_NEGATIVE), F.lit(False)))
    counted = sorted({measure.action for measure in MEASURES if measure.action is not None})
    ids_and_days = (
        "user_id",
        "anchor_id",
        "room_id",
        F.to_date("ts").alias(HAPPENED),
        F.col("dt").alias(ARRIVED),
    )
    shown = seen.select(
        *ids_and_days, F.lit(None).cast("string").alias("action"), F.lit(None).cast("double").alias("value")
    )
    done = actions.where(F.col("action").isin(counted)).select(*ids_and_days, "action", "value")
    return shown.unionByName(done)


def _measured(measure: Measure) -> Column:
    """The measure summed over a group of the log, as bigint."""
    return F.sum(_amount(measure)).alias(measure.name)


def _amount(measure: Measure) -> Column:
    """What a row of the log adds to the measure, as bigint."""
    is_of_kind = F.col("action").isNull() if measure.action is None else F.col("action") == measure.action
    amount = F.lit(1) if measure.value_scale is None else F.round(F.col("value") * measure.value_scale)
    return F.when(is_of_kind, amount.cast("bigint")).otherwise(F.lit(0).cast("bigint"))
