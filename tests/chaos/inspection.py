"""What a run left behind: every committed partition against its manifest, files, rows and content digest."""

from __future__ import annotations

import datetime
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import functions as F

from features import storage
from features.spark.window_state import state_layout, stored_entities
from pipeline.context import Context
from pipeline.manifests import PartitionManifest
from pipeline.observed import content_digest, observed_columns
from pipeline.profile_state import state_of
from pipeline.stages.names import profile_table
from tests.small_world import context_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_DAY = "digested_day"


class Inspection:
    """Looks at warehouses; what was found whole is not read again."""

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark
        self._verified: set[tuple[str, str, str]] = set()

    def look(self, folder: Path) -> tuple[int, int, list[str]]:
        """Committed partitions, data files that none of them names, and what is wrong with those that are.

        Files are never changed once they are named: what was found whole is not read again after the rerun.
        """
        context = context_of(self._spark, folder)
        warehouse, count, named, problems = context.warehouse, 0, set[str](), list[str]()
        for table in warehouse.tables():
            found: list[PartitionManifest] = []
            for partition in warehouse.partitions(table):
                count += 1
                manifest = warehouse.manifest(table, partition)
                assert manifest is not None
                if (table, partition, manifest.attempt) not in self._verified:
                    found.append(manifest)
                named |= set(warehouse.file_urls(manifest))
            wrong = self._problems(context, found)
            problems += wrong
            self._verified |= set() if wrong else {(table, m.partition, m.attempt) for m in found}
        written = {
            entry.url
            for table in storage.list_folders(warehouse.url)
            for entry in storage.list_files(f"{warehouse.url}/{table}/data", recursive=True)
            if entry.name.endswith(".parquet")
        }
        return count, len(written - named), problems

    def _problems(self, context: Context, manifests: list[PartitionManifest]) -> list[str]:
        """Manifests of one table against their files, all in one Spark job."""
        warehouse = context.warehouse
        gone = [url for manifest in manifests for url in warehouse.file_urls(manifest) if not storage.exists(url)]
        if gone:
            return [f"{url} is named by a manifest and not there" for url in gone]
        stored = [manifest for manifest in manifests if manifest.files]
        wrong = [f"{m.table}/{m.partition}: no files, but {m.rows} rows" for m in manifests if not m.files and m.rows]
        if not stored:
            return wrong
        days = [datetime.date.fromisoformat(manifest.partition.removeprefix("dt=")) for manifest in stored]
        frames = [self._digested(context, manifest, day) for manifest, day in zip(stored, days, strict=True)]
        columns = frames[0].columns
        marked = [frame.withColumn(_DAY, F.lit(day)) for frame, day in zip(frames, days, strict=True)]
        union: DataFrame = reduce(lambda left, right: left.unionByName(right), marked)
        try:
            observed: dict[str, Any] = union.agg(*observed_columns(days, _DAY, columns, [])).collect()[0].asDict()
        except Py4JJavaError as error:
            return [f"{stored[0].table} cannot be read: {str(error.java_exception).splitlines()[0]}"]
        return wrong + [
            f"{manifest.table}/{manifest.partition}: its rows have another digest than its manifest"
            for index, manifest in enumerate(stored)
            if content_digest(observed, index) != manifest.digest
        ]

    def _digested(self, context: Context, manifest: PartitionManifest, day: datetime.date) -> DataFrame:
        """The rows and columns that the digest of a partition is over: of profiles the keys and the merged state."""
        entities = {profile_table(entity): entity for entity in stored_entities(context.catalog)}
        if manifest.table in entities:
            layout = state_layout(entities[manifest.table], context.catalog)
            state = state_of(context, entities[manifest.table], {day: manifest})
            return state.select(*layout.keys, *layout.columns)
        ddl = ", ".join(f"`{name}` {sql_type}" for name, sql_type in manifest.schema_)
        return self._spark.read.schema(ddl).parquet(*context.warehouse.file_urls(manifest))
