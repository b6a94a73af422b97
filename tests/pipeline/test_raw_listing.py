"""Listing raw days: four states, digests, readiness."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from features.errors import DataError, NotReadyError
from pipeline.raw_listing import DayState, list_raw, require_ready
from tests.pipeline.raw_rows import DAY, at, day, impression, put_day


def _warehouse(folder: Path) -> str:
    """Day 0 ready, 1 missing, 2 empty, 3 without marker."""
    put_day(folder, "impressions", day(0), [impression(1, at(0))])
    (folder / "raw" / "impressions" / f"dt={day(2)}").mkdir()
    (folder / "raw" / "impressions" / f"dt={day(2)}" / "_SUCCESS").touch()
    put_day(folder, "impressions", day(3), [impression(2, at(3))], marker=False)
    return str(folder)


def test_each_state_has_its_own_answer(spark: SparkSession, tmp_path: Path) -> None:
    listing = list_raw(spark, _warehouse(tmp_path))
    states = [listing.state("impressions", day(offset)) for offset in range(5)]
    assert states == [DayState.READY, DayState.MISSING, DayState.EMPTY, DayState.LATE, DayState.LATE]


def test_late_days_can_be_waited_for(spark: SparkSession, tmp_path: Path) -> None:
    listing = list_raw(spark, _warehouse(tmp_path))
    with pytest.raises(NotReadyError) as caught:
        require_ready(listing, {"impressions": [day(0), day(3), day(4)]})
    assert [problem.day for problem in caught.value.problems] == [day(3).isoformat(), day(4).isoformat()]


def test_a_missing_day_is_wrong_data_even_beside_late_ones(spark: SparkSession, tmp_path: Path) -> None:
    listing = list_raw(spark, _warehouse(tmp_path))
    with pytest.raises(DataError) as caught:
        require_ready(listing, {"impressions": [day(1), day(3)], "users": [day(0)]})
    assert not isinstance(caught.value, NotReadyError)
    assert [(problem.table, problem.day) for problem in caught.value.problems] == [
        ("impressions", day(1).isoformat()),
        ("impressions", day(3).isoformat()),
        ("users", day(0).isoformat()),
    ]


def test_an_empty_day_is_ready(spark: SparkSession, tmp_path: Path) -> None:
    require_ready(list_raw(spark, _warehouse(tmp_path)), {"impressions": [day(0), day(2)]})


def test_digest_sees_a_replaced_file_and_nothing_else(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = _warehouse(tmp_path)
    before = list_raw(spark, warehouse).digests("impressions", [day(0), day(2)])
    assert before == list_raw(spark, warehouse).digests("impressions", [day(0), day(2)])
    put_day(tmp_path, "impressions", day(0), [impression(7, at(0))])
    after = list_raw(spark, warehouse).digests("impressions", [day(0), day(2)])
    assert sorted(after) == [f"impressions/dt={DAY}", f"impressions/dt={day(2)}"]
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {f"impressions/dt={DAY}"}


def test_only_the_range_is_listed_but_history_is_known(spark: SparkSession, tmp_path: Path) -> None:
    listing = list_raw(spark, _warehouse(tmp_path), first_day=day(2), last_day=day(2))
    assert list(listing.partitions["impressions"]) == [day(2)]
    assert listing.first_day("impressions") == DAY
    assert listing.first_day("users") is None
    assert listing.since_history("impressions", [day(-3), day(0), day(1)]) == [day(0), day(1)]


def test_a_folder_that_is_no_day_is_named(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = _warehouse(tmp_path)
    (tmp_path / "raw" / "impressions" / "dt=2025-5-1").mkdir()
    (tmp_path / "raw" / "impressions" / "dt=2025-02-30").mkdir()
    with pytest.raises(DataError, match=r"folder is not a day \(2\); e.g. dt=2025-02-30, dt=2025-5-1"):
        list_raw(spark, warehouse)
