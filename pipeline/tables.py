"""The only reads and writes of derived tables, and the commit protocol that makes them safe.

    <warehouse>/<table>/data/<attempt>/written=YYYY-MM-DD/part-*.parquet    never moved, never overwritten
    <warehouse>/<table>/manifests/<partition>/manifest.<generation>     created exclusively, whole

A partition is what its highest generation lists, and nothing else; a crash leaves files that no manifest
names. Whoever read generation g commits g + 1: of two writers one creates it, the other is told.

Steps of `Warehouse.write_days`, for d days:
  1. lease      one lease per partition, with a heartbeat                                  d leases
  2. write      one Spark job; rows and digests of every day observed in the same pass     d × (rows, digest)
  3. footers    rows and bytes of every file                                               f files
  4. commit     one manifest per day, empty days too                                       d manifests
"""

from __future__ import annotations

import datetime
import itertools
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from features import storage
from features.errors import DataError, HeldError, NotReadyError, Problem
from pipeline.leases import Lease
from pipeline.manifests import DataFile, PartitionManifest, Provenance, day_partition

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

MANIFEST_PATTERN = re.compile(r"^manifest\.(\d{6})$")
FOLDER_COLUMN = "written"  # Spark drops the column it partitions by, so it is a copy of the day


class Warehouse:
    """Derived tables under one URL."""

    def __init__(self, url: str) -> None:
        self.url = storage.absolute(url)

    def table_url(self, table: str) -> str:
        """Folder of a table."""
        return f"{self.url}/{table}"

    def _manifest_folder(self, table: str, partition: str) -> str:
        return f"{self.table_url(table)}/manifests/{partition}"

    def generations(self, table: str, partition: str) -> list[int]:
        """Committed generations, oldest first."""
        entries = storage.list_files(self._manifest_folder(table, partition))
        matches = (MANIFEST_PATTERN.match(entry.name) for entry in entries)
        return sorted(int(match.group(1)) for match in matches if match)

    def manifest(self, table: str, partition: str) -> PartitionManifest | None:
        """The current manifest of a partition, or None when it was never committed."""
        generations = self.generations(table, partition)
        if not generations:
            return None
        url = f"{self._manifest_folder(table, partition)}/manifest.{generations[-1]:06d}"
        return PartitionManifest.model_validate_json(storage.read_bytes(url))

    def partitions(self, table: str) -> list[str]:
        """Names of the partitions that were committed at least once."""
        found = storage.list_folders(f"{self.table_url(table)}/manifests")
        return [partition for partition in found if self.generations(table, partition)]

    def tables(self) -> list[str]:
        """Names of the derived tables."""
        return [name for name in storage.list_folders(self.url) if self.partitions(name)]

    def require(self, table: str, days: Iterable[datetime.date]) -> dict[datetime.date, PartitionManifest]:
        """The manifests of days.

        Raises:
            NotReadyError: names every day that was not computed.
        """
        found = {day: self.manifest(table, day_partition(day)) for day in days}
        missing = [day.isoformat() for day, manifest in found.items() if manifest is None]
        if missing:
            raise NotReadyError(
                [
                    Problem(
                        table=table,
                        what="days were not computed yet",
                        count=len(missing),
                        examples=missing,
                        remedy=f"Run `limelight backfill --from {min(missing)} --to {max(missing)}`",
                    )
                ]
            )
        return {day: manifest for day, manifest in found.items() if manifest is not None}

    def file_urls(self, manifest: PartitionManifest) -> list[str]:
        """URLs of the files of a partition."""
        return [f"{self.table_url(manifest.table)}/{file.path}" for file in manifest.files]

    def read_days(self, spark: SparkSession, table: str, days: Sequence[datetime.date]) -> DataFrame:
        """Rows of some days; an empty day has no rows.

        Raises:
            NotReadyError: when a day was not computed, or no day was asked for.
            DataError: when the days were written with different schemas.
        """
        if not days:
            remedy = "Choose days that have raw days before them"
            raise NotReadyError([Problem(table=table, what="no day to read lies within the history", remedy=remedy)])
        manifests = self.require(table, days)
        schemas = {manifest.schema_ for manifest in manifests.values()}
        if len(schemas) > 1:
            raise DataError([self._schema_problem(table, manifests)])
        ddl = ", ".join(f"`{name}` {sql_type}" for name, sql_type in schemas.pop())
        urls = [url for manifest in manifests.values() for url in self.file_urls(manifest)]
        if not urls:
            return spark.createDataFrame([], ddl)
        return spark.read.schema(ddl).parquet(*urls)

    @staticmethod
    def _schema_problem(table: str, manifests: Mapping[datetime.date, PartitionManifest]) -> Problem:
        first, last = min(manifests), max(manifests)
        columns = set(manifests[first].schema_) ^ set(manifests[last].schema_)
        return Problem(
            table=table,
            what="days were written with different columns",
            examples=sorted(name for name, _ in columns),
            remedy=f"Recompute them with one catalog: `limelight backfill --from {first} --to {last}`",
        )

    def write_days(
        self,
        frame: DataFrame,
        table: str,
        days: Sequence[datetime.date],
        provenance: Provenance,
        day_column: str = "dt",
        counted: Sequence[str] = (),
        counts: Mapping[datetime.date, Mapping[str, int]] | None = None,
        expected_rows: Mapping[datetime.date, int] | None = None,
    ) -> dict[datetime.date, PartitionManifest]:
        """Write rows of some days in one Spark job and commit each day.

        Args:
            frame: rows of exactly these days, told apart by `day_column` (a date).
            counted: integer columns that are summed into `PartitionManifest.counts` and not written.
            counts: further counts of each day for its manifest.
            expected_rows: rows that each day must have; nothing is committed when one has not.

        Raises:
            DataError: when a day has other rows than expected.
            HeldError: when another run holds a day, or has committed it meanwhile.
        """
        from pyspark.sql import Observation
        from pyspark.sql import functions as F

        from pipeline.observed import content_digest, observed_columns

        attempt = uuid.uuid4().hex[:12]
        target = f"{self.table_url(table)}/data/{attempt}"
        written = frame.drop(*counted)
        observation = Observation(f"write-{table}-{attempt}")
        expressions = observed_columns(days, day_column, written.columns, counted)
        with self.lease(table, [day_partition(day) for day in days], attempt) as lease:
            before = {day: self.generations(table, day_partition(day)) for day in days}
            (
                frame.observe(observation, *expressions)
                .drop(*counted)
                .withColumn(FOLDER_COLUMN, F.col(day_column))
                .write.partitionBy(FOLDER_COLUMN)
                .parquet(target)
            )
            lease.check()
            files = self._written_files(table, target)
            observed = observation.get
            schema = tuple((field.name, field.dataType.simpleString()) for field in written.schema.fields)
            manifests = {}
            for index, day in enumerate(days):
                manifests[day] = PartitionManifest(
                    table=table,
                    partition=day_partition(day),
                    generation=(before[day] or [0])[-1] + 1,
                    attempt=attempt,
                    files=tuple(files.get(day.isoformat(), ())),
                    rows=int(observed[f"rows_{index}"] or 0),
                    digest=content_digest(observed, index),
                    schema=schema,
                    inputs=provenance.inputs.get(day, {}),
                    code=provenance.code,
                    conf=provenance.conf,
                    counts={
                        **(counts or {}).get(day, {}),
                        **{name: int(observed[f"{name}_{index}"] or 0) for name in counted},
                    },
                    created_at=datetime.datetime.now(datetime.UTC),
                )
            _check_rows(table, manifests, expected_rows or {})
            self.commit(manifests.values())
        return manifests

    def _written_files(self, table: str, target: str) -> dict[str, list[DataFile]]:
        prefix = f"{self.table_url(table)}/"
        entries = [e for e in storage.list_files(target, recursive=True) if e.name.endswith(".parquet")]
        files: dict[str, list[DataFile]] = {}
        for day, group in itertools.groupby(
            entries, key=lambda entry: entry.name.split("/")[0].removeprefix(f"{FOLDER_COLUMN}=")
        ):
            for entry in group:
                with storage.open_input(entry.url) as source:
                    rows = pq.read_metadata(source).num_rows
                found = DataFile(path=entry.url.removeprefix(prefix), rows=rows, bytes=entry.size)
                files.setdefault(day, []).append(found)
        return files

    def commit(self, manifests: Iterable[PartitionManifest]) -> None:
        """Make partitions visible, each by one exclusive creation.

        Raises:
            DataError: when a manifest's files do not hold its rows (a writer died half way).
            HeldError: when another run committed the same generation first.
        """
        for manifest in manifests:
            listed = sum(file.rows for file in manifest.files)
            if listed != manifest.rows:
                raise DataError([_rows_problem(manifest, listed)])
            name = f"manifest.{manifest.generation:06d}"
            url = f"{self._manifest_folder(manifest.table, manifest.partition)}/{name}"
            content = manifest.model_dump_json(indent=1, by_alias=True).encode()
            if not storage.create_exclusively(url, content):
                raise HeldError(
                    f"table={manifest.table} {manifest.partition}: another run committed generation "
                    f"{manifest.generation} first; its result stands. Run again to build on it"
                )

    def lease(self, table: str, partitions: Sequence[str], holder: str) -> Lease:
        """A lease on partitions; enter it before working on them."""
        return Lease(f"{self.table_url(table)}/leases", partitions, holder)


def _rows_problem(manifest: PartitionManifest, listed: int) -> Problem:
    return Problem(
        table=manifest.table,
        day=manifest.partition,
        what=f"files hold {listed} rows where {manifest.rows} were written",
        remedy="Run the stage again; nothing was committed",
    )


def _check_rows(
    table: str, manifests: Mapping[datetime.date, PartitionManifest], expected: Mapping[datetime.date, int]
) -> None:
    problems = [
        Problem(
            table=table,
            day=day.isoformat(),
            what=f"{expected[day]} rows went in and {manifest.rows} came out",
            remedy="An input has repeated keys; look with `limelight check-raw`. Nothing was committed",
        )
        for day, manifest in manifests.items()
        if day in expected and expected[day] != manifest.rows
    ]
    if problems:
        raise DataError(problems)
