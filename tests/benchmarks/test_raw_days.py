"""The data that the benchmarks run on: the same for the same seed, resumed where it stopped, as skewed as it says."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.catalogs import with_longest
from benchmarks.duckdb_features import connect
from benchmarks.incremental import chunk_bytes
from benchmarks.raw_days import HOT_ANCHOR, HOT_USER, Size, midnight, write_raw_days
from benchmarks.stated import stated
from features.schema import load_catalog
from features.spec import TILED_ENTITIES

SMALL = Size(actions=4_000, days=3, users=400, anchors=50)


def rows_of(warehouse: Path, table: str, day: dt.date) -> pa.Table:
    return pq.read_table(warehouse / "raw" / table / f"dt={day.isoformat()}" / "part-0.parquet", partitioning=None)


def test_a_day_is_a_function_of_the_seed_and_is_written_once(tmp_path: Path) -> None:
    done: list[int] = []
    first, second = (write_raw_days(SMALL, tmp_path / name, lambda: done.append(1)) for name in ("a", "b"))
    day = SMALL.day_list[1]
    assert rows_of(first, "actions", day).equals(rows_of(second, "actions", day))
    assert not rows_of(first, "actions", day).equals(rows_of(first, "actions", SMALL.day_list[2]))
    (first / "raw" / "actions" / f"dt={day.isoformat()}" / "_SUCCESS").unlink()
    before = {file: file.stat().st_mtime_ns for file in first.rglob("*.parquet")}
    write_raw_days(SMALL, tmp_path / "a", lambda: done.append(1))
    again = [file for file, mtime in before.items() if file.stat().st_mtime_ns != mtime]
    assert [file.parent.name for file in again] == [f"dt={day.isoformat()}"]
    assert len(done) == 3 * SMALL.days


def test_rows_happened_by_the_end_of_the_day_they_arrived_on(tmp_path: Path) -> None:
    warehouse = write_raw_days(SMALL, tmp_path, lambda: None)
    for day in SMALL.day_list:
        actions = rows_of(warehouse, "actions", day)
        happened = actions["ts"].cast(pa.int64()).to_pylist()
        assert max(happened) < midnight(day + dt.timedelta(days=1))
        assert actions.num_rows == SMALL.actions
        on_air = set(rows_of(warehouse, "rooms", day)["room_id"].to_pylist())
        assert on_air & set(actions["room_id"].to_pylist())


def test_skew_moves_rows_and_adds_none(tmp_path: Path) -> None:
    skewed = replace(SMALL, is_skewed=True)
    even, hot = (write_raw_days(size, tmp_path, lambda: None) for size in (SMALL, skewed))
    day = SMALL.day_list[-1]
    assert rows_of(hot, "actions", day).num_rows == rows_of(even, "actions", day).num_rows
    anchors = Counter(rows_of(hot, "actions", day)["anchor_id"].to_pylist())
    users = Counter(rows_of(hot, "actions", day)["user_id"].to_pylist())
    assert anchors[HOT_ANCHOR] / SMALL.actions == pytest.approx(0.2, abs=0.03)
    assert users[HOT_USER] / SMALL.actions == pytest.approx(skewed.hot_user_share, abs=0.02)
    told = stated(connect("1GB", tmp_path / "scratch"), hot, skewed)
    assert told["hottest_anchor_share"] == pytest.approx(0.2, abs=0.03)
    assert 0 < told["user_churn"] < 1


@pytest.mark.parametrize("days", [7, 90])
def test_windows_are_made_as_long_as_asked(days: int) -> None:
    catalog = with_longest(load_catalog(), days)
    assert catalog.max_days() == days
    assert {sequence.max_age_days for sequence in catalog.sequences} == {days}
    for entity in TILED_ENTITIES:
        assert max(feature.days or 0 for feature in catalog.windows(entity)) == days
    assert [feature.name for feature in catalog.features] == [feature.name for feature in load_catalog().features]


def test_chunk_bytes_are_those_of_the_columns_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "file.parquet"
    pq.write_table(pa.table({"a": list(range(1000)), "lists": [[1, 2]] * 1000}), file)
    both = chunk_bytes(file, None)
    assert 0 < chunk_bytes(file, ("a",)) < both == chunk_bytes(file, ("a", "lists")) < file.stat().st_size
