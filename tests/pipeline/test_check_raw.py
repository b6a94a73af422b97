"""The raw contract: every violation planted at once is reported at once, and a sound warehouse has none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from features.errors import ConfError
from pipeline.check_raw import RawCheckConf, Violation, check_raw, has_errors
from pipeline.sources.raw_layout import RAW_TABLES
from tests.pipeline.raw_rows import ZONE, action, at, day, impression, put_day

CONF = RawCheckConf(zone=ZONE, max_lateness_days=2, max_repeat_share=0.3)

USER = {"user_id": 1, "age": 30}
ROOM = {"room_id": 3, "anchor_id": 2, "started_at": at(0, 1)}
MINUTE = {"room_id": 3, "minute": at(0, 1), "viewers": 1, "entries": 1, "comments": 0, "gift_coins": 0}

SOUND: dict[str, Sequence[dict[str, Any]]] = {
    "impressions": [impression(1, at(0))],
    "actions": [action(1, at(0), impression_id=1), action(2, at(0))],
    "users": [USER],
    "anchors": [{"anchor_id": 2}],
    "rooms": [ROOM, {**ROOM, "ended_at": at(0, 5)}],
    "room_stats": [MINUTE],
}


def _seen(violations: Sequence[Violation]) -> set[tuple[object, ...]]:
    return {
        (v.severity, v.problem.table, v.problem.day, v.problem.column, v.problem.what, v.problem.count)
        for v in violations
    }


def test_a_sound_warehouse_has_none(spark: SparkSession, tmp_path: Path) -> None:
    for table, rows in SOUND.items():
        put_day(tmp_path, table, day(0), rows)
    assert check_raw(spark, str(tmp_path), day(0), day(0), CONF) == []


def test_days_that_are_missing_late_and_empty(spark: SparkSession, tmp_path: Path) -> None:
    for table, rows in SOUND.items():
        put_day(tmp_path, table, day(0), rows)
        put_day(tmp_path, table, day(2), [])
        put_day(tmp_path, table, day(3), [], marker=False)
    found = check_raw(spark, str(tmp_path), day(0), day(3), CONF)
    answers = {(v.problem.day, v.severity, v.problem.what.split(":")[0]) for v in found}
    assert answers == {
        (str(day(1)), "error", "raw day is missing"),
        (str(day(2)), "warning", "raw day is empty"),
        (str(day(3)), "error", "raw day is late"),
    }
    assert len(found) == 3 * len(RAW_TABLES)


def _plant_rows(folder: Path) -> None:
    """Every row rule broken, on day 4 (day 3 holds what the repeats repeat)."""
    impressions = [impression(i, at(3)) for i in range(1, 5)]
    put_day(folder, "impressions", day(3), impressions)
    put_day(
        folder,
        "impressions",
        day(4),
        [
            impressions[0],
            impression(2, at(3), user_id=8),
            impression(11, at(4), user_id=None),
            impression(12, at(5)),
            impression(13, at(1)),
            impression(14, at(4), position=-1),
            *(impression(i, at(4)) for i in range(20, 26)),
        ],
    )
    put_day(folder, "actions", day(3), [])
    put_day(
        folder,
        "actions",
        day(4),
        [
            action(1, at(4), impression_id=1),
            action(2, at(4), action="wave"),
            action(3, at(4), value=-2.0),
            action(4, at(4), value=math.nan),
            *(action(i, at(4), impression_id=1000 + i) for i in range(10, 17)),
            {**action(30, at(4)), "ts": None},
        ],
    )
    put_day(folder, "users", day(4), [USER, USER, {"user_id": 2, "age": -1}])
    put_day(folder, "anchors", day(4), [{"anchor_id": 2, "level": 1}, {"anchor_id": 2, "level": 2}])
    put_day(folder, "rooms", day(4), [{**ROOM, "started_at": at(4), "ended_at": at(4, 11)}])
    put_day(folder, "room_stats", day(4), [{**MINUTE, "minute": at(4), "entries": -3}])
    for table in ("users", "anchors", "rooms", "room_stats"):
        put_day(folder, table, day(3), [])


def test_every_violation_of_rows_is_reported_at_once(spark: SparkSession, tmp_path: Path) -> None:
    _plant_rows(tmp_path)
    found = check_raw(spark, str(tmp_path), day(3), day(4), CONF)
    on = str(day(4))
    ahead = "rows happened after the end of the day they arrived on"
    null, negative = "null where the contract allows none", "negative or not a number"
    late = "rows arrived more than 2 days late and will be quarantined"
    rows = {seen for seen in _seen(found) if "raw day is empty" not in str(seen[4])}
    assert rows == {
        ("error", "impressions", on, "user_id", null, 1),
        ("error", "impressions", on, "ts", ahead, 1),
        ("warning", "impressions", on, "ts", late, 1),
        ("error", "impressions", on, "position", negative, 1),
        ("warning", "impressions", None, "impression_id", "repeated impression_id, payload equal", 1),
        ("error", "impressions", None, "impression_id", "repeated impression_id, payload differs", 1),
        ("error", "actions", on, "ts", null, 1),
        ("error", "actions", on, "action", "unknown action", 1),
        ("error", "actions", on, "value", negative, 2),
        ("warning", "actions", on, "impression_id", "action of an unknown impression", 7),
        ("error", "users", on, "age", negative, 1),
        ("error", "users", None, "user_id", "repeated user_id, payload equal", 1),
        ("error", "anchors", None, "anchor_id", "repeated anchor_id, payload differs", 1),
        ("error", "rooms", on, "ended_at", "room ended before it started", 1),
        ("error", "room_stats", on, "entries", negative, 1),
    }
    assert has_errors(found)


def test_examples_are_offenders_and_at_most_five(spark: SparkSession, tmp_path: Path) -> None:
    _plant_rows(tmp_path)
    found = check_raw(spark, str(tmp_path), day(3), day(4), CONF)
    (unknown,) = [v.problem for v in found if v.problem.what == "action of an unknown impression"]
    assert 1 <= len(unknown.examples) <= 5
    assert set(unknown.examples) <= {f'{{"action_id":{i},"impression_id":{1000 + i}}}' for i in range(10, 17)}
    (wave,) = [v.problem for v in found if v.problem.what == "unknown action"]
    assert len(wave.examples) == 1
    assert '"action":"wave"' in str(wave)


def test_equal_repeats_above_the_share_are_an_error(spark: SparkSession, tmp_path: Path) -> None:
    _plant_rows(tmp_path)
    strict = CONF.model_copy(update={"max_repeat_share": 0.05})
    found = check_raw(spark, str(tmp_path), day(3), day(4), strict)
    (equal,) = [v for v in found if v.problem.what == "repeated impression_id, payload equal"]
    assert equal.severity == "error"


def test_bad_columns_are_named_and_the_rest_is_still_checked(spark: SparkSession, tmp_path: Path) -> None:
    for table, rows in SOUND.items():
        put_day(tmp_path, table, day(0), rows, types={"value": pa.float32()} if table == "actions" else None)
    folder = put_day(tmp_path, "impressions", day(0), [impression(2, at(1))])
    put_day(tmp_path, "rooms", day(0), [ROOM], types={"category": pa.int64()})
    first = folder / "part-0.parquet"
    for file in (first, folder / "part-1.parquet"):
        pa.parquet.write_table(pa.parquet.read_table(file).drop_columns(["scene"]), file)
    found = _seen(check_raw(spark, str(tmp_path), day(0), day(0), CONF))
    on = str(day(0))
    assert found == {
        ("error", "impressions", on, "scene", "column is absent, string wanted", None),
        ("error", "impressions", on, "ts", "rows happened after the end of the day they arrived on", 1),
        ("error", "actions", on, "value", "column is float, not double of the contract", None),
        ("error", "rooms", on, None, "files of one day have different columns", 1),
    }


def test_the_session_must_run_in_the_business_zone(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(ConfError, match=r"time.zone is UTC"):
        check_raw(spark, str(tmp_path), day(0), day(0), CONF.model_copy(update={"zone": "UTC"}))
