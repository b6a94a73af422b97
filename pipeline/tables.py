"""The only reads and writes of derived tables, and the commit protocol that makes them safe.

    <warehouse>/<table>/data/<attempt>/written=YYYY-MM-DD/part-*.parquet    never moved, never overwritten
                               written=YYYY-MM-DD/happened=YYYY-MM-DD/…     tables whose days are split by a second one
    <warehouse>/<table>/manifests/<partition>/manifest.<generation>     created exclusively, whole

A partition is what its highest generation lists, and nothing else; a crash leaves files that no manifest
names. Whoever read generation g commits g + 1: of two writers one creates it, the other is told.

Steps of `Warehouse.write_days`, for d days:
  1. lease      one lease per partition, with a heartbeat                                  d leases
  2. write      one Spark job; rows and digests of every day observed in the same pass     d × (rows, digest)
  3. footers    rows, bytes, nulls and ranges of every file; border checks judge           f files
  4. commit     one manifest per day, empty days too                                       d manifests
"""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from features import storage
from features.errors import DataError, HeldError, NotReadyError, Problem
from features.paths import require_name
from pipeline.attempts import Attempt
from pipeline.border import BorderChecks, PastDay
from pipeline.leases import Lease
from pipeline.manifests import DataFile, PartitionManifest, Provenance, day_partition

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from pipeline.check_plan import TablePlan
    from pipeline.checks import DaySeen
    from pipeline.observed import Keys

MANIFEST_PATTERN = re.compile(r"^manifest\.(\d{6})$")


class Warehouse:
    """Derived tables under one URL."""

    def __init__(self, url: str) -> None:
        self.url = storage.absolute(url)

    def table_url(self, table: str) -> str:
        """Folder of a table. Raises DataError when the name leads elsewhere."""
        return f"{self.url}/{require_name(table)}"

    def _manifest_folder(self, table: str, partition: str) -> str:
        return f"{self.table_url(table)}/manifests/{require_name(partition)}"

    def manifest_files(self, table: str, partition: str) -> list[storage.FileEntry]:
        """The manifests of a partition, oldest generation first."""
        entries = storage.list_files(self._manifest_folder(table, partition))
        return [entry for entry in entries if MANIFEST_PATTERN.match(entry.name)]

    def generations(self, table: str, partition: str) -> list[int]:
        """Committed generations, oldest first."""
        return [int(entry.name.rpartition(".")[2]) for entry in self.manifest_files(table, partition)]

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
        return self.read_files(spark, table, self.require(table, days))

    def read_files(
        self,
        spark: SparkSession,
        table: str,
        manifests: Mapping[datetime.date, PartitionManifest],
        wanted: Callable[[datetime.date, DataFile], bool] = lambda _day, _file: True,
    ) -> DataFrame:
        """Rows of those files of some days that are wanted. Raises as `schema_of`."""
        ddl = ", ".join(f"`{name}` {sql_type}" for name, sql_type in self.schema_of(table, manifests))
        folder = self.table_url(table)
        urls = [f"{folder}/{f.path}" for day, manifest in manifests.items() for f in manifest.files if wanted(day, f)]
        return spark.read.schema(ddl).parquet(*dict.fromkeys(urls)) if urls else spark.createDataFrame([], ddl)

    def schema_of(
        self, table: str, manifests: Mapping[datetime.date, PartitionManifest]
    ) -> tuple[tuple[str, str], ...]:
        """The columns and types of some days.

        Raises:
            DataError: when the days were written with different schemas.
        """
        schemas = {manifest.schema_ for manifest in manifests.values()}
        if len(schemas) > 1:
            raise DataError([self._schema_problem(table, manifests)])
        return schemas.pop()

    @staticmethod
    def _schema_problem(table: str, manifests: Mapping[datetime.date, PartitionManifest]) -> Problem:
        schemas = [{*manifest.schema_} for manifest in manifests.values()]
        columns = {column for one in schemas for column in one if any(column not in other for other in schemas)}
        return Problem(
            table=table,
            day=f"{min(manifests)} … {max(manifests)}",
            what="days were written with different columns",
            examples=sorted({name for name, _ in columns}),
            remedy="Bring them to one catalog: `limelight backfill --stale` computes what is lacking, and no more",
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
        key: Sequence[str] = (),
        expected: Mapping[datetime.date, Keys] | None = None,
        hashed: Sequence[str] = (),
        split_by: str | None = None,
    ) -> dict[datetime.date, PartitionManifest]:
        """Write rows of some days in one Spark job and commit each day.

        Args:
            frame: rows of exactly these days, told apart by `day_column` (a date).
            counted: integer columns that are summed into `PartitionManifest.counts` and not written.
            counts: further counts of each day for its manifest.
            key, expected: columns whose values must be exactly those of `expected`, each as often; nothing is
                committed when a day has others. A day that is not in it must be empty.
            hashed: columns that the content digest is over; all that are written, by default.
            split_by: a date column of which no file holds two values; `DataFile.happened` names it.

        Raises:
            DataError: when a day has other rows than expected, or a border check stops it.
            HeldError: when another run holds a day, or has committed it meanwhile.
        """
        from pipeline.observed import Watch

        columns = tuple((name, sql_type) for name, sql_type in frame.dtypes if name not in counted)
        plan = provenance.border.plan(table, columns) if provenance.border is not None else None
        watch = Watch(frame, days, day_column=day_column, counted=counted, keys=key, hashed=hashed, plan=plan)
        with self.attempt(table, [day_partition(day) for day in days]) as attempt:
            files, spans = attempt.write(watch.rows, day_column, split_by=split_by)
            checks = self.judged(provenance, plan, watch.seen(spans)) if plan is not None else {}
            if expected is not None:
                _check_keys(table, {day: (expected.get(day), watch.keys(index)) for index, day in enumerate(days)})
            manifests = {
                day: attempt.manifest(
                    day,
                    provenance,
                    files=files.get(day, ()),
                    rows=watch.row_count(index),
                    digest=watch.digest(index),
                    schema=watch.schema,
                    counts={**(counts or {}).get(day, {}), **watch.counts(index)},
                    checks=checks.get(day),
                )
                for index, day in enumerate(days)
            }
            self.commit(manifests.values())
        return manifests

    @contextmanager
    def attempt(self, table: str, partitions: Sequence[str]) -> Iterator[Attempt]:
        """An attempt at some partitions, while their lease is held.

        Raises:
            HeldError: on entering, when another live run holds one of them.
        """
        name = uuid.uuid4().hex[:12]
        with self.lease(table, partitions, name) as lease:
            committed = {partition: self.generations(table, partition) for partition in partitions}
            yield Attempt(
                name=name,
                table=table,
                table_url=self.table_url(table),
                generations={partition: max(found, default=0) + 1 for partition, found in committed.items()},
                lease=lease,
            )

    def judged(
        self, provenance: Provenance, plan: TablePlan, seen: Mapping[datetime.date, DaySeen]
    ) -> dict[datetime.date, BorderChecks]:
        """What the border checks find in days that were written, beside those committed before.

        Raises:
            DataError: when a finding stops a day.
        """
        if provenance.border is None:
            return {}
        return provenance.border.judge(plan, seen, lambda day: self._past_day(plan.table, day))

    def _past_day(self, table: str, day: datetime.date) -> PastDay | None:
        """A committed day with its border checks, to compare others with."""
        manifest = self.manifest(table, day_partition(day))
        if manifest is None or manifest.checks is None:
            return None
        return PastDay(partition=manifest.partition, rows=manifest.rows, columns=manifest.checks.columns)

    def commit(self, manifests: Iterable[PartitionManifest]) -> None:
        """Make partitions visible, each by one exclusive creation.

        Raises:
            DataError: when a manifest's files do not hold its rows (a writer died half way).
            HeldError: when another run committed the same generation first.
        """
        for manifest in manifests:
            listed = sum(file.rows for file in manifest.files)
            if listed != (manifest.rows if manifest.stored_rows is None else manifest.stored_rows):
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
        what=f"files hold {listed} rows where {manifest.stored_rows or manifest.rows} were written",
        remedy="Run the stage again; nothing was committed",
    )


def _check_keys(table: str, found: Mapping[datetime.date, tuple[Keys | None, Keys]]) -> None:
    problems = []
    for day, (expected, written) in found.items():
        went_in = expected.rows if expected is not None else 0
        what = f"{went_in:,} rows went in and {written.rows:,} came out"
        if went_in == written.rows:
            what = f"of {went_in:,} keys that went in, some were lost and others came out more than once"
        if written.rows != went_in or (expected is not None and written != expected):
            remedy = "An input has repeated keys; look with `limelight check-raw`. Nothing was committed"
            problems.append(Problem(table=table, day=day.isoformat(), what=what, remedy=remedy))
    if problems:
        raise DataError(problems)
