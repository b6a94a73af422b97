"""The source `simulate`: a live-stream platform in the raw-table contract, and the truth behind it.

1. users, anchors: one row each for everybody there by the last day
2. rooms: anchors × days → shows, their rows, their minutes
3. impressions: users × days → sessions → views, each with a room on air → logit → entered
4. actions: what follows an enter
5. each row goes to the day it ARRIVED; rows that arrive outside the days to write are not written

An action may fall on the day after its impression and arrive two days after that: the days to write need the
impressions of the `LOOKBACK_DAYS` before them, which are computed again, not read.
"""

from __future__ import annotations

import json

from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.sources.simulation import population
from pipeline.sources.simulation.actions import action_rows, lateness, with_outcomes
from pipeline.sources.simulation.chance import Chance
from pipeline.sources.simulation.conf import SimulationConf
from pipeline.sources.simulation.impressions import LOGIT_PARTS, impressions, position_effect
from pipeline.sources.simulation.rooms import minute_rows, pools, room_rows, shows
from pipeline.sources.simulation.storage import files_for, write_days, write_text
from pipeline.sources.simulation.world import CONVERSIONS

__all__ = ["SimulationConf", "simulate"]

LOOKBACK_DAYS = 3
_IMPRESSION_COLUMNS = ("impression_id", "user_id", "anchor_id", "room_id", "ts", "scene", "device", "position")
_ACTION_COLUMNS = ("action_id", "impression_id", "user_id", "anchor_id", "room_id", "ts", "action", "value")
_TRUTH_COLUMNS = ("p_enter", "p_enter_no_position", "p_watch", *(f"p_{action}" for action in CONVERSIONS), *LOGIT_PARTS)


def simulate(spark: SparkSession, conf: SimulationConf, warehouse: str, truth: str) -> dict[str, int]:
    """Writes the days [from_day, end_day) of the platform, replacing them if they are there.

    Args:
        warehouse: the raw tables go to `<warehouse>/raw/<table>/dt=.../`, each day with its marker.
        truth: a folder outside the warehouse: `impressions/dt=.../` has one row per impression that happened that day,
            with its true probabilities and the parts of its enter logit; `position_effect.json` the enter logit that
            each position adds.

    Returns:
        Rows written per table, and under "truth" those of the truth.
    """
    first = max(0, conf.from_day - LOOKBACK_DAYS)
    all_days = population.calendar(spark, conf, max(0, first - 1), conf.end_day)
    written_days = all_days.where(F.col("day") >= conf.from_day)
    users = population.users(spark, conf).persist(StorageLevel.MEMORY_AND_DISK)
    anchors = population.anchors(spark, conf).persist(StorageLevel.MEMORY_AND_DISK)
    rooms = shows(anchors, all_days, conf).persist(StorageLevel.MEMORY_AND_DISK)
    shown = impressions(users, rooms, pools(rooms, conf), all_days.where(F.col("day") >= first), conf)
    chance = Chance(seed=conf.seed)
    outcomes = (
        with_outcomes(shown, conf)
        .withColumn("impression_id", chance.permuted_id("impression", F.col("number")))
        .persist(StorageLevel.MEMORY_AND_DISK)
    )
    tables = {
        "users": population.user_snapshots(users, written_days),
        "anchors": population.anchor_snapshots(anchors, written_days),
        "rooms": room_rows(rooms, written_days, conf),
        "room_stats": minute_rows(rooms, written_days, conf),
        "impressions": _arrived(_impression_rows(outcomes, chance, conf), written_days, _IMPRESSION_COLUMNS),
        "actions": _arrived(action_rows(outcomes, conf), written_days, _ACTION_COLUMNS),
    }
    dts = [conf.date_of(day).isoformat() for day in range(conf.from_day, conf.end_day)]
    files_per_day = files_for(conf.daily_impressions, conf.rows_per_file)
    for name, rows in tables.items():
        write_days(rows, f"{warehouse}/raw/{name}", dts, files_per_day)
    truths = outcomes.where(F.col("day") >= conf.from_day).select("impression_id", *_TRUTH_COLUMNS, "dt")
    write_days(truths, f"{truth}/impressions", dts, files_per_day)
    write_text(spark, f"{truth}/position_effect.json", json.dumps(position_effect(), indent=2))
    for cached in (outcomes, rooms, anchors, users):
        cached.unpersist()
    folders = {name: f"{warehouse}/raw/{name}" for name in tables} | {"truth": f"{truth}/impressions"}
    return {name: _rows_in(spark, folder, dts) for name, folder in folders.items()}


def _impression_rows(outcomes: DataFrame, chance: Chance, conf: SimulationConf) -> DataFrame:
    return outcomes.select(
        "*",
        F.timestamp_micros("at").alias("ts"),
        F.col("day").alias("happened"),
        lateness(chance, "late impression", conf, F.col("number")),
    )


def _arrived(rows: DataFrame, days: DataFrame, columns: tuple[str, ...]) -> DataFrame:
    arrivals = F.broadcast(days.select(F.col("day").alias("arrived"), F.col("dt").alias("arrived_dt")))
    return rows.join(arrivals, F.col("happened") + F.col("late") == F.col("arrived"), "inner").select(
        *columns, F.col("arrived_dt").alias("dt")
    )


def _rows_in(spark: SparkSession, folder: str, dts: list[str]) -> int:
    """Counted from what was written: Parquet has the count in its footers."""
    return spark.read.parquet(folder).where(F.col("dt").cast("string").isin(dts)).count()
