"""Tiles: partial aggregates of the logs, keyed by (entity, day happened `e`, day arrived `a`).

The tiles of arrival day a depend on raw rows with dt = a alone (and on rooms with dt ≤ a), so they are stored per
`a` and never change. Every window, of any length, as of any day, is a sum of tiles.
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


def tile_columns(entity: Entity) -> tuple[str, ...]:
    """Columns of the tiles of an entity, in order."""
    return (*entity.keys, HAPPENED, ARRIVED, *(measure.name for measure in MEASURES))


def tiles(entity: Entity, *, impressions: DataFrame, actions: DataFrame, rooms: DataFrame) -> DataFrame:
    """Adds up raw rows of any number of arrival days, in one pass.

    1. impressions and actions as one log                          one row per raw row
    2. measures summed by (keys that raw rows have, e, a)          one row per tile, partial sums before the shuffle
    3. for a category: the room's category by a, and summed again  a hot room joins few rows, not its log

    Args:
        entity: one of TILED_ENTITIES.
        impressions, actions: deduplicated raw rows, with `dt`. Impressions that a source drew instead of logging
            (`sampled_negative`) are left out: nobody saw them.
        rooms: all raw rows with dt up to the last arrival day of the logs.

    Returns:
        keys..., e: date, a: date, then every measure as bigint. Key: all but the measures. A room without a known
        category counts for the category ''.

    Raises:
        CatalogError: the entity has no tiles.
    """
    if entity not in TILED_ENTITIES:
        raise CatalogError(f"{entity} has no tiles: only {[str(e) for e in TILED_ENTITIES]} have windows")
    log = _log(impressions, actions)
    if CATEGORY not in entity.keys:
        grouped = log.groupBy(*entity.keys, HAPPENED, ARRIVED).agg(*(_measured(measure) for measure in MEASURES))
        return grouped.select(*tile_columns(entity))
    raw_keys = [key for key in entity.keys if key != CATEGORY]
    by_room = log.groupBy(*raw_keys, "room_id", HAPPENED, ARRIVED).agg(*(_measured(measure) for measure in MEASURES))
    categorised = with_newest_room(by_room, rooms, cutoff=ARRIVED, columns=[CATEGORY])
    return (
        categorised.fillna(UNKNOWN_CATEGORY, subset=[CATEGORY])
        .groupBy(*entity.keys, HAPPENED, ARRIVED)
        .agg(*(F.sum(measure.name).alias(measure.name) for measure in MEASURES))
        .select(*tile_columns(entity))
    )


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
    is_of_kind = F.col("action").isNull() if measure.action is None else F.col("action") == measure.action
    amount = F.lit(1) if measure.value_scale is None else F.round(F.col("value") * measure.value_scale)
    counted = F.when(is_of_kind, amount.cast("bigint")).otherwise(F.lit(0).cast("bigint"))
    return F.sum(counted).alias(measure.name)
