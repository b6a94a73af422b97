"""Writes the official KuaiLive CSV layout from a warehouse's raw tables, e.g. the simulator's.

KuaiLive knows clicks, comments, likes and gifts: follows and shares are left out. Times are cut to milliseconds, ages
go to KuaiLive's ranges. One file per table, so it is meant for data that one disk holds.
"""

from __future__ import annotations

import io
import uuid
from itertools import pairwise

import numpy as np
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from pipeline.sources.hadoop_files import HadoopFiles
from pipeline.sources.kuailive import EMBEDDINGS_FILE
from pipeline.sources.raw_layout import DAY_COLUMN, RAW_TABLES, table_folder

AGE_BOUNDS = (0, 12, 18, 24, 31, 41, 51)
LEFT_OUT = ("follow", "share")


def write_kuailive(spark: SparkSession, warehouse: str, folder: str) -> dict[str, int]:
    """Writes user, streamer, room, click, comment, like, gift, negative .csv and, where rooms have content, the titles.

    Returns:
        Actions left out, by name: KuaiLive has no file for them.
    """
    raw = {name: spark.read.parquet(table_folder(warehouse, name)) for name in RAW_TABLES}
    impressions, actions = raw["impressions"], raw["actions"]
    entered = F.coalesce(F.max(F.col("action") == "enter"), F.lit(False)).alias("entered")
    watched_ms = F.round(F.max(F.when(F.col("action") == "watch", F.col("value"))) * 1000).cast("bigint")
    did = actions.groupBy("impression_id").agg(entered, watched_ms.alias("watch_live_time"))
    shown = impressions.join(did, "impression_id", "left")
    rooms = _rooms(raw["rooms"])
    tables = {
        "user": _users(raw["users"]),
        "streamer": _streamers(raw["anchors"]),
        "room": rooms.drop("content"),
        "click": _events(shown.where("entered"), F.col("watch_live_time")),
        "negative": _events(shown.where(~F.coalesce("entered", F.lit(False)))),
        "comment": _events(actions.where(F.col("action") == "comment")),
        "like": _events(actions.where(F.col("action") == "like")),
        "gift": _events(actions.where(F.col("action") == "gift"), F.col("value").alias("gift_price")),
    }
    for name, table in tables.items():
        _write_csv(table, folder, name)
    _write_titles(rooms, folder)
    left_out = actions.where(F.col("action").isin(*LEFT_OUT)).groupBy("action").count().collect()
    return {row["action"]: int(row["count"]) for row in left_out}


def _millis(ts: str) -> Column:
    return F.floor(F.unix_micros(ts) / 1000)


def _events(rows: DataFrame, *further: Column) -> DataFrame:
    return rows.select(
        "user_id",
        F.col("room_id").alias("live_id"),
        F.col("anchor_id").alias("streamer_id"),
        _millis("ts").alias("timestamp"),
        *further,
    )


def _newest(snapshots: DataFrame, key: str) -> DataFrame:
    """The last row of each entity: KuaiLive describes each once."""
    order = Window.partitionBy(key).orderBy(F.desc(DAY_COLUMN))
    return snapshots.withColumn("age_of_row", F.row_number().over(order)).where(F.col("age_of_row") == 1)


def _age_range(age: str) -> Column:
    """12-17, 18-23, ... 51+; null of null."""
    named = [
        F.when((F.col(age) >= low) & (F.col(age) < high), f"{low}-{high - 1}") for low, high in pairwise(AGE_BOUNDS)
    ]
    return F.coalesce(*named, F.when(F.col(age) >= AGE_BOUNDS[-1], f"{AGE_BOUNDS[-1]}+"))


def _users(users: DataFrame) -> DataFrame:
    return _newest(users, "user_id").select(
        "user_id",
        _age_range("age").alias("age"),
        "gender",
        F.col("device").alias("device_brand"),
        F.col("registered_on").alias("reg_timestamp"),
    )


def _streamers(anchors: DataFrame) -> DataFrame:
    return _newest(anchors, "anchor_id").select(
        F.col("anchor_id").alias("streamer_id"),
        "gender",
        _age_range("age").alias("age"),
        F.col("category").alias("live_operation_tag"),
        F.col("signed_on").alias("first_live_timestamp"),
    )


def _rooms(rooms: DataFrame) -> DataFrame:
    """One row per room with its end where it is known, numbered (live_name_id) in the order of room_id."""
    merged = rooms.groupBy("room_id").agg(
        F.min("anchor_id").alias("streamer_id"),
        F.min("started_at").alias("started_at"),
        F.max("ended_at").alias("ended_at"),
        F.max("category").alias("live_content_category"),
        F.max("content").alias("content"),
    )
    return merged.select(
        F.date_format("started_at", "yyyyMMdd").cast("int").alias("p_date"),
        F.col("room_id").alias("live_id"),
        "streamer_id",
        F.lit(1).alias("live_type"),
        _millis("started_at").alias("start_timestamp"),
        _millis("ended_at").alias("end_timestamp"),
        "live_content_category",
        (F.row_number().over(Window.orderBy("room_id")) - 1).alias("live_name_id"),
        "content",
    )


def _write_csv(table: DataFrame, folder: str, name: str) -> None:
    """`<folder>/<name>.csv` with a header: Spark writes a folder of parts, the only part becomes the file."""
    files = HadoopFiles(table.sparkSession, folder)
    parts = f"{folder}/_{name}-{uuid.uuid4().hex}"
    target = f"{folder}/{name}.csv"
    try:
        table.coalesce(1).write.csv(parts, header=True)
        (part,) = [entry.name for entry in files.entries(parts) if entry.name.startswith("part-")]
        files.delete(target)
        files.rename(f"{parts}/{part}", target)
    finally:
        files.delete(parts)


def _write_titles(rooms: DataFrame, folder: str) -> None:
    """float32[rooms, dim] by live_name_id; rooms without content get zeros."""
    listed = rooms.select("live_name_id", "content").orderBy("live_name_id").collect()
    widths = {len(row["content"]) for row in listed if row["content"] is not None}
    if not widths:
        return
    (width,) = widths
    matrix = np.array([row["content"] or [0.0] * width for row in listed], dtype=np.float32)
    buffer = io.BytesIO()
    np.save(buffer, matrix)
    HadoopFiles(rooms.sparkSession, folder).write_bytes(f"{folder}/{EMBEDDINGS_FILE}", buffer.getvalue())
