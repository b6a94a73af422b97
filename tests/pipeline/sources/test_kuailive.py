"""KuaiLive: a warehouse is written in the official layout, ingested from it, and compared with itself."""

from __future__ import annotations

import csv
import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

from features.errors import DataError
from pipeline.check_raw import RawCheckConf, check_raw, has_errors
from pipeline.sources import kuailive
from pipeline.sources.kuailive_writer import write_kuailive
from pipeline.sources.report import IngestReport, read_source_facts
from tests.pipeline.raw_rows import ZONE, action, at, day, impression, put_day

FIRST, LAST = day(0), day(1)


def _rooms(on: int) -> list[dict[str, Any]]:
    """Room 10 * day + k of anchor k runs from 1:00 to 20:00; the second of each day ends only at 2:00 of the next."""
    rooms = []
    for k in range(3):
        start = {"room_id": 10 * on + k, "anchor_id": k, "started_at": at(on, 1), "category": f"c{k}"}
        start["content"] = [float(on), float(k), 0.5]
        rooms += [start] if k == 1 else [start, {**start, "ended_at": at(on, 20)}]
    if on:
        rooms.append({"room_id": 10 * on - 9, "anchor_id": 1, "started_at": at(on - 1, 1), "ended_at": at(on, 2)})
        rooms[-1] |= {"category": "c1", "content": [on - 1.0, 1.0, 0.5]}
    return rooms


def _events(on: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Twelve impressions a day; every third is entered and watched, with some gifts, comments, likes, follows."""
    shown, did = [], []
    for k in range(12):
        key = 100 * on + k
        who = {"user_id": 50 + k % 4, "room_id": 10 * on + k % 3, "anchor_id": k % 3}
        ts = at(on, 12, k)
        shown.append(impression(key, ts, **who))
        if k % 3:
            continue
        of = {**who, "impression_id": key}
        did.append(action(1000 + 10 * key, ts, action="enter", **of))
        ended = ts + dt.timedelta(seconds=30 + k, milliseconds=250)
        did.append(action(1001 + 10 * key, ended, action="watch", value=30.25 + k, **of))
        later = ts + dt.timedelta(seconds=20)
        for number, (name, value) in enumerate((("gift", 5.0 + k), ("comment", 1.0), ("like", 1.0), ("follow", 1.0))):
            if k % (number + 2) == 0:
                did.append(action(1002 + number + 10 * key, later, action=name, value=value, **of))
    return shown, did


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The warehouse that is written in KuaiLive's layout."""
    folder = tmp_path_factory.mktemp("simulated")
    users = [{"user_id": 50 + k, "gender": "FM"[k % 2], "age": 20 + 9 * k, "device": "p"} for k in range(4)]
    anchors = [{"anchor_id": k, "gender": "F", "age": 30, "category": f"c{k}", "level": k} for k in range(3)]
    for on in range(2):
        shown, did = _events(on)
        put_day(folder, "impressions", day(on), shown)
        put_day(folder, "actions", day(on), did)
        put_day(folder, "rooms", day(on), _rooms(on))
        put_day(folder, "users", day(on), [{**user, "registered_on": day(-100)} for user in users])
        put_day(folder, "anchors", day(on), [{**anchor, "signed_on": day(-9)} for anchor in anchors])
        put_day(folder, "room_stats", day(on), [])
    return folder


@pytest.fixture(scope="module")
def layout(spark: SparkSession, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kuailive")
    assert write_kuailive(spark, str(source), str(folder)) == {"follow": 2}
    return folder


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("warehouse")


@pytest.fixture(scope="module")
def report(spark: SparkSession, layout: Path, warehouse: Path) -> IngestReport:
    return kuailive.ingest(spark, kuailive.KuaiLiveConf(folder=str(layout)), str(warehouse))


def _read(spark: SparkSession, warehouse: Path, table: str) -> DataFrame:
    return spark.read.parquet(str(warehouse / "raw" / table))


def _rows(df: DataFrame, *columns: str) -> list[tuple[Any, ...]]:
    return sorted(tuple(row) for row in df.select(*columns).collect())


def test_layout_is_the_official_one(layout: Path) -> None:
    names = {path.name for path in layout.iterdir() if not path.name.startswith(".")}
    tables = ("user", "streamer", "room", "click", "comment", "like", "gift", "negative")
    assert names == {f"{name}.csv" for name in tables} | {"title_embeddings.npy"}
    with (layout / "click.csv").open() as file:
        assert next(csv.reader(file)) == ["user_id", "live_id", "streamer_id", "timestamp", "watch_live_time"]
    assert np.load(layout / "title_embeddings.npy").shape == (6, 3)


def test_impressions_come_back(spark: SparkSession, source: Path, warehouse: Path, report: IngestReport) -> None:
    columns = ("user_id", "anchor_id", "room_id", "ts", "dt")
    there, back = (_rows(_read(spark, place, "impressions"), *columns) for place in (source, warehouse))
    assert back == there
    assert _read(spark, warehouse, "impressions").select("impression_id").distinct().count() == len(back)


def test_actions_come_back_but_follows(
    spark: SparkSession, source: Path, warehouse: Path, report: IngestReport
) -> None:
    columns = ("action", "user_id", "anchor_id", "room_id", "ts", "value", "dt")
    there = _rows(_read(spark, source, "actions").where("action != 'follow'"), *columns)
    assert _rows(_read(spark, warehouse, "actions"), *columns) == there
    unattributed = _read(spark, warehouse, "actions").where("impression_id IS NULL").select("action").distinct()
    assert {row["action"] for row in unattributed.collect()} == {"gift", "comment", "like"}


def test_enters_belong_to_their_click(spark: SparkSession, warehouse: Path, report: IngestReport) -> None:
    shown = _read(spark, warehouse, "impressions").select("impression_id", "user_id", "room_id", "ts")
    enters = _read(spark, warehouse, "actions").where("action = 'enter'")
    assert enters.join(shown, ["impression_id", "user_id", "room_id", "ts"], "left_anti").count() == 0


def test_rooms_start_and_end_on_their_days_with_their_titles(
    spark: SparkSession, source: Path, warehouse: Path, report: IngestReport
) -> None:
    columns = ("room_id", "anchor_id", "started_at", "category", "content", "dt")
    places = [_read(spark, place, "rooms") for place in (source, warehouse)]
    for condition in ("ended_at IS NULL", "ended_at IS NOT NULL"):
        there, back = (_rows(place.where(condition), *columns) for place in places)
        assert back == there


def test_profiles_come_back_as_ranges_allow(spark: SparkSession, warehouse: Path, report: IngestReport) -> None:
    newest = _read(spark, warehouse, "users").where(f"dt = '{LAST}'")
    ages = {row["user_id"]: (row["age"], row["gender"], row["device"]) for row in newest.collect()}
    assert ages == {50: (18, "F", "p"), 51: (24, "M", "p"), 52: (31, "F", "p"), 53: (41, "M", "p")}
    assert list(report.rows["users"].values()) == [4, 4, 4]
    anchors = _read(spark, warehouse, "anchors").where(f"dt = '{FIRST}'").collect()
    assert {row["anchor_id"]: row["category"] for row in anchors} == {0: "c0", 1: "c1", 2: "c2"}


def test_the_warehouse_keeps_the_contract(spark: SparkSession, warehouse: Path, report: IngestReport) -> None:
    assert not has_errors(check_raw(spark, str(warehouse), FIRST, LAST, RawCheckConf(zone=ZONE)))
    facts = read_source_facts(spark, str(warehouse))
    assert facts is not None
    assert (facts.first_day, facts.last_day, facts.tasks.esmm) == (FIRST, LAST, ("enter", "gift"))


def test_a_folder_without_the_files_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no click file"):
        kuailive.ingest(spark, kuailive.KuaiLiveConf(folder=str(tmp_path)), str(tmp_path / "w"))
