"""KuaiLive (Kuaishou, live streams) in its official CSV layout: the public data nearest to the raw contract.

impressions = click.csv and negative.csv; a click is an enter, and its watch ends `watch_live_time` later. Comments,
likes and gifts name no exposure, so their `impression_id` is null: labels attribute them by user, room and time.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import fs
from pydantic import BaseModel, ConfigDict
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.storagelevel import StorageLevel

from features import storage
from pipeline.sources.assembly import (
    before,
    content_id,
    day_range,
    later_by,
    room_minutes,
    static_snapshots,
    write_tables,
)
from pipeline.sources.csv_files import CsvFolder
from pipeline.sources.raw_layout import DAY_COLUMN, days_between
from pipeline.sources.report import IngestReport, SourceFacts, SourceTasks, write_source_facts

SOURCE_TASKS = SourceTasks(main="enter", tasks=("enter", "watch", "gift", "comment", "like"), esmm=("enter", "gift"))

EMBEDDINGS_FILE = "title_embeddings.npy"
EVENT_KEY = ("user_id", "live_id", "streamer_id", "timestamp")
EVENT = dict.fromkeys(EVENT_KEY, "bigint")
CLICK = {**EVENT, "watch_live_time": "bigint"}
GIFT = {**EVENT, "gift_price": "double"}
USER = {"user_id": "bigint", "gender": "string", "age": "string", "device_brand": "string", "reg_timestamp": "date"}
STREAMER = {
    "streamer_id": "bigint",
    "gender": "string",
    "age": "string",
    "live_operation_tag": "string",
    "first_live_timestamp": "date",
}
ROOM = {
    "p_date": "int",
    "live_id": "bigint",
    "streamer_id": "bigint",
    "live_type": "string",
    "start_timestamp": "bigint",
    "end_timestamp": "bigint",
    "live_content_category": "string",
    "live_name_id": "bigint",
}


class KuaiLiveConf(BaseModel):
    """What to read.

    Attributes:
        folder: URL of the folder with the nine official files.
        first_day, last_day: bounds on the days taken; None is open.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str
    first_day: dt.date | None = None
    last_day: dt.date | None = None


def ingest(spark: SparkSession, conf: KuaiLiveConf, warehouse: str) -> IngestReport:
    """Writes the raw tables of a KuaiLive folder; days are those of the session's time zone.

    Raises:
        DataError: a file or one of its ids or times is absent, or no exposure lies within the bounds.
    """
    folder = CsvFolder(spark, conf.folder)
    exposed = _exposures(folder).persist(StorageLevel.MEMORY_AND_DISK)
    first, last = day_range(exposed, conf.first_day, conf.last_day)
    exposed_within = exposed.where(F.col("day").between(first, last))
    actions = _click_actions(exposed_within).unionByName(_other_actions(folder))
    within = actions.where(F.col(DAY_COLUMN).between(first, last)).persist(StorageLevel.MEMORY_AND_DISK)
    snapshot_days = days_between(before(first), last)
    rows = write_tables(
        warehouse,
        {
            "impressions": _impressions(exposed_within),
            "actions": within,
            "users": static_snapshots(_users(folder), snapshot_days, known_from="registered_on"),
            "anchors": static_snapshots(_anchors(folder), snapshot_days, known_from="signed_on"),
            "rooms": _rooms(folder, first, last),
            "room_stats": room_minutes(within),
        },
        first,
        last,
    )
    dropped = {"actions that ended outside the days taken": actions.count() - within.count()}
    for cached in (within, exposed):
        cached.unpersist()
    notes = (
        "users and streamers are described by one file each, used for every day; only what does not change is taken",
        "ages are the lower bounds of their ranges; anchors have no city and no level",
        "room_stats are counted from the log itself: viewers are the users who entered within the minute",
    )
    facts = SourceFacts(
        source="kuailive",
        zone=str(spark.conf.get("spark.sql.session.timeZone")),
        tasks=SOURCE_TASKS,
        first_day=first,
        last_day=last,
        notes=notes,
    )
    write_source_facts(spark, warehouse, facts)
    return IngestReport(facts=facts, rows=rows, absent_columns=folder.absent, dropped=dropped, notes=notes)


def _exposures(folder: CsvFolder) -> DataFrame:
    """One row per (kind, user, room, streamer, time): repeated lines are one exposure, watched as long as any says."""
    clicks = folder.require("click", CLICK, required=EVENT_KEY).withColumn("clicked", F.lit(True))
    passed = folder.require("negative", EVENT, required=EVENT_KEY).withColumn("clicked", F.lit(False))
    both = clicks.unionByName(passed, allowMissingColumns=True)
    merged = both.groupBy(*EVENT_KEY, "clicked").agg(F.max("watch_live_time").alias("watch_live_time"))
    return _on_its_day(merged).withColumn("impression_id", content_id("clicked", *EVENT_KEY))


def _on_its_day(events: DataFrame) -> DataFrame:
    ts = F.timestamp_millis(F.col("timestamp"))
    return events.select("*", ts.alias("ts"), F.to_date(ts).alias("day"))


def _impressions(exposed: DataFrame) -> DataFrame:
    absent = [F.lit(None).alias(name) for name in ("scene", "device", "position")]
    return exposed.select("impression_id", *_whom(), "ts", *absent, F.col("day").alias(DAY_COLUMN))


def _whom() -> list[Column | str]:
    return ["user_id", F.col("streamer_id").alias("anchor_id"), F.col("live_id").alias("room_id")]


def _click_actions(exposed: DataFrame) -> DataFrame:
    clicked = exposed.where("clicked")
    watched = clicked.where(F.col("watch_live_time").isNotNull())
    enters = clicked.select("*", F.lit("enter").alias("action"), F.lit(1.0).alias("value"))
    watches = watched.withColumn("ts", later_by(F.col("ts"), F.col("watch_live_time"))).select(
        "*", F.lit("watch").alias("action"), (F.col("watch_live_time") / 1000.0).alias("value")
    )
    return _as_actions(enters.unionByName(watches))


def _other_actions(folder: CsvFolder) -> DataFrame:
    """Comments, likes and gifts; gifts of one moment are one action of their summed price."""
    comments = folder.require("comment", EVENT, required=EVENT_KEY)
    likes = folder.require("like", EVENT, required=EVENT_KEY)
    gifts = folder.require("gift", GIFT, required=(*EVENT_KEY, "gift_price"))
    summed = gifts.groupBy(*EVENT_KEY).agg(F.sum("gift_price").alias("value"))
    once = [
        events.select(*EVENT_KEY).distinct().select("*", F.lit(1.0).alias("value"), F.lit(action).alias("action"))
        for action, events in (("comment", comments), ("like", likes))
    ]
    events = once[0].unionByName(once[1]).unionByName(summed.withColumn("action", F.lit("gift")))
    return _as_actions(_on_its_day(events).withColumn("impression_id", F.lit(None).cast("bigint")))


def _as_actions(events: DataFrame) -> DataFrame:
    return events.select(
        content_id("action", *EVENT_KEY).alias("action_id"),
        "impression_id",
        *_whom(),
        "ts",
        "action",
        "value",
        F.to_date("ts").alias(DAY_COLUMN),
    )


def _lower_bound(age_range: str) -> Column:
    """24 of `24-30`; null of what does not start with a number."""
    digits = F.regexp_extract(age_range, r"^(\d+)", 1)
    return F.when(digits != "", digits).cast("int")


def _users(folder: CsvFolder) -> DataFrame:
    return folder.require("user", USER, required=("user_id",)).select(
        "user_id",
        "gender",
        F.lit(None).alias("city"),
        F.col("device_brand").alias("device"),
        _lower_bound("age").alias("age"),
        F.col("reg_timestamp").alias("registered_on"),
    )


def _anchors(folder: CsvFolder) -> DataFrame:
    return folder.require("streamer", STREAMER, required=("streamer_id",)).select(
        F.col("streamer_id").alias("anchor_id"),
        "gender",
        F.lit(None).alias("city"),
        F.col("live_operation_tag").alias("category"),
        _lower_bound("age").alias("age"),
        F.lit(None).alias("level"),
        F.col("first_live_timestamp").alias("signed_on"),
    )


def _rooms(folder: CsvFolder, first: dt.date, last: dt.date) -> DataFrame:
    """A row on the day a room starts, without its end, and one on the day it ends.

    A room may be listed on several dates: the earliest counts, with the latest end. One that started before the tables
    do arrives on their first day, with its true start.
    """
    lines = folder.require("room", ROOM, required=("live_id", "streamer_id", "start_timestamp"))
    listed = lines.groupBy("live_id").agg(
        F.min("start_timestamp").alias("start_timestamp"),
        F.max("end_timestamp").alias("end_timestamp"),
        *(
            F.min_by(name, F.coalesce("p_date", F.lit(0))).alias(name)
            for name in ("streamer_id", "live_type", "live_content_category", "live_name_id")
        ),
    )
    started_at, ended_at = F.timestamp_millis("start_timestamp"), F.timestamp_millis("end_timestamp")
    columns: list[Column | str] = [
        F.col("live_id").alias("room_id"),
        F.col("streamer_id").alias("anchor_id"),
        started_at.alias("started_at"),
        F.col("live_content_category").alias("category"),
        F.when(F.col("live_type").isNotNull(), F.array(F.concat(F.lit("type_"), "live_type"))).alias("tags"),
        "live_name_id",
    ]
    unknown = F.lit(None).cast("timestamp")
    starts = listed.select(*columns, unknown.alias("ended_at"), F.to_date(started_at).alias("came"))
    ends = listed.select(*columns, ended_at.alias("ended_at"), F.to_date(ended_at).alias("came"))
    both = starts.unionByName(ends.where(F.col("ended_at").isNotNull()))
    both = both.withColumn(DAY_COLUMN, F.greatest("came", F.lit(before(first)))).drop("came")
    return _with_content(both.where(F.col(DAY_COLUMN) <= F.lit(last)), folder).drop("live_name_id")


def _with_content(rooms: DataFrame, folder: CsvFolder) -> DataFrame:
    """`content` = the embedding of the room's title; null where it has none."""
    url = f"{folder.url.rstrip('/')}/{EMBEDDINGS_FILE}"
    if not storage.exists(url):
        folder.absent[EMBEDDINGS_FILE] = "rooms.content is null"
        return rooms.withColumn("content", F.lit(None).cast("array<float>"))
    wanted = rooms.select("live_name_id").where(F.col("live_name_id") >= 0).distinct()

    def look_up(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        matrix = embedding_matrix(url)
        for batch in batches:
            ids = batch.column(0).to_numpy(zero_copy_only=False)
            ids = ids[ids < len(matrix)]
            vectors = np.asarray(matrix[ids], dtype=np.float32)
            offsets = np.arange(len(ids) + 1, dtype=np.int32) * matrix.shape[1]
            content = pa.ListArray.from_arrays(offsets, vectors.ravel())
            yield pa.RecordBatch.from_arrays([pa.array(ids), content], ["live_name_id", "content"])

    vectors = wanted.mapInArrow(look_up, "live_name_id bigint, content array<float>")
    return rooms.join(vectors, "live_name_id", "left")


def embedding_matrix(url: str) -> npt.NDArray[Any]:
    """float[titles, dim] of a .npy file; mapped, not loaded, where the file system is local."""
    filesystem, path = storage.resolve(url)
    if isinstance(filesystem, fs.LocalFileSystem):
        mapped: npt.NDArray[Any] = np.load(path, mmap_mode="r")
        return mapped
    with storage.open_input(url) as stream:
        loaded: npt.NDArray[Any] = np.load(stream, allow_pickle=False)
        return loaded
