"""Profiles against the oracle, key by key and value by value, on many random logs at once."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest

from features.errors import CatalogError
from features.schema import Catalog, load_catalog
from features.spark.profiles import profiles, reads_on_air, tiles_read
from features.spec import IMPRESSIONS, TILED_ENTITIES, Dense, DType, Entity, Feature, Ids, OnAir, Sum, TopCategory
from tests.features.spark.profile_rows import SparkProfiles
from tests.features.spark.short_windows import DAYS, SHORT_WINDOWS, short_and_long_logs
from tests.oracle import profiles as oracle

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

SEEDS = [3, 14, 15, 92, 65, 35, 89, 79]


@pytest.fixture(scope="module", params=[1, 7], ids=["1 partition", "7 partitions"])
def computed(spark: SparkSession, request: pytest.FixtureRequest) -> SparkProfiles:
    return SparkProfiles(spark, short_and_long_logs(SEEDS), partitions=request.param)


@pytest.mark.parametrize("catalog", [SHORT_WINDOWS, load_catalog()], ids=["short windows", "our catalog"])
@pytest.mark.parametrize("entity", TILED_ENTITIES)
def test_profiles_are_those_of_the_oracle(computed: SparkProfiles, entity: Entity, catalog: Catalog) -> None:
    expected = oracle.profiles(entity, catalog.windows(entity), short_and_long_logs(SEEDS), DAYS)
    found = computed.rows(entity, catalog, DAYS)
    assert found.keys() == expected.keys()
    assert found == expected


@pytest.mark.parametrize("entity", [Entity.USER, Entity.ANCHOR])
def test_a_day_is_the_same_alone_as_among_others(computed: SparkProfiles, entity: Entity) -> None:
    alone = computed.rows(entity, SHORT_WINDOWS, [DAYS[6]])
    among = computed.rows(entity, SHORT_WINDOWS, [DAYS[6], DAYS[9], DAYS[6]])
    assert alone == {key: row for key, row in among.items() if key[0] == DAYS[6]}
    assert alone


def test_columns_follow_the_catalog(computed: SparkProfiles) -> None:
    catalog = load_catalog()
    for entity in TILED_ENTITIES:
        frame = profiles(entity, catalog=catalog, tiles=computed.tiles, on_air=computed.on_air(catalog), days=DAYS[:1])
        key_types = {"user_id": "bigint", "anchor_id": "bigint", "category": "string"}
        expected = [("day", "date"), *((key, key_types[key]) for key in entity.keys)]
        expected += [(feature.name, feature.dtype.value) for feature in catalog.windows(entity)]
        assert frame.dtypes == expected


def test_what_profiles_read() -> None:
    catalog = load_catalog()
    assert tiles_read(Entity.USER, catalog) == (Entity.USER, Entity.USER_ANCHOR, Entity.USER_CATEGORY)
    assert tiles_read(Entity.USER_ANCHOR, catalog) == (Entity.USER_ANCHOR,)
    assert reads_on_air(Entity.ANCHOR, catalog)
    assert not reads_on_air(Entity.USER, catalog)


def test_all_meaningless_operations_are_named(computed: SparkProfiles) -> None:
    top = Feature(
        name="top",
        entity=Entity.ANCHOR,
        op=TopCategory(measure=IMPRESSIONS, days=1),
        dtype=DType.STRING,
        encoding=Ids(vocabulary="category"),
        default="",
        doc="An anchor's category.",
    )
    aired = Feature(
        name="aired",
        entity=Entity.USER,
        op=OnAir(days=1),
        dtype=DType.BIGINT,
        encoding=Dense(),
        default=0,
        doc="A user on air.",
    )
    catalog = Catalog(features=(top, aired), sequences=(), labels=())
    for entity, name in ((Entity.ANCHOR, "top"), (Entity.USER, "aired")):
        with pytest.raises(CatalogError, match=f"{name}: .* has no meaning for {entity}"):
            profiles(entity, catalog=catalog, tiles=computed.tiles, on_air=None, days=DAYS)


def test_an_entity_without_window_features_is_refused(computed: SparkProfiles) -> None:
    only_users = Feature(
        name="seen",
        entity=Entity.USER,
        op=Sum(measure=IMPRESSIONS, days=1),
        dtype=DType.BIGINT,
        encoding=Dense(),
        default=0,
        doc="Impressions.",
    )
    catalog = Catalog(features=(only_users,), sequences=(), labels=())
    with pytest.raises(CatalogError, match="no window feature of anchor"):
        profiles(Entity.ANCHOR, catalog=catalog, tiles=computed.tiles, on_air=None, days=DAYS)
    with pytest.raises(ValueError, match="at least one target day"):
        profiles(Entity.USER, catalog=catalog, tiles=computed.tiles, on_air=None, days=[])


def test_days_are_not_bound_to_the_history(computed: SparkProfiles) -> None:
    long_before, long_after = dt.date(1999, 1, 1), dt.date(2099, 1, 1)
    assert computed.rows(Entity.USER, SHORT_WINDOWS, [long_before, long_after]) == {}
