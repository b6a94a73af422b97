"""The simulated platform keeps the raw-table contract, is a function of its seed, and is as hard as is said."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from pyspark.sql import functions as F
from sklearn.metrics import roc_auc_score

from pipeline.sources.simulate import SimulationConf, simulate
from pipeline.sources.simulation.population import interests
from pipeline.sources.simulation.population import users as users_of
from pipeline.sources.simulation.world import CATEGORIES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CONTRACT = {
    "impressions": "impression_id bigint, user_id bigint, anchor_id bigint, room_id bigint, ts timestamp, "
    "scene string, device string, position int",
    "actions": "action_id bigint, impression_id bigint, user_id bigint, anchor_id bigint, room_id bigint, "
    "ts timestamp, action string, value double",
    "users": "user_id bigint, gender string, city string, device string, age int, registered_on date",
    "anchors": "anchor_id bigint, gender string, city string, category string, age int, level int, signed_on date",
    "rooms": "room_id bigint, anchor_id bigint, started_at timestamp, ended_at timestamp, category string, "
    "tags array<string>, content array<float>",
    "room_stats": "room_id bigint, minute timestamp, viewers bigint, entries bigint, comments bigint, "
    "gift_coins bigint",
}
ZONE = "Asia/Shanghai"
WORLD = SimulationConf(impressions=70_000, days=7)
# A zone whose second day has 23 hours, while the session's zone is another one.
SMALL = SimulationConf(impressions=10_000, days=3, start=date(2025, 3, 8), zone="America/New_York", anchors=150)
# Interests that change fast, and more and more anchors.
CHANGING = SMALL.model_copy(update={"drift": 0.3, "anchor_growth": 0.05})
SURELY_ARRIVED = pd.Timedelta(days=2)


@dataclass(frozen=True, kw_only=True)
class Written:
    """What one simulation left on disk."""

    folder: Path
    counts: dict[str, int]

    def days(self, table: str) -> list[Path]:
        return sorted(self.table(table).glob("dt=*"))

    def table(self, table: str) -> Path:
        return self.folder / "truth/impressions" if table == "truth" else self.folder / "warehouse/raw" / table

    def read(self, table: str) -> pd.DataFrame:
        """Every row with its `dt` as a string."""
        files = [file for day in self.days(table) for file in sorted(day.glob("*.parquet"))]
        frames: list[pd.DataFrame] = []
        for file in files:
            frame = pq.ParquetFile(file).read().to_pandas(integer_object_nulls=True)
            frames.append(frame.assign(dt=file.parent.name.removeprefix("dt=")))
        return pd.concat(frames, ignore_index=True)


def run(spark: SparkSession, folder: Path, conf: SimulationConf) -> Written:
    counts = simulate(spark, conf, f"file://{folder}/warehouse", f"file://{folder}/truth")
    return Written(folder=folder, counts=counts)


@pytest.fixture(scope="module")
def world(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Written:
    return run(spark, tmp_path_factory.mktemp("world"), WORLD)


@pytest.fixture(scope="module")
def small(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Written:
    return run(spark, tmp_path_factory.mktemp("small"), SMALL)


@pytest.fixture(scope="module")
def changing(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Written:
    return run(spark, tmp_path_factory.mktemp("changing"), CHANGING)


@pytest.fixture(scope="module")
def impressions(world: Written) -> pd.DataFrame:
    return world.read("impressions")


@pytest.fixture(scope="module")
def actions(world: Written) -> pd.DataFrame:
    return world.read("actions")


@pytest.fixture(scope="module")
def rooms(world: Written) -> pd.DataFrame:
    return world.read("rooms").groupby("room_id")[["started_at", "ended_at"]].first()


@pytest.fixture(scope="module")
def judged(world: Written, impressions: pd.DataFrame, actions: pd.DataFrame) -> pd.DataFrame:
    """Impressions whose enter has surely arrived: truth, `entered` (orphan enters found by user, room and instant)."""
    enters = actions[actions["action"] == "enter"][["user_id", "room_id", "ts"]]
    mature = impressions[impressions["ts"] < impressions["ts"].max().floor("D") - SURELY_ARRIVED]
    found = pd.merge_asof(
        enters.sort_values("ts"),
        mature[["impression_id", "user_id", "room_id", "ts"]].sort_values("ts"),
        on="ts",
        by=["user_id", "room_id"],
        tolerance=pd.Timedelta(seconds=3),
    )
    with_truth: pd.DataFrame = mature.merge(world.read("truth").drop(columns="dt"), on="impression_id", validate="1:1")
    return with_truth.assign(entered=with_truth["impression_id"].isin(found["impression_id"].dropna()))


def local_day(instants: pd.Series, zone: str = ZONE) -> pd.Series:
    """The midnight that begins each instant's day in the zone, naive."""
    return pd.to_datetime(instants, utc=True).dt.tz_convert(zone).dt.tz_localize(None).dt.floor("D")


def canonical(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows in an order of their own, arrays as text."""
    text = frame.map(lambda value: str(value.tolist()) if isinstance(value, np.ndarray) else value)
    return text.sort_values(list(text.columns)).reset_index(drop=True)


@pytest.mark.parametrize("table", sorted(CONTRACT))
def test_tables_have_the_columns_of_the_contract(spark: SparkSession, world: Written, table: str) -> None:
    schema = spark.read.parquet(f"file://{world.days(table)[0]}").schema
    assert ", ".join(f"{field.name} {field.dataType.simpleString()}" for field in schema) == CONTRACT[table]


@pytest.mark.parametrize("table", [*sorted(CONTRACT), "truth"])
def test_every_day_is_marked_and_counted(world: Written, table: str) -> None:
    names = [f"dt={WORLD.start + timedelta(days=day)}" for day in range(WORLD.days)]
    assert [day.name for day in world.days(table)] == names
    assert all((day / "_SUCCESS").is_file() for day in world.days(table))
    assert [entry.name for entry in world.table(table).iterdir() if entry.is_file()] == []
    assert world.counts[table] == len(world.read(table))


def test_the_knob_sets_the_number_of_impressions(world: Written) -> None:
    assert world.counts["truth"] == pytest.approx(WORLD.impressions, rel=0.1)


@pytest.mark.parametrize(("table", "key"), [("impressions", "impression_id"), ("actions", "action_id")])
def test_ids_are_unique(world: Written, table: str, key: str) -> None:
    ids = world.read(table)[key]
    assert ids.is_unique
    assert (ids.astype("int64") > 2**53).mean() > 0.9


@pytest.mark.parametrize("table", ["impressions", "actions"])
def test_some_rows_are_one_or_two_days_late(world: Written, table: str) -> None:
    rows = world.read(table)
    lateness = (pd.to_datetime(rows["dt"]) - local_day(rows["ts"])).dt.days
    assert set(lateness) == {0, 1, 2}
    assert (lateness > 0).mean() == pytest.approx(WORLD.late_share, rel=0.3)


def test_snapshots_grow_every_day(world: Written) -> None:
    for table, joined in (("users", "registered_on"), ("anchors", "signed_on")):
        rows = world.read(table)
        assert (rows[joined].astype(str) <= rows["dt"]).all()
        newest = rows[rows[joined].astype(str) == rows["dt"]].groupby("dt").size()
        assert len(newest) == WORLD.days
        assert rows.groupby("dt").size().is_monotonic_increasing


def test_some_users_have_no_profile(world: Written, impressions: pd.DataFrame) -> None:
    active = impressions["user_id"].drop_duplicates()
    missing = ~active.isin(world.read("users")["user_id"])
    assert missing.mean() == pytest.approx(WORLD.profileless_share, rel=0.5)


def test_rooms_have_a_row_when_they_start_and_one_when_they_end(world: Written) -> None:
    rows = world.read("rooms")
    assert (rows.groupby("room_id").size() <= 2).all()
    started, ended = rows[rows["ended_at"].isna()], rows[rows["ended_at"].notna()]
    assert (started["dt"] == local_day(started["started_at"]).astype(str)).all()
    assert (ended["dt"] == local_day(ended["ended_at"]).astype(str)).all()
    assert set(ended["room_id"]) <= set(started["room_id"])
    assert rows["content"].isna().mean() == pytest.approx(0.10, abs=0.03)


def test_nobody_is_sent_to_a_room_that_is_not_on_air(impressions: pd.DataFrame, rooms: pd.DataFrame) -> None:
    shown = impressions.join(rooms, on="room_id", how="left")
    assert shown["started_at"].notna().all()
    assert (shown["ts"] >= shown["started_at"]).all()
    assert not (shown["ts"] >= shown["ended_at"]).any()


def test_actions_follow_their_impression_and_watches_end_with_the_room(
    impressions: pd.DataFrame, actions: pd.DataFrame, rooms: pd.DataFrame
) -> None:
    known = actions[actions["impression_id"].notna()].astype({"impression_id": "int64"})
    pairs = known.merge(impressions[["impression_id", "ts"]], on="impression_id", suffixes=("", "_shown"))
    watches = actions[actions["action"] == "watch"].join(rooms, on="room_id")
    assert len(pairs) > 0.9 * len(known)
    assert (pairs["ts"] > pairs["ts_shown"]).all()
    assert actions["impression_id"].isna().mean() == pytest.approx(WORLD.orphan_share, rel=0.3)
    assert not (watches["ts"] > watches["ended_at"]).any()
    assert (watches["ts"] == watches["ended_at"]).any(), "some watches are cut off by the end of the room"


def test_room_stats_has_the_whole_minutes_on_air(world: Written, rooms: pd.DataFrame) -> None:
    minutes = world.read("room_stats").join(rooms, on="room_id")
    assert not minutes.duplicated(["room_id", "minute"]).any()
    assert (minutes["minute"] >= minutes["started_at"]).all()
    assert not (minutes["minute"] + pd.Timedelta(minutes=1) > minutes["ended_at"]).any()
    per_room = minutes[minutes["ended_at"].notna()].groupby("room_id")["minute"].agg(["min", "max", "size"])
    span = (per_room["max"] - per_room["min"]).dt.total_seconds() / 60 + 1
    assert (span == per_room["size"]).mean() > 0.9, "only rooms cut by the last day have holes"


def test_rates_are_those_of_kuailive(judged: pd.DataFrame) -> None:
    entered = judged[judged["entered"]]
    assert 0.15 <= judged["entered"].mean() <= 0.25
    assert judged["entered"].mean() == pytest.approx(judged["p_enter"].mean(), abs=0.01)
    for action, rate in (("comment", 0.040), ("like", 0.037), ("gift", 0.015)):
        assert entered[f"p_{action}"].mean() == pytest.approx(rate, rel=0.15), action


@pytest.mark.parametrize("action", ["gift", "follow", "comment", "like", "share"])
def test_conversions_are_drawn_from_their_truth(judged: pd.DataFrame, actions: pd.DataFrame, action: str) -> None:
    entered = judged[judged["entered"]]
    drawn = entered["impression_id"].isin(actions[actions["action"] == action]["impression_id"])
    expected = entered[f"p_{action}"].sum() * (1.0 - WORLD.orphan_share)
    assert abs(drawn.sum() - expected) < 4.0 * expected**0.5


def test_long_watches_are_drawn_from_their_truth(judged: pd.DataFrame, actions: pd.DataFrame) -> None:
    watches = actions[(actions["action"] == "watch") & actions["impression_id"].notna()]
    entered = judged.merge(watches.astype({"impression_id": "int64"})[["impression_id", "value"]], on="impression_id")
    decided = entered[(entered["value"] >= 30.0) | (entered["value"] <= 2.0)]
    excess = ((decided["value"] >= 30.0) - decided["p_watch"]).sum()
    assert abs(excess) < 4.0 * (decided["p_watch"] * (1.0 - decided["p_watch"])).sum() ** 0.5


def test_gifts_are_heavy_tailed_whole_coins(actions: pd.DataFrame) -> None:
    coins = actions[actions["action"] == "gift"]["value"]
    assert (coins == coins.round()).all()
    assert coins.min() >= 1
    assert coins.mean() > 2.0 * coins.median()


def test_the_world_is_neither_easy_nor_hopeless(world: Written, judged: pd.DataFrame) -> None:
    """The reachable AUC lies in 0.70..0.80, and the heat of the room is at most 40 % of the way to it."""
    reachable = roc_auc_score(judged["entered"], judged["p_enter_no_position"])
    last_complete = (judged["ts"] - pd.Timedelta(minutes=1)).dt.floor("min")
    stats = world.read("room_stats")[["room_id", "minute", "viewers"]]
    heat = judged.assign(minute=last_complete).merge(stats, on=["room_id", "minute"], how="left")["viewers"].fillna(0)
    by_heat = roc_auc_score(judged["entered"], heat)
    assert 0.70 <= reachable <= 0.80
    assert 0.5 < by_heat <= 0.5 + 0.4 * (reachable - 0.5)


def test_interests_carry_most_of_the_logit(judged: pd.DataFrame) -> None:
    parts = judged.filter(like="logit_")
    logit = parts.sum(axis="columns")
    interest = parts["logit_user_interest"]
    share_by_covariance = np.cov(interest, logit)[0, 1] / np.var(logit)
    share_by_variance = np.var(interest) / np.var(logit)
    assert min(share_by_covariance, share_by_variance) >= 0.5
    odds = judged["p_enter"] / (1.0 - judged["p_enter"])
    assert np.ptp(np.log(odds) - logit) < 1e-9, "the parts add up to the logit, less its intercept"


def test_position_effect_can_be_recovered(world: Written, judged: pd.DataFrame) -> None:
    """Per position, Newton's method on the logistic likelihood with the rest of the logit as offset."""
    effects = json.loads((world.folder / "truth/position_effect.json").read_text())
    assert sorted(map(int, effects)) == list(range(1, 11))
    for position, rows in judged.groupby("position"):
        offset = np.log(rows["p_enter_no_position"] / (1.0 - rows["p_enter_no_position"]))
        effect = 0.0
        for _ in range(20):
            p = 1.0 / (1.0 + np.exp(-(offset + effect)))
            information = (p * (1.0 - p)).sum()
            effect += (rows["entered"] - p).sum() / information
        assert abs(effect - effects[str(position)]) < 4.0 / information**0.5, position


def test_the_number_of_partitions_changes_nothing(spark: SparkSession, small: Written, tmp_path: Path) -> None:
    before = spark.conf.get("spark.sql.shuffle.partitions")
    spark.conf.set("spark.sql.shuffle.partitions", "7")
    try:
        again = run(spark, tmp_path, SMALL.model_copy(update={"rows_per_file": 1_000}))
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", str(before))
    for table in (*CONTRACT, "truth"):
        pd.testing.assert_frame_equal(canonical(small.read(table)), canonical(again.read(table)))


def test_days_can_be_appended(spark: SparkSession, small: Written, tmp_path: Path) -> None:
    """Two days, then one more, are the three days; the second run touches nothing of the first."""
    run(spark, tmp_path, SMALL.model_copy(update={"to_day": 2}))
    first = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("dt=*/*")}
    both = run(spark, tmp_path, SMALL.model_copy(update={"from_day": 2, "to_day": 3}))
    assert {file: file.stat().st_mtime_ns for file in first} == first
    for table in (*CONTRACT, "truth"):
        pd.testing.assert_frame_equal(canonical(small.read(table)), canonical(both.read(table)))


def test_a_platform_that_changes_can_be_appended_to(
    spark: SparkSession, small: Written, changing: Written, tmp_path: Path
) -> None:
    run(spark, tmp_path, CHANGING.model_copy(update={"to_day": 2}))
    both = run(spark, tmp_path, CHANGING.model_copy(update={"from_day": 2, "to_day": 3}))
    for table in (*CONTRACT, "truth"):
        pd.testing.assert_frame_equal(canonical(changing.read(table)), canonical(both.read(table)))
    assert canonical(changing.read("users")).equals(canonical(small.read("users"))), "profiles do not tell interests"
    assert len(changing.read("anchors")) > len(small.read("anchors"))


def test_the_truth_follows_the_interests_of_the_day(spark: SparkSession, changing: Written) -> None:
    """The interest's part of the logit is above 0 where the room's category is an interest today, else below."""
    held = {
        (row["user_id"], day): {CATEGORIES[index][0] for index in row["held"]}
        for day in range(CHANGING.days)
        for row in users_of(spark, CHANGING).select("user_id", interests(CHANGING, F.lit(day)).alias("held")).collect()
    }
    category = changing.read("rooms").groupby("room_id")["category"].first()
    shown = changing.read("impressions").drop(columns="dt").merge(changing.read("truth"), on="impression_id")
    days = (pd.to_datetime(shown["dt"]) - pd.Timestamp(CHANGING.start)).dt.days
    is_interest = [
        category[room] in held[user, day]
        for user, room, day in zip(shown["user_id"], shown["room_id"], days, strict=True)
    ]
    assert ((shown["logit_user_interest"] > 0) == is_interest).all()
    assert any(held[user, 0] != held[user, 2] for user, day in held if day == 0)


def test_days_are_cut_in_the_business_zone(small: Written) -> None:
    rows = small.read("impressions")
    lateness = (pd.to_datetime(rows["dt"]) - local_day(rows["ts"], SMALL.zone)).dt.days
    assert set(lateness) <= {0, 1, 2}
    assert (lateness == 0).mean() > 0.95


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"impressions": 9_999}, "10000"),
        ({"zone": "Asia/Nowhere"}, "IANA time zone"),
        ({"from_day": 3, "to_day": 3}, "must be before"),
        ({"users": 10}, "raise users"),
        ({"heat": 1.0}, "Extra inputs"),
        ({"anchor_growth": 0.2, "to_day": 4096}, "lower growth"),
    ],
)
def test_impossible_conf_is_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        SimulationConf.model_validate({"impressions": 10_000, "days": 3} | wrong)


@pytest.mark.parametrize(("impressions", "users", "anchors"), [(10_000, 200, 100), (300_000, 1_500, 500)])
def test_sizes_follow_from_the_knob(impressions: int, users: int, anchors: int) -> None:
    conf = SimulationConf(impressions=impressions, days=18)
    assert (conf.first_users, conf.first_anchors) == (users, anchors)
