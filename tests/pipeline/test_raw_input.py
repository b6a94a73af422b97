"""Reading raw days: schema, quarantine, repeats; against pandas where there is arithmetic."""

from __future__ import annotations

import datetime as dt
import tempfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql.types import DateType, LongType, StringType

from features.errors import ConfError, DataError, NotReadyError
from pipeline.raw_input import RawInput
from pipeline.raw_listing import list_raw
from tests.pipeline.raw_rows import ZONE, action, at, day, impression, put_day

LATENESS = 2


def _input(spark: SparkSession, warehouse: Path, *, share: float = 0.01) -> RawInput:
    listing = list_raw(spark, str(warehouse))
    return RawInput(spark, listing, zone=ZONE, max_lateness_days=LATENESS, max_repeat_share=share)


def test_columns_are_the_contract_then_further_ones_then_the_day(spark: SparkSession, tmp_path: Path) -> None:
    put_day(tmp_path, "impressions", day(0), [impression(1, at(0))])
    put_day(tmp_path, "impressions", day(1), [impression(2, at(1), slot="a")], types={"slot": pa.string()})
    read = _input(spark, tmp_path).read("impressions", [day(0), day(1)])
    assert read.columns[-2:] == ["slot", "dt"]
    assert read.schema["dt"].dataType == DateType()
    assert read.schema["impression_id"].dataType == LongType()
    assert read.schema["slot"].dataType == StringType()
    rows = {(row["impression_id"], row["slot"], row["dt"]) for row in read.collect()}
    assert rows == {(1, None, day(0)), (2, "a", day(1))}


def test_only_the_days_asked_for_are_read(spark: SparkSession, tmp_path: Path) -> None:
    for offset in range(3):
        put_day(tmp_path, "impressions", day(offset), [impression(offset, at(offset))])
    read = _input(spark, tmp_path).read("impressions", [day(1)])
    assert [row["impression_id"] for row in read.collect()] == [1]


def test_empty_days_are_read_and_counted(spark: SparkSession, tmp_path: Path) -> None:
    put_day(tmp_path, "actions", day(0), [])
    put_day(tmp_path, "actions", day(1), [action(1, at(1))])
    raw = _input(spark, tmp_path)
    assert raw.read("actions", [day(0)]).count() == 0
    assert raw.counts("actions", [day(0), day(1)]).empty_days == (day(0),)


def test_a_day_without_files_is_empty_too(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "raw" / "rooms" / f"dt={day(0)}"
    folder.mkdir(parents=True)
    (folder / "_SUCCESS").touch()
    raw = _input(spark, tmp_path)
    read = raw.read("rooms", [day(0)])
    assert read.count() == 0
    assert read.columns[:2] == ["room_id", "anchor_id"]
    assert raw.counts("rooms", [day(0)]).empty_days == (day(0),)


def test_late_days_stop(spark: SparkSession, tmp_path: Path) -> None:
    put_day(tmp_path, "actions", day(0), [action(1, at(0))], marker=False)
    with pytest.raises(NotReadyError, match="table=actions day=2025-05-05: raw day is late"):
        _input(spark, tmp_path).read("actions", [day(0)])


def test_every_wrong_column_of_every_day_is_named_at_once(spark: SparkSession, tmp_path: Path) -> None:
    folder = put_day(tmp_path, "actions", day(0), [action(1, at(0))], types={"value": pa.float32()})
    put_day(tmp_path, "actions", day(1), [action(2, at(1))], types={"ts": pa.timestamp("us"), "user_id": pa.int32()})
    table = pa.parquet.read_table(next(folder.glob("*.parquet"))).drop_columns(["action"])
    pa.parquet.write_table(table, next(folder.glob("*.parquet")))
    with pytest.raises(DataError) as caught:
        _input(spark, tmp_path).read("actions", [day(0), day(1)])
    assert {(p.day, p.column, p.what) for p in caught.value.problems} == {
        (str(day(0)), "action", "column is absent, string wanted"),
        (str(day(0)), "value", "column is float, not double of the contract"),
        (str(day(1)), "ts", "column is timestamp_ntz, not timestamp of the contract"),
        (str(day(1)), "user_id", "column is int, not bigint of the contract"),
    }


def test_rows_from_after_their_day_stop(spark: SparkSession, tmp_path: Path) -> None:
    put_day(tmp_path, "actions", day(0), [action(1, at(0, 23, 59)), action(2, at(1, 0, 0)), action(3, at(5))])
    with pytest.raises(DataError) as caught:
        _input(spark, tmp_path).read("actions", [day(0)])
    (problem,) = caught.value.problems
    assert (problem.table, problem.day, problem.column, problem.count) == ("actions", str(day(0)), "ts", 2)
    assert '"action_id":2' in str(problem)


def test_rows_without_key_or_time_stop_instead_of_vanishing(spark: SparkSession, tmp_path: Path) -> None:
    nameless = [{**action(1, at(0)), "ts": None}, {**action(2, at(0)), "action_id": None}, action(3, at(0))]
    put_day(tmp_path, "actions", day(0), nameless)
    with pytest.raises(DataError) as caught:
        _input(spark, tmp_path).read("actions", [day(0)])
    (problem,) = caught.value.problems
    assert (problem.column, problem.count) == ("action_id, ts", 2)
    assert '{"action_id":1,"ts":null}' in problem.examples


def test_rows_that_arrive_too_late_are_counted_and_left_out(spark: SparkSession, tmp_path: Path) -> None:
    put_day(tmp_path, "actions", day(3), [action(i, at(3 - i)) for i in range(4)])
    raw = _input(spark, tmp_path)
    assert sorted(row["action_id"] for row in raw.read("actions", [day(3)]).collect()) == [0, 1, 2]
    assert raw.counts("actions", [day(3)]).quarantined == {day(3): 1}


def test_copies_count_once_where_they_arrived_first(spark: SparkSession, tmp_path: Path) -> None:
    put_day(tmp_path, "actions", day(0), [action(1, at(0)), action(1, at(0)), action(2, at(0))])
    put_day(tmp_path, "actions", day(1), [action(2, at(0)), action(3, at(1))])
    raw = _input(spark, tmp_path, share=0.5)
    both = sorted((row["action_id"], row["dt"]) for row in raw.read("actions", [day(0), day(1)]).collect())
    assert both == [(1, day(0)), (2, day(0)), (3, day(1))]
    assert [row["action_id"] for row in raw.read("actions", [day(1)]).collect()] == [3]
    assert raw.counts("actions", [day(0), day(1)]).repeated == {day(0): 1, day(1): 1}
    assert raw.counts("actions", [day(1)]).repeated == {day(1): 1}
    raw.close()


def test_a_subset_of_examined_days_is_answered_for(spark: SparkSession, tmp_path: Path) -> None:
    put_day(tmp_path, "actions", day(0), [action(1, at(0)), action(2, at(0))])
    put_day(tmp_path, "actions", day(1), [action(1, at(0)), action(3, at(1)), action(4, at(-5))])
    widest, narrow = _input(spark, tmp_path, share=0.5), _input(spark, tmp_path, share=0.5)
    widest.counts("actions", [day(0), day(1)])
    for offset in range(2):
        there, here = (
            sorted(row["action_id"] for row in raw.read("actions", [day(offset)]).collect()) for raw in (widest, narrow)
        )
        assert there == here
        there_counts, here_counts = (raw.counts("actions", [day(offset)]) for raw in (widest, narrow))
        assert there_counts.rows == here_counts.rows
        assert there_counts.quarantined == here_counts.quarantined
        assert there_counts.repeated == here_counts.repeated == ({} if offset == 0 else {day(1): 1})
    widest.close()
    narrow.close()


def test_copies_above_the_share_stop(spark: SparkSession, tmp_path: Path) -> None:
    put_day(tmp_path, "actions", day(0), [action(1, at(0)), action(1, at(0)), action(2, at(0))])
    with pytest.raises(DataError, match=r"repeated action_id above the share of 1.00% of 3 rows \(1\)"):
        _input(spark, tmp_path).read("actions", [day(0)])


def test_copies_that_differ_stop_whatever_the_share(spark: SparkSession, tmp_path: Path) -> None:
    put_day(tmp_path, "impressions", day(0), [impression(1, at(0)), impression(2, at(0), scene=None)])
    put_day(tmp_path, "impressions", day(1), [impression(1, at(0), user_id=9), impression(2, at(0), scene="feed")])
    with pytest.raises(DataError) as caught:
        _input(spark, tmp_path, share=1.0).read("impressions", [day(1)])
    (problem,) = caught.value.problems
    assert problem.what == "rows of the same impression_id differ"
    assert problem.count == 2
    assert list(problem.examples) == ['{"impression_id":1}', '{"impression_id":2}']


def test_a_snapshot_may_repeat_its_keys_every_day_but_not_within_one(spark: SparkSession, tmp_path: Path) -> None:
    for offset in range(2):
        put_day(tmp_path, "users", day(offset), [{"user_id": 1, "age": offset}])
    assert _input(spark, tmp_path).read("users", [day(0), day(1)]).count() == 2
    put_day(tmp_path, "users", day(1), [{"user_id": 1, "age": 30}])
    with pytest.raises(DataError, match="rows of the same user_id differ"):
        _input(spark, tmp_path).read("users", [day(0), day(1)])


def test_a_room_may_have_many_rows(spark: SparkSession, tmp_path: Path) -> None:
    started = {"room_id": 1, "anchor_id": 2, "started_at": at(0)}
    put_day(tmp_path, "rooms", day(1), [started, {**started, "ended_at": at(1)}])
    assert _input(spark, tmp_path).read("rooms", [day(1)]).count() == 2


def test_the_session_must_run_in_the_business_zone(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(ConfError, match=r"timeZone is Asia/Shanghai, time.zone is UTC"):
        RawInput(spark, list_raw(spark, str(tmp_path)), zone="UTC", max_lateness_days=1, max_repeat_share=0.0)


EVENTS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 3), st.lists(st.integers(0, 4), min_size=1, max_size=3)), max_size=25
)


@given(events=EVENTS, asked=st.integers(0, 5))
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_counts_equals_pandas(spark: SparkSession, events: list[tuple[int, int, list[int]]], asked: int) -> None:
    """Events (id, day it happened, delays of its copies): what any day's readers see, by a naive rule."""
    happened = {key: on for key, on, _ in events}
    copies = [(key, happened[key], happened[key] + delay) for key, _, delays in events for delay in delays]
    with tempfile.TemporaryDirectory() as folder:
        for arrived in range(9):
            rows = [action(key, at(on)) for key, on, when in copies if when == arrived]
            put_day(Path(folder), "actions", day(arrived), rows)
        raw = _input(spark, Path(folder), share=10.0)
        seen = [(row["action_id"], row["dt"]) for row in raw.read("actions", [day(asked)]).collect()]
        quarantined = raw.counts("actions", [day(asked)]).quarantined
        raw.close()
    assert sorted(seen) == _oracle_first_copies(copies, asked)
    late = sum(when == asked and when - on > LATENESS for _, on, when in copies)
    assert quarantined == ({day(asked): late} if late else {})


def _oracle_first_copies(copies: list[tuple[int, int, int]], asked: int) -> list[tuple[int, dt.date]]:
    frame = pd.DataFrame(copies, columns=["key", "on", "arrived"])
    in_time = frame[frame["arrived"] - frame["on"] <= LATENESS]
    first = in_time.sort_values(["arrived", "on"], kind="stable").drop_duplicates("key")
    return sorted((int(key), day(asked)) for key in first[first["arrived"] == asked]["key"])
