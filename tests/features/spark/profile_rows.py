"""From raw frames to rows of Python values, the shape in which the oracle answers too."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import pandas as pd
from pyspark.sql import DataFrame, SparkSession

from features.schema import Catalog
from features.spark.profiles import profiles
from features.spark.tiles import tiles
from features.spec import TILED_ENTITIES, Entity
from tests.features.random_logs import to_spark
from tests.oracle.profiles import ProfileRows


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
        self.tiles = {
            entity: tiles(
                entity, impressions=self.raw["impressions"], actions=self.raw["actions"], rooms=self.raw["rooms"]
            )
            .repartition(partitions)
            .localCheckpoint()
            for entity in TILED_ENTITIES
        }

    def rows(self, entity: Entity, catalog: Catalog, days: Sequence[dt.date]) -> ProfileRows:
        """(day, key) → the entity's window features."""
        frame = profiles(entity, catalog=catalog, tiles=self.tiles, rooms=self.raw["rooms"], days=days)
        return by_day_and_key(frame, entity)
