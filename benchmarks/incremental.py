"""The incremental arms: one new day by the stages that `limelight daily` runs, commits and checks included.

Before a timed run the state of the day before is there and that of the day is not; the run opens a context of its own
(it lists the raw tables), computes the day's state from the day before's, and from that the features of the day.
"""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from pyspark.sql import functions as F

from benchmarks.spark_features import ONE_DAY
from features.schema import Catalog
from features.spark.event_time import business_day
from features.spark.sequences import sequences
from jobs.settings import Settings
from pipeline.manifests import day_partition
from pipeline.run import open_context
from pipeline.stages import recent
from pipeline.stages.names import RECENT_ACTIONS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from pipeline.context import Context

EVENT_COLUMNS = ("action_id", "user_id", "anchor_id", "room_id", "ts", "action", "value")
SHOWN_COLUMNS = ("impression_id", "user_id", "ts")
ROOM_COLUMNS = ("room_id", "started_at", "ended_at", "category")


def context_of(spark: SparkSession, warehouse: Path, catalog: Catalog, day: dt.date) -> Context:
    """A context as a command opens it on the evening of `day`, with another catalog."""
    opened = open_context(spark, str(warehouse), Settings.load("local", ()).pipeline, last_day=day)
    return replace(opened, catalog=catalog)


class SequencesDay:
    """Sequences of a day's impressions: the state of the day before and that day's arrivals → state → sequences."""

    def __init__(self, spark: SparkSession, warehouse: Path, catalog: Catalog, day: dt.date) -> None:
        self._spark, self._warehouse, self._catalog, self._day = spark, warehouse, catalog, day

    def prepare(self) -> None:
        """The state of the day before, made in bulk once; that of the day forgotten."""
        context = context_of(self._spark, self._warehouse, self._catalog, self._day)
        recent.run(context, [self._day - ONE_DAY])
        context.raw.close()
        shutil.rmtree(self._manifests(), ignore_errors=True)

    def _manifests(self) -> Path:
        return self._warehouse / RECENT_ACTIONS / "manifests" / day_partition(self._day)

    def run(self, write: Callable[[DataFrame], None]) -> None:
        """One new day."""
        context = context_of(self._spark, self._warehouse, self._catalog, self._day)
        recent.run(context, [self._day])
        state = context.warehouse.read_days(self._spark, RECENT_ACTIONS, [self._day])
        shown = context.raw.read("impressions", [self._day]).where(business_day() == F.lit(self._day))
        actions = context.raw.read("actions", [self._day])
        rooms = context.raw.read("rooms", context.raw_days("rooms", self._first_room_day(context), self._day))
        lag = context.conf.time.event_lag_seconds
        write(sequences(self._catalog, shown, actions, rooms, lag, state))
        context.raw.close()

    def _first_room_day(self, context: Context) -> dt.date:
        return context.first_raw_day("rooms") or self._day

    def least_bytes(self) -> int:
        """Column chunks that nobody can do without: the day's rows, and the state once as read and once as written."""
        context = context_of(self._spark, self._warehouse, self._catalog, self._day)
        least = 0
        for table, columns, days in (
            ("actions", EVENT_COLUMNS, (self._day - ONE_DAY, self._day)),
            ("rooms", ROOM_COLUMNS, (self._day - ONE_DAY, self._day)),
            ("impressions", SHOWN_COLUMNS, (self._day,)),
        ):
            for day in days:
                folder = self._warehouse / "raw" / table / f"dt={day.isoformat()}"
                least += sum(chunk_bytes(file, columns) for file in folder.glob("*.parquet"))
        states = context.warehouse.require(RECENT_ACTIONS, [self._day - ONE_DAY, self._day])
        for manifest in states.values():
            least += sum(
                chunk_bytes(Path(url.removeprefix("file://")), None) for url in context.warehouse.file_urls(manifest)
            )
        return least


def chunk_bytes(file: Path, columns: tuple[str, ...] | None) -> int:
    """Compressed bytes of a file's column chunks; None: of all."""
    metadata = pq.read_metadata(file)
    return sum(
        chunk.total_compressed_size
        for group in range(metadata.num_row_groups)
        for chunk in (metadata.row_group(group).column(number) for number in range(metadata.num_columns))
        if columns is None or chunk.path_in_schema.split(".")[0] in columns
    )
