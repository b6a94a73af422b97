"""KuaiRand: the sample against pandas, and small folders with absent columns and several files."""

from __future__ import annotations

import datetime as dt
import gzip
from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from features.errors import DataError
from pipeline.check_raw import RawCheckConf, check_raw, has_errors
from pipeline.sources import kuairand
from pipeline.sources.assembly import UNKNOWN_ANCHOR_BASE
from pipeline.sources.report import IngestReport
from tests.pipeline.raw_rows import ZONE

SAMPLE = Path(__file__).parents[3].parent / "shared" / "data" / "kuairand_sample"
FIRST, LAST = dt.date(2022, 4, 19), dt.date(2022, 4, 21)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not SAMPLE.exists():
        pytest.skip("../shared/data/kuairand_sample is not here")
    return tmp_path_factory.mktemp("kuairand")


@pytest.fixture(scope="module")
def report(spark: SparkSession, warehouse: Path) -> IngestReport:
    conf = kuairand.KuaiRandConf(folder=str(SAMPLE), first_day=FIRST, last_day=LAST)
    return kuairand.ingest(spark, conf, str(warehouse))


@pytest.fixture(scope="module")
def log(warehouse: Path) -> pd.DataFrame:
    """The sample's distinct lines of the days, by pandas."""
    lines = pd.read_csv(next(SAMPLE.glob("log_standard*")))
    merged = lines.groupby(["user_id", "video_id", "time_ms"], as_index=False).max()
    moment = pd.to_datetime(merged["time_ms"], unit="ms", utc=True).dt.tz_convert(ZONE)
    merged["day"] = moment.dt.date
    return merged[(merged["day"] >= FIRST) & (merged["day"] <= LAST)]


def _raw(spark: SparkSession, warehouse: Path, table: str) -> DataFrame:
    return spark.read.parquet(str(warehouse / "raw" / table))


def test_impressions_are_the_distinct_lines_of_each_day(report: IngestReport, log: pd.DataFrame) -> None:
    assert report.rows["impressions"] == log.groupby("day").size().to_dict()
    assert report.dropped["repeated log lines"] == 124


def test_enters_are_clicks_and_watches_their_play_time(
    spark: SparkSession, warehouse: Path, report: IngestReport, log: pd.DataFrame
) -> None:
    found = (
        _raw(spark, warehouse, "actions").groupBy("action").agg(F.count("*").alias("n"), F.sum("value").alias("value"))
    )
    rows = {row["action"]: row for row in found.collect()}
    clicked = log[log["is_click"] == 1]
    assert rows["enter"]["n"] == len(clicked)
    assert rows["watch"]["n"] == len(clicked)
    assert rows["watch"]["value"] == pytest.approx(clicked["play_time_ms"].sum() / 1000)
    for action, flag in (
        ("like", "is_like"),
        ("comment", "is_comment"),
        ("follow", "is_follow"),
        ("share", "is_forward"),
    ):
        assert rows[action]["n"] == log[flag].sum()


def test_a_watch_is_dated_by_its_end(spark: SparkSession, warehouse: Path, report: IngestReport) -> None:
    shown = _raw(spark, warehouse, "impressions").select("impression_id", F.col("ts").alias("shown"))
    joined = _raw(spark, warehouse, "actions").where(F.col("action") == "watch").join(shown, "impression_id")
    micros = F.unix_micros("ts") - F.unix_micros("shown")
    assert joined.where(F.abs(micros - F.round(F.col("value") * 1_000_000)) > 1).count() == 0


def test_unknown_authors_are_one_anchor_per_video(spark: SparkSession, warehouse: Path, report: IngestReport) -> None:
    rooms = _raw(spark, warehouse, "rooms")
    authors = pd.read_csv(next(SAMPLE.glob("video_features_basic*"))).set_index("video_id")["author_id"]
    for row in rooms.select("room_id", "anchor_id").collect():
        own = UNKNOWN_ANCHOR_BASE + row["room_id"]
        assert row["anchor_id"] == authors.get(row["room_id"], own)


def test_absent_columns_are_reported(report: IngestReport) -> None:
    assert report.absent_columns["log_standard_sample.csv.gz.tab"] == "scene is null"


def test_the_warehouse_keeps_the_contract(spark: SparkSession, warehouse: Path, report: IngestReport) -> None:
    assert not has_errors(check_raw(spark, str(warehouse), FIRST, LAST, RawCheckConf(zone=ZONE)))


LINE = "1,{video},{time},{click},0,0,0,0,0,12000,{tab}\n"
HEADER = "user_id,video_id,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,play_time_ms,tab\n"
NOON = 1_650_513_600_000  # 2022-04-21 12:00 in Shanghai


def test_files_plain_and_packed_are_read_by_their_own_headers(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    first = HEADER + LINE.format(video=5, time=NOON, click=1, tab=4) + "oops,5,x,1,0,0,0,0,0,1,1\n"
    (folder / "log_standard_1.csv").write_text(first)
    with gzip.open(folder / "log_random_1.csv.gz", "wt") as file:
        file.write("time_ms,video_id,user_id,is_rand,is_click\n" + f"{NOON + 1},6,2,1,0\n")
    report = kuairand.ingest(spark, kuairand.KuaiRandConf(folder=str(folder)), str(tmp_path / "w"))
    shown = spark.read.parquet(str(tmp_path / "w" / "raw" / "impressions"))
    assert {(row["user_id"], row["room_id"], row["scene"]) for row in shown.collect()} == {
        (1, 5, "tab_4"),
        (2, 6, "random"),
    }
    assert report.dropped["log lines without an id or a time"] == 1
    assert report.absent_columns["log_random_1.csv.gz.play_time_ms"] == "null"
    assert report.rows["users"] == {dt.date(2022, 4, 20): 2, dt.date(2022, 4, 21): 2}


def test_a_folder_without_a_log_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no log_standard file"):
        kuairand.ingest(spark, kuairand.KuaiRandConf(folder=str(tmp_path)), str(tmp_path / "w"))
    (tmp_path / "log_standard.csv").write_text("user_id,is_click\n1,1\n")
    with pytest.raises(DataError) as caught:
        kuairand.ingest(spark, kuairand.KuaiRandConf(folder=str(tmp_path)), str(tmp_path / "w"))
    assert [problem.column for problem in caught.value.problems] == ["video_id", "time_ms"]
