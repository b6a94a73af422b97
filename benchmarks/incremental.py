"""The incremental arms: one new day by the stages that `limelight daily` runs, commits and checks included.

Before a timed run the state of the day before is there and that of the day is not; the run opens a context of its own
(it lists the raw tables), computes the day's state from the day before's, and from that the features of the day.
"""

from __future__ import annotations

import datetime as dt
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from pyspark.sql import functions as F

from benchmarks.spark_features import ONE_DAY
from features.schema import Catalog
from features.spark.event_time import business_day
from features.spark.sequences import sequences
from features.spark.window_state import state_layout
from features.spec import TILED_ENTITIES, Entity
from jobs.settings import Settings
from pipeline.manifests import day_partition
from pipeline.plan import stage
from pipeline.profile_state import compacted, read_features
from pipeline.recent_state import stored_before
from pipeline.run import days_of, open_context
from pipeline.stages import profiles, recent, tiles
from pipeline.stages.names import ACTION_TILES, ON_AIR_TILES, RECENT_ACTIONS, profile_table, tile_table
from pipeline.tables import Warehouse

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from pipeline.context import Context

EVENT_COLUMNS = ("action_id", "user_id", "anchor_id", "room_id", "ts", "action", "value")
LOG_COLUMNS = ("user_id", "anchor_id", "room_id", "ts", "action", "value")
SHOWN_COLUMNS = ("impression_id", "user_id", "ts")
ROOM_COLUMNS = ("room_id", "started_at", "ended_at", "category")


class CarriedDay(ABC):
    """One new day of a group of families.

    Attributes:
        outputs: name of what is written (a family) → frame, once `run` is through.
    """

    def __init__(self, spark: SparkSession, warehouse: Path, catalog: Catalog, day: dt.date) -> None:
        self.spark, self.warehouse, self.catalog, self.day = spark, warehouse, catalog, day
        self.eve = day - ONE_DAY

    def context(self) -> Context:
        """A context as a command opens it on the evening of the day, with this catalog."""
        opened = open_context(self.spark, str(self.warehouse), Settings.load("local", ()).pipeline, last_day=self.day)
        return replace(opened, catalog=self.catalog)

    def forget(self, table: str, day: dt.date) -> None:
        """As if a partition had never been computed."""
        shutil.rmtree(self.warehouse / table / "manifests" / day_partition(day), ignore_errors=True)

    @abstractmethod
    def prepare(self) -> None:
        """Make what the day before has left, if it is not there; forget what `run` makes."""

    @abstractmethod
    def run(self) -> None:
        """One new day."""

    @abstractmethod
    def outputs(self) -> Mapping[str, DataFrame]:
        """Family → its features of the day, as `run` has left them."""

    @abstractmethod
    def rewritings(self) -> Mapping[str, Rewriting]:
        """By name, what is to be done every few days besides."""

    @abstractmethod
    def least_bytes(self) -> int:
        """Column chunks that nobody can do without: the day's raw rows, the touched state, what leaves a window."""

    def raw_bytes(self, table: str, columns: tuple[str, ...], days: Iterable[dt.date]) -> int:
        """Column chunks of raw days."""
        folders = [self.warehouse / "raw" / table / f"dt={day.isoformat()}" for day in days]
        return sum(chunk_bytes(file, columns) for folder in folders for file in folder.glob("*.parquet"))

    def table_bytes(self, table: str, days: Iterable[dt.date]) -> int:
        """All column chunks of partitions."""
        warehouse = Warehouse(str(self.warehouse))
        manifests = warehouse.require(table, days).values()
        urls = [url for manifest in manifests for url in warehouse.file_urls(manifest)]
        return sum(chunk_bytes(Path(url.removeprefix("file://")), None) for url in urls)


class SequencesDay(CarriedDay):
    """The eve's arrivals → their tile; a state some days old ∪ tiles ∪ the day's arrivals → sequences of the day.

    What `daily` does besides for the samples of the day (labels, joins) is left out. A state is made every
    `max_deltas` + 1 days (`StateOfActions`); this day is one in the middle between two.
    """

    STATE_AGE = ONE_DAY * 3

    def prepare(self) -> None:
        context = self.context()
        tiles.run(context, days_of(stage("tiles"), [self.day - self.STATE_AGE, self.day], context))
        self.only_state_of(context, self.day - self.STATE_AGE)
        context.raw.close()
        self.forget(ACTION_TILES, self.eve)

    def run(self) -> None:
        context = self.context()
        tiles.run(context, [self.eve])
        recent.run(context, [self.day])
        shown = context.raw.read("impressions", [self.day]).where(business_day() == F.lit(self.day))
        actions = context.raw.read("actions", [self.day])
        rooms = context.raw.read("rooms", context.raw_days("rooms", context.first_room_day(self.day), self.day))
        time, stored = context.conf.time, stored_before(context, self.day)
        found = sequences(self.catalog, shown, actions, rooms, time.event_lag_seconds, stored, time.max_room_age_days)
        found.write.mode("overwrite").parquet(str(self._target))
        context.raw.close()

    def only_state_of(self, context: Context, day: dt.date) -> None:
        """As if the last actions before `day` were the only state."""
        for partition in context.warehouse.partitions(RECENT_ACTIONS):
            if partition != day_partition(day):
                self.forget(RECENT_ACTIONS, dt.date.fromisoformat(partition.removeprefix("dt=")))
        recent.run(context, [day])

    @property
    def _target(self) -> Path:
        return self.warehouse / "sequences-of-the-day"

    def outputs(self) -> Mapping[str, DataFrame]:
        return {"sequences": self.spark.read.parquet(str(self._target))}

    def rewritings(self) -> Mapping[str, Rewriting]:
        return {"state of actions": StateOfActions(self)}

    def least_bytes(self) -> int:
        self.prepare()
        self.run()
        since = [self.day - ONE_DAY * back for back in range(1, self.STATE_AGE.days + 1)]
        first = self.context().first_room_day(self.eve)
        known = [first + ONE_DAY * number for number in range((self.day - first).days + 1)]
        raw = self.raw_bytes("actions", EVENT_COLUMNS, (self.eve, self.day))
        raw += self.raw_bytes("impressions", SHOWN_COLUMNS, [self.day]) + self.raw_bytes("rooms", ROOM_COLUMNS, known)
        return raw + self.table_bytes(RECENT_ACTIONS, since[-1:]) + self.table_bytes(ACTION_TILES, since)


class ProfilesDay(CarriedDay):
    """What arrived on the eve → tiles; tiles that enter or leave a window, and the state of the eve → state."""

    def prepare(self) -> None:
        context = self.context()
        arrivals = days_of(stage("tiles"), [self.eve, self.day], context)
        tiles.run(context, arrivals[:-1])
        profiles.run(context, [self.eve])
        context.raw.close()
        for table in (*map(tile_table, TILED_ENTITIES), ON_AIR_TILES):
            self.forget(table, self.eve)
        for entity in TILED_ENTITIES:
            self.forget(profile_table(entity), self.day)

    def run(self) -> None:
        context = self.context()
        tiles.run(context, [self.eve])
        profiles.run(context, [self.day])
        context.raw.close()

    def outputs(self) -> Mapping[str, DataFrame]:
        """Features are read out of the state by whoever joins them (the samples); that is not part of the day."""
        context = self.context()
        return {entity.value: read_features(context, entity, [self.day]) for entity in TILED_ENTITIES}

    def rewritings(self) -> Mapping[str, Rewriting]:
        return {f"compaction of {entity}": Compaction(self, entity) for entity in TILED_ENTITIES}

    def least_bytes(self) -> int:
        """The state of the eve once, the eve's rows, its tiles, and the tiles of the days that leave a window."""
        raw = self.raw_bytes("actions", LOG_COLUMNS, [self.eve]) + self.raw_bytes(
            "impressions", LOG_COLUMNS, [self.eve]
        )
        raw += self.raw_bytes("rooms", ROOM_COLUMNS, [self.eve])
        state = sum(self.table_bytes(profile_table(entity), [self.eve]) for entity in TILED_ENTITIES)
        moving = 0
        for entity in TILED_ENTITIES:
            lengths = state_layout(entity, self.catalog).tile_lengths()
            moving += self.table_bytes(tile_table(entity), [self.eve])
            moving += sum(self.leaving_bytes(tile_table(entity), self.eve - ONE_DAY * length) for length in lengths)
        return raw + state + moving

    def leaving_bytes(self, table: str, happened: dt.date) -> int:
        """Tiles of one day e, in the partitions of the days on which they arrived (one file per day e)."""
        warehouse = Warehouse(str(self.warehouse))
        late = Settings.load("local", ()).pipeline.time.max_lateness_days
        found = 0
        for arrived in (happened + ONE_DAY * days for days in range(late + 1)):
            manifest = warehouse.manifest(table, day_partition(arrived))
            mine = [file for file in (manifest.files if manifest else ()) if file.happened == happened]
            found += sum(chunk_bytes(self.warehouse / table / file.path, None) for file in mine)
        return found


class Rewriting(ABC):
    """What has to be done every few days besides: a state made anew from one and what was laid on it since."""

    every_days: float
    """How often, on the average of many days; known once `run` is through."""

    @abstractmethod
    def prepare(self) -> None:
        """As if it had not been done."""

    @abstractmethod
    def run(self) -> None:
        """Once."""


class Compaction(Rewriting):
    """A carried day of an entity's profiles gets a base of its own; the days come out of the rows of its delta."""

    def __init__(self, carried: CarriedDay, entity: Entity) -> None:
        self._carried, self._entity = carried, entity

    def prepare(self) -> None:
        """The newest generation goes, if it is one of these."""
        warehouse = self._carried.context().warehouse
        newest = warehouse.require(profile_table(self._entity), [self._carried.day])[self._carried.day]
        if newest.carried_from is None:
            (file, *_) = reversed(warehouse.manifest_files(newest.table, newest.partition))
            Path(file.url.removeprefix("file://")).unlink()

    def run(self) -> None:
        context, day = self._carried.context(), self._carried.day
        manifest = context.warehouse.require(profile_table(self._entity), [day])[day]
        base, delta = (sum(f.rows for f in manifest.files if (f.layer > 0) is above) for above in (False, True))
        windows = context.conf.windows
        self.every_days = min(windows.max_deltas, windows.max_delta_share * base / max(delta, 1) + 1)
        compacted(context, self._entity, manifest)
        context.raw.close()


class StateOfActions(Rewriting):
    """The state of the last actions of a day, from the newest one that is too old to be read."""

    def __init__(self, carried: SequencesDay) -> None:
        self._carried = carried

    def prepare(self) -> None:
        context = self._carried.context()
        self.every_days = context.conf.windows.max_deltas + 1
        old = self._carried.day - ONE_DAY * int(self.every_days)
        tiles.run(context, days_of(stage("tiles"), [old, self._carried.day], context))
        self._carried.only_state_of(context, old)
        context.raw.close()

    def run(self) -> None:
        context = self._carried.context()
        recent.run(context, [self._carried.day])
        context.raw.close()


def chunk_bytes(file: Path, columns: tuple[str, ...] | None) -> int:
    """Compressed bytes of a file's column chunks; None: of all."""
    metadata = pq.read_metadata(file)
    return sum(
        chunk.total_compressed_size
        for group in range(metadata.num_row_groups)
        for chunk in (metadata.row_group(group).column(number) for number in range(metadata.num_columns))
        if columns is None or chunk.path_in_schema.split(".")[0] in columns
    )
