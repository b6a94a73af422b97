"""Serving rows from hand-made states: what is joined, what defaults, which actions, in which order."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import pytest

from features.schema import Catalog
from features.spark.recent_actions import STATE_SCHEMA
from features.spark.serving import recent_sequences, serving_rows
from features.spec import (
    ENTERS,
    Buckets,
    Dense,
    DType,
    Entity,
    Feature,
    Field,
    Ids,
    SequenceFeature,
    SequenceField,
    Snapshot,
    Sum,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

DAY = datetime.date(2025, 3, 5)
EVE = datetime.date(2025, 3, 4)
AGE = SequenceField(name="age", source="age_s", encoding=Buckets(boundaries=(60,)))
CATALOG = Catalog(
    features=(
        Feature(
            name="user_id", entity=Entity.IMPRESSION, op=Field(column="user_id"), dtype=DType.BIGINT,
            encoding=Ids(vocabulary="user"), default=0, doc="",
        ),
        Feature(
            name="user_enters_7d", entity=Entity.USER, op=Sum(measure=ENTERS, days=7), dtype=DType.BIGINT,
            encoding=Dense(), default=0, doc="",
        ),
        Feature(
            name="user_city", entity=Entity.USER, op=Snapshot(column="city"), dtype=DType.STRING,
            encoding=Ids(vocabulary="city"), default="", doc="",
        ),
    ),
    sequences=(
        SequenceFeature(
            name="watched", action="watch", length=2, max_age_days=30, doc="",
            fields=(
                SequenceField(name="anchor", source="anchor_id", encoding=Ids(vocabulary="anchor")),
                SequenceField(name="time", source="watch_ms", encoding=Buckets(boundaries=(1000,))),
                AGE,
            ),
        ),
        SequenceFeature(
            name="gifted", action="gift", length=3, max_age_days=30, doc="",
            fields=(SequenceField(name="coins", source="coins", encoding=Buckets(boundaries=(1,))), AGE),
        ),
    ),
    labels=(),
)  # fmt: skip


def test_one_row_per_key_of_any_part_with_defaults_ids_and_the_newest_actions(spark: SparkSession) -> None:
    recent = spark.createDataFrame(
        [
            (DAY, 1, "watch", [10, 20, 30], [1, 2, 3], [7, 8, 9], ["a", "b", ""], [1.0, 0.0005, 2.5]),
            (DAY, 1, "gift", [40], [4], [7], ["a"], [66.0]),
            (DAY, 3, "gift", [5], [5], [8], ["b"], [1.0]),
        ],
        STATE_SCHEMA,
    )
    frame = serving_rows(
        CATALOG,
        Entity.USER,
        day=DAY,
        newest_arrival=EVE,
        parts=[
            spark.createDataFrame([(1, 5), (2, 6)], "user_id bigint, user_enters_7d bigint"),
            spark.createDataFrame([(2, "x"), (4, None)], "user_id bigint, user_city string"),
            recent_sequences(CATALOG, recent),
        ],
        vocabularies={"user_id": spark.createDataFrame([(2, 17)], "key bigint, id int")},
    )
    nothing: dict[str, object] = {
        "watched_at": [],
        "watched_anchor": [],
        "watched_time": [],
        "gifted_at": [],
        "gifted_coins": [],
    }
    common: dict[str, object] = {
        "dt": DAY,
        "newest_arrival": EVE,
        "id_user_id": 1,
        "user_enters_7d": 0,
        "user_city": "",
    } | nothing
    watched: dict[str, object] = {"watched_at": [30, 20], "watched_anchor": [9, 8], "watched_time": [2500, 1]}
    expected = [
        common | watched | {"user_id": 1, "user_enters_7d": 5, "gifted_at": [40], "gifted_coins": [66],
                            "last_action_at": 40},
        common | {"user_id": 2, "user_enters_7d": 6, "user_city": "x", "id_user_id": 17, "last_action_at": None},
        common | {"user_id": 3, "gifted_at": [5], "gifted_coins": [1], "last_action_at": 5},
        common | {"user_id": 4, "last_action_at": None},
    ]  # fmt: skip
    assert sorted((row.asDict() for row in frame.collect()), key=lambda row: row["user_id"]) == expected
    assert frame.columns[:4] == ["dt", "user_id", "user_enters_7d", "user_city"]
