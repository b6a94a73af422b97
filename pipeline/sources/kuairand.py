"""KuaiRand (Kuaishou, short videos) in its official CSV layout: a video is read as a room, its author as the anchor.

Gao et al., "KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos", CIKM 2022.
"""

from __future__ import annotations

import datetime as dt

from pydantic import BaseModel, ConfigDict
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.storagelevel import StorageLevel

from pipeline.sources.assembly import (
    UNKNOWN_ANCHOR_BASE,
    anchor_or_own,
    before,
    content_id,
    day_range,
    later_by,
    most_frequent,
    room_minutes,
    start_of_day,
    static_snapshots,
    write_tables,
)
from pipeline.sources.csv_files import CsvFolder
from pipeline.sources.raw_layout import DAY_COLUMN, days_between
from pipeline.sources.report import IngestReport, SourceFacts, SourceTasks, write_source_facts

# No gifts here, and follows and shares are too rare to judge in most days of a sample: the held-out day decides.
SOURCE_TASKS = SourceTasks(
    main="enter",
    tasks=("enter", "watch", "like", "comment", "follow", "share"),
    esmm=("enter", "like"),
    conversions_imply_enter=False,
    max_room_age_days=None,
)

FLAGS = ("is_click", "is_like", "is_follow", "is_comment", "is_forward", "is_hate")
LOG_KEY = ("user_id", "video_id", "time_ms")
LOG_COLUMNS = {
    **dict.fromkeys(LOG_KEY, "bigint"),
    **dict.fromkeys(FLAGS, "int"),
    "play_time_ms": "bigint",
    "tab": "bigint",
    "is_rand": "int",
}
USER_COLUMNS = {"user_id": "bigint", "register_days": "int"}
VIDEO_FIELDS = ("author_id", "upload_dt", "tag")
VIDEO_COLUMNS = {"video_id": "bigint", "author_id": "bigint", "upload_dt": "date", "tag": "string"}
DONE_INSTEAD = {
    "tab": "scene is null",
    "is_rand": "impressions are taken as the platform's own choice",
    "register_days": "registered_on is null",
    "upload_dt": "a room starts on the day it is first seen",
    "author_id": "one anchor per video",
    "tag": "category and tags are null",
}


class KuaiRandConf(BaseModel):
    """What to read.

    Attributes:
        folder: URL of the folder with log_standard*, log_random*, user_features*, video_features_basic*.
        first_day, last_day: bounds on the days taken; None is open.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str
    first_day: dt.date | None = None
    last_day: dt.date | None = None


def ingest(spark: SparkSession, conf: KuaiRandConf, warehouse: str) -> IngestReport:
    """Writes the raw tables of a KuaiRand folder; days are those of the session's time zone.

    Raises:
        DataError: no log file, a file without ids or times, or no row within the bounds.
    """
    folder = CsvFolder(spark, conf.folder)
    lines = _read_lines(folder)
    read = _merge_repeated(lines).persist(StorageLevel.MEMORY_AND_DISK)
    first, last = day_range(read, conf.first_day, conf.last_day)
    log = read.where(F.col("day").between(first, last))
    videos = folder.read("video_features_basic", VIDEO_COLUMNS, required=("video_id",))
    rooms = _rooms(log, videos, first)
    log = log.join(rooms.select(F.col("room_id").alias("video_id"), "anchor_id"), "video_id", "inner")
    actions = _actions(log)
    within = actions.where(F.col(DAY_COLUMN) <= F.lit(last))
    snapshot_days = days_between(before(first), last)
    users = folder.read("user_features", USER_COLUMNS, required=("user_id",))
    rows = write_tables(
        warehouse,
        {
            "impressions": _impressions(log),
            "actions": within,
            "users": static_snapshots(_users(log, users, last), snapshot_days, known_from="registered_on"),
            "anchors": static_snapshots(_anchors(rooms), snapshot_days, known_from="signed_on"),
            "rooms": rooms,
            "room_stats": room_minutes(within),
        },
        first,
        last,
    )
    notes = _notes(log)
    ended_after = actions.where(F.col(DAY_COLUMN) > F.lit(last)).count()
    dropped = {**_lost_lines(lines, read), "actions that ended after the last day": ended_after}
    read.unpersist()
    facts = _facts(spark, first, last, notes)
    write_source_facts(spark, warehouse, facts)
    absent = {name: DONE_INSTEAD.get(name.rsplit(".", 1)[1], "null") for name in folder.absent}
    return IngestReport(facts=facts, rows=rows, absent_columns=absent, dropped=dropped, notes=notes)


def _facts(spark: SparkSession, first: dt.date, last: dt.date, notes: tuple[str, ...]) -> SourceFacts:
    return SourceFacts(
        source="kuairand",
        zone=str(spark.conf.get("spark.sql.session.timeZone")),
        tasks=SOURCE_TASKS,
        first_day=first,
        last_day=last,
        notes=notes,
    )


def _read_lines(folder: CsvFolder) -> DataFrame:
    """Lines of log_standard* and, where there are any, log_random*."""
    lines = folder.require("log_standard", LOG_COLUMNS, required=LOG_KEY)
    random_lines = folder.read("log_random", LOG_COLUMNS, required=LOG_KEY)
    return lines if random_lines is None else lines.unionByName(random_lines)


def _usable() -> Column:
    return F.greatest(*(F.col(name).isNull() for name in LOG_KEY)) == F.lit(False)


def _merge_repeated(lines: DataFrame) -> DataFrame:
    """One row per (user, video, time): a flag is set, and a play as long, as any of its lines says."""
    merged = (
        lines.where(_usable())
        .groupBy(*LOG_KEY)
        .agg(*(F.max(name).alias(name) for name in LOG_COLUMNS if name not in LOG_KEY))
    )
    ts = F.timestamp_millis(F.col("time_ms"))
    return merged.select("*", ts.alias("ts"), F.to_date(ts).alias("day"), content_id(*LOG_KEY).alias("impression_id"))


def _lost_lines(lines: DataFrame, merged: DataFrame) -> dict[str, int]:
    found = lines.agg(F.count(F.lit(1)).alias("all"), F.count(F.when(_usable(), 1)).alias("usable")).collect()[0]
    return {
        "log lines without an id or a time": found["all"] - found["usable"],
        "repeated log lines": found["usable"] - merged.count(),
    }


def _impressions(log: DataFrame) -> DataFrame:
    scene = F.when(F.col("is_rand") == 1, "random").when(
        F.col("tab").isNotNull(), F.concat(F.lit("tab_"), F.col("tab"))
    )
    return log.select(
        "impression_id",
        "user_id",
        "anchor_id",
        F.col("video_id").alias("room_id"),
        "ts",
        scene.alias("scene"),
        F.lit(None).alias("device"),
        F.lit(None).alias("position"),
        F.col("day").alias(DAY_COLUMN),
    )


def _actions(log: DataFrame) -> DataFrame:
    """A click is an enter, at once. All else is dated by the end of the play: by then it had happened, whenever it did.

    Only clicked videos are watched; the seconds that an unclicked one played by itself are left out.
    """
    seconds = F.col("play_time_ms") / 1000.0
    ended = later_by(F.col("ts"), F.coalesce(F.col("play_time_ms"), F.lit(0)))
    kinds = (
        ("enter", F.col("is_click") == 1, F.col("ts"), F.lit(1.0)),
        ("watch", (F.col("is_click") == 1) & seconds.isNotNull(), ended, seconds),
        ("like", F.col("is_like") == 1, ended, F.lit(1.0)),
        ("follow", F.col("is_follow") == 1, ended, F.lit(1.0)),
        ("comment", F.col("is_comment") == 1, ended, F.lit(1.0)),
        ("share", F.col("is_forward") == 1, ended, F.lit(1.0)),
    )
    found = [
        F.when(happened, F.struct(F.lit(name).alias("action"), ts.alias("ts"), value.alias("value")))
        for name, happened, ts, value in kinds
    ]
    did = log.withColumn("did", F.explode(F.array(*found)))
    return did.where(F.col("did").isNotNull()).select(
        content_id("impression_id", "did.action").alias("action_id"),
        "impression_id",
        "user_id",
        "anchor_id",
        F.col("video_id").alias("room_id"),
        "did.ts",
        "did.action",
        "did.value",
        F.to_date("did.ts").alias(DAY_COLUMN),
    )


def _rooms(log: DataFrame, videos: DataFrame | None, first: dt.date) -> DataFrame:
    """One row per video: it starts at midnight of its upload day, of the first day seen, or of the day before `first`.

    Not at the moment it is first seen, as its first impression could not see it then; and not before the tables start,
    as it would count as years late.
    """
    seen = log.groupBy("video_id").agg(F.min("day").alias("seen_on"))
    if videos is None:
        known = seen.select("*", *(F.lit(None).cast(VIDEO_COLUMNS[name]).alias(name) for name in VIDEO_FIELDS))
    else:
        described = videos.groupBy("video_id").agg(*(F.min(name).alias(name) for name in VIDEO_FIELDS))
        known = seen.join(described, "video_id", "left")
    started_on = F.greatest(F.least("upload_dt", "seen_on"), F.lit(before(first)))
    tags = F.split("tag", ",")
    return known.select(
        F.col("video_id").alias("room_id"),
        anchor_or_own(F.col("author_id"), F.col("video_id")).alias("anchor_id"),
        start_of_day(started_on).alias("started_at"),
        F.lit(None).alias("ended_at"),
        tags[0].alias("category"),
        tags.alias("tags"),
        F.lit(None).alias("content"),
        started_on.alias(DAY_COLUMN),
    )


def _anchors(rooms: DataFrame) -> DataFrame:
    """Authors of the videos in the log; their category is that of most of their videos."""
    signed = rooms.groupBy("anchor_id").agg(F.min(DAY_COLUMN).alias("signed_on"))
    absent = [F.lit(None).alias(name) for name in ("gender", "city", "age", "level")]
    return signed.join(most_frequent(rooms, "anchor_id", "category"), "anchor_id", "inner").select("*", *absent)


def _users(log: DataFrame, users: DataFrame | None, last: dt.date) -> DataFrame:
    """Users of the log. The file gives their days since registration, counted here from the last day of the log."""
    seen = log.select("user_id").distinct()
    if users is None:
        described = seen.withColumn("register_days", F.lit(None).cast("int"))
    else:
        described = (
            users.groupBy("user_id")
            .agg(F.max("register_days").alias("register_days"))
            .join(seen, "user_id", "left_semi")
        )
    absent = [F.lit(None).alias(name) for name in ("gender", "city", "device", "age")]
    registered = F.date_sub(F.lit(last), F.col("register_days"))
    return described.select("user_id", *absent, registered.alias("registered_on"))


def _notes(log: DataFrame) -> tuple[str, ...]:
    found = log.agg(
        F.count(F.lit(1)).alias("rows"),
        F.count(F.when(F.col("is_hate") == 1, 1)).alias("hated"),
        F.count(F.when((F.col("is_click") == 0) & (F.col("is_like") == 1), 1)).alias("liked_unentered"),
        F.count(F.when(F.col("anchor_id") >= UNKNOWN_ANCHOR_BASE, 1)).alias("unknown_author"),
    ).collect()[0]
    share = found["unknown_author"] / found["rows"]
    return (
        f"{found['hated']:,} impressions were hated; hate is no action of the contract and is left out",
        f"{found['liked_unentered']:,} likes without a click: labels must drop such conversions, not imply an enter",
        f"{share:.1%} of the impressions show a video of unknown author, which is an anchor of its own",
        "users and videos are described by one file each, used for every day; only fields that do not change are taken",
        "room_stats are counted from the log itself",
    )
