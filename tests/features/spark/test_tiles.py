"""Tiles against the oracle: sums of raw rows by (key, day happened, day arrived)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F

from features.errors import CatalogError
from features.spark.tiles import tile_columns, tiles
from features.spec import MEASURES, TILED_ENTITIES, Entity
from tests.features.random_logs import LogShape, many_logs, random_logs, to_spark
from tests.features.spark.profile_rows import keyed
from tests.oracle import profiles as oracle

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.spark


def computed(entity: Entity, raw: dict[str, DataFrame]) -> DataFrame:
    return tiles(entity, impressions=raw["impressions"], actions=raw["actions"], rooms=raw["rooms"])


@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seeds=st.lists(st.integers(0, 2**32 - 1), min_size=8, max_size=8), drawn=st.booleans())
def test_tiles_are_those_of_the_oracle(spark: SparkSession, seeds: list[int], drawn: bool) -> None:
    logs = many_logs(seeds, LogShape(sampled_negatives=drawn))
    raw = to_spark(spark, logs)
    for entity in TILED_ENTITIES:
        assert keyed(computed(entity, raw), 2 + len(entity.keys)) == oracle.tiles(entity, logs)


@pytest.mark.parametrize("entity", TILED_ENTITIES)
def test_a_days_tiles_need_only_the_rows_that_arrived_on_it(spark: SparkSession, entity: Entity) -> None:
    raw = to_spark(spark, random_logs(7))
    day = LogShape().first_day.replace(day=28)
    arrived = {name: raw[name].where(F.col("dt") == day) for name in ("impressions", "actions")}
    alone = computed(entity, {**arrived, "rooms": raw["rooms"].where(F.col("dt") <= day)})
    found = keyed(alone, 2 + len(entity.keys))
    assert found == keyed(computed(entity, raw).where(F.col("a") == day), 2 + len(entity.keys))
    assert found


def test_columns_are_keys_days_and_every_measure(spark: SparkSession) -> None:
    raw = to_spark(spark, random_logs(1))
    for entity in TILED_ENTITIES:
        frame = computed(entity, raw)
        assert tuple(frame.columns) == tile_columns(entity)
        assert dict(frame.dtypes[-len(MEASURES) :]) == {measure.name: "bigint" for measure in MEASURES}


def test_an_entity_without_tiles_is_refused(spark: SparkSession) -> None:
    with pytest.raises(CatalogError, match="room has no tiles"):
        computed(Entity.ROOM, to_spark(spark, random_logs(1)))
