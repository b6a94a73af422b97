"""From raw frames to rows of Python values, the shape in which the oracle answers too."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import pandas as pd
from pyspark.sql import DataFrame, SparkSession

from features.schema import Catalog
from features.spark.on_air import on_air_tiles
from features.spark.profiles import profiles
from features.spark.tiles import roll_up, room_tiles
from features.spark.window_state import on_air_ops
from features.spec import TILED_ENTITIES, Entity
from tests.features.random_logs import to_spark
from tests.oracle.profiles import ProfileRows

MAX_ROOM_AGE_DAYS = 14
"""Longer than any room of the random logs lives, plus the lateness of its rows."""


def keyed(frame: DataFrame, keys: int) -> dict[tuple[object, ...], tuple[object, ...]]:
    """First `keys` columns → the others; a key that comes twice is an error."""
    rows = [tuple(row) for row in frame.collect()]
    found = {row[:keys]: row[keys:] for row in rows}
    assert len(found) == len(rows), "a key comes twice"
    return found


def by_day_and_key(frame: DataFrame, entity: Entity) -> ProfileRows:
    """(day, key) → features, for frames that begin with day and the entity's keys."""
    return {(key[0], key[1:]): row for key, row in keyed(frame, 1 + len(entity.keys)).items()}  # type: ignore[misc]


class SparkProfiles:
    """Tiles and profiles of one set of raw frames; tiles are computed once and kept."""

    def __init__(self, spark: SparkSession, logs: Mapping[str, pd.DataFrame], *, partitions: int) -> None:
        self.raw = {name: frame.repartition(partitions) for name, frame in to_spark(spark, logs).items()}
        self.arrivals = sorted({day for name in ("impressions", "actions", "rooms") for day in logs[name]["dt"]})
        self.partitions = partitions
        by_room = room_tiles(self.raw["impressions"], self.raw["actions"])
        self.tiles = {
            entity: roll_up(entity, by_room, rooms=self.raw["rooms"]).repartition(partitions).localCheckpoint()
            for entity in TILED_ENTITIES
        }
        self._on_air: dict[Catalog, DataFrame] = {}

    def on_air(self, catalog: Catalog) -> DataFrame:
        """The tiles on air that the catalog's windows read."""
        if catalog not in self._on_air:
            tiles = on_air_tiles(
                self.raw["rooms"], on_air_ops(catalog), days=self.arrivals, max_room_age_days=MAX_ROOM_AGE_DAYS
            )
            self._on_air[catalog] = tiles.repartition(self.partitions).localCheckpoint()
        return self._on_air[catalog]

    def rows(self, entity: Entity, catalog: Catalog, days: Sequence[dt.date]) -> ProfileRows:
        """(day, key) → the entity's window features."""
        frame = profiles(entity, catalog=catalog, tiles=self.tiles, on_air=self.on_air(catalog), days=days)
        return by_day_and_key(frame, entity)
