"""Columns of raw days against the contract and the catalog: every difference of every table at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from features.errors import DataError
from features.schema import Catalog, load_catalog
from features.spec import DType, Entity, Feature, Field, Ids, Snapshot
from pipeline.raw_listing import list_raw
from pipeline.raw_shapes import RawColumns, catalog_columns, raw_schema
from pipeline.sources.raw_layout import RAW_TABLES
from tests.pipeline.raw_rows import action, at, day, impression, put_day

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


def feature(name: str, entity: Entity, op: Field | Snapshot) -> Feature:
    return Feature(
        name=name, entity=entity, op=op, dtype=DType.STRING, encoding=Ids(vocabulary=name), default="", doc="a test."
    )


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """The catalog with two features that name further columns."""
    known = load_catalog()
    more = (
        feature("slot", Entity.IMPRESSION, Field(column="slot")),
        feature("user_tier", Entity.USER, Snapshot(column="tier")),
    )
    return replace(known, features=(*known.features, *more))


def columns(spark: SparkSession, warehouse: Path) -> RawColumns:
    return RawColumns(spark, list_raw(spark, str(warehouse)))


def test_further_columns_that_the_catalog_names(catalog: Catalog) -> None:
    assert catalog_columns(load_catalog()) == {}
    assert catalog_columns(catalog) == {"impressions": {"slot": "slot"}, "users": {"tier": "user_tier"}}


def test_every_difference_of_every_table_is_named_at_once(
    spark: SparkSession, tmp_path: Path, catalog: Catalog
) -> None:
    put_day(tmp_path, "actions", day(0), [action(1, at(0))], types={"value": pa.float32()})
    put_day(tmp_path, "impressions", day(0), [impression(1, at(0))], types={"user_id": pa.int32(), "slot": pa.string()})
    put_day(tmp_path, "impressions", day(1), [impression(2, at(1))])
    put_day(tmp_path, "users", day(0), [], types={"tier": pa.string()})
    put_day(tmp_path, "users", day(1), [], types={"tier": pa.int64()})
    days = [day(0), day(1)]
    with pytest.raises(DataError) as caught:
        columns(spark, tmp_path).require({"impressions": days, "actions": days, "users": days}, catalog)
    assert [(p.table, p.day, p.column, p.what) for p in caught.value.problems] == [
        ("actions", str(day(0)), "value", "column is float, not double of the contract"),
        ("impressions", str(day(0)), "user_id", "column is int, not bigint of the contract"),
        ("impressions", str(day(1)), "slot", "column is absent: feature slot reads it"),
        ("users", str(day(1)), "tier", "column is bigint, not string as on the days before it"),
    ]


def test_what_nothing_reads_is_ignored_and_told(spark: SparkSession, tmp_path: Path, catalog: Catalog) -> None:
    more = {"slot": pa.string(), "shop": pa.int64()}
    put_day(tmp_path, "impressions", day(0), [impression(1, at(0))], types=more)
    put_day(tmp_path, "impressions", day(1), [impression(2, at(1))], types=more)
    found = columns(spark, tmp_path)
    found.require({"impressions": [day(0), day(1)]}, catalog)
    assert found.unread("impressions", day(0), catalog) == ["shop"]
    assert found.unread("impressions", day(9), catalog) == []
    assert found.all_unread(catalog) == {"impressions": {"shop": 2}}


def test_a_column_that_nothing_reads_may_change_its_type(spark: SparkSession, tmp_path: Path, catalog: Catalog) -> None:
    for number, kind in enumerate((pa.int64(), pa.string())):
        types = {"shop": kind, "slot": pa.string(), "sampled_negative": pa.bool_()}
        put_day(tmp_path, "impressions", day(number), [impression(number, at(number))], types=types)
    days = [day(0), day(1)]
    found = columns(spark, tmp_path)
    found.require({"impressions": days}, catalog)
    assert found.all_unread(catalog) == {"impressions": {"shop": 2}}
    read = [field.name for field in raw_schema("impressions", found.shapes("impressions", days)).fields]
    assert read == [*RAW_TABLES["impressions"].column_names(), "sampled_negative", "slot", "dt"]


def test_what_a_stage_reads_keeps_its_type(spark: SparkSession, tmp_path: Path, catalog: Catalog) -> None:
    for number, kind in enumerate((pa.bool_(), pa.int64())):
        types = {"slot": pa.string(), "sampled_negative": kind}
        put_day(tmp_path, "impressions", day(number), [impression(number, at(number))], types=types)
    with pytest.raises(DataError, match="column is bigint, not boolean as on the days before it"):
        columns(spark, tmp_path).require({"impressions": [day(0), day(1)]}, catalog)
