"""Which row of a room counts, by cutoff day."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from pyspark.sql import functions as F

from features.spark.rooms import room_versions, with_newest_room
from tests.features.random_logs import frame_to_spark, many_logs
from tests.features.spark.profile_rows import keyed
from tests.oracle.profiles import newest_room

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

DAY = dt.date(2024, 3, 1)


def room_row(arrived: int, *, category: str | None, ended: bool = False, started_minute: int = 0) -> dict[str, object]:
    started = dt.datetime(2024, 3, 1, 20, started_minute)
    return {
        "room_id": 1,
        "anchor_id": 1,
        "started_at": started,
        "ended_at": started + dt.timedelta(hours=1) if ended else None,
        "category": category,
        "tags": [],
        "content": None,
        "dt": DAY + dt.timedelta(days=arrived),
    }


def versions_of(spark: SparkSession, *rows: dict[str, object]) -> list[tuple[object, ...]]:
    frame = frame_to_spark(spark, "rooms", pd.DataFrame(rows).astype({"ended_at": "datetime64[us]"}))
    versions = room_versions(frame, ["category", "ended_at"]).orderBy("valid_from")
    return [
        (row["category"], row["ended_at"] is not None, (row["valid_from"] - DAY).days, (row["valid_to"] - DAY).days)
        for row in versions.collect()
    ]


FOREVER = (dt.date(9999, 12, 31) - DAY).days


def test_a_start_row_that_arrives_after_the_end_hides_nothing(spark: SparkSession) -> None:
    late_start = [room_row(0, category="end", ended=True), room_row(2, category="start")]
    assert versions_of(spark, *late_start) == [("end", True, 0, 2), ("end", True, 2, FOREVER)]


def test_of_one_day_the_end_counts_then_the_later_start(spark: SparkSession) -> None:
    both = [room_row(0, category="start", started_minute=5), room_row(0, category="end", ended=True)]
    assert versions_of(spark, *both) == [("end", True, 0, FOREVER)]
    starts = [room_row(0, category="b"), room_row(0, category="a", started_minute=5)]
    assert versions_of(spark, *starts) == [("a", False, 0, FOREVER)]


def test_a_correction_counts_from_its_arrival_on(spark: SparkSession) -> None:
    rows = [room_row(0, category="talk"), room_row(1, category=None), room_row(4, category="music")]
    assert versions_of(spark, *rows) == [
        ("talk", False, 0, 1),
        (None, False, 1, 4),
        ("music", False, 4, FOREVER),
    ]


def test_any_cutoff_sees_what_the_oracle_sees(spark: SparkSession) -> None:
    rooms = many_logs(range(10))["rooms"]
    raw = frame_to_spark(spark, "rooms", rooms)
    cutoffs = sorted(set(rooms["dt"]))
    asked = raw.select("room_id").distinct().withColumn("at", F.explode(F.array(*(F.lit(day) for day in cutoffs))))
    found = keyed(with_newest_room(asked, raw, cutoff="at", columns=["category", "anchor_id"]), 2)
    groups = {room_id: rows.to_dict("records") for room_id, rows in rooms.groupby("room_id")}
    expected = {}
    for room_id, rows in groups.items():
        for day in cutoffs:
            newest = newest_room(rows, day)
            expected[room_id, day] = (None, None) if newest is None else (newest["category"], newest["anchor_id"])
    assert found == expected
    assert (None, None) in expected.values()
