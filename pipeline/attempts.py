"""One attempt at some partitions of a table: files in a folder of its own, written under their lease."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from features import storage
from pipeline.border import BorderChecks
from pipeline.footers import Span, column_spans, merged
from pipeline.leases import Lease
from pipeline.manifests import DataFile, PartitionManifest, Provenance, day_partition

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

FOLDER_COLUMN = "written"  # Spark drops the column it partitions by, so it is a copy of the day
SPLIT_COLUMN = "happened"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Entered by `Warehouse.attempt`; what it wrote is seen by nobody until its manifests are committed.

    Attributes:
        name: unique; of its folder, and of the holder of the lease.
        table_url: folder of the table.
        generations: partition → the generation after the one that was current when the attempt began.
    """

    name: str
    table: str
    table_url: str
    generations: Mapping[str, int]
    lease: Lease

    @property
    def path(self) -> str:
        """Its folder, relative to the table's."""
        return f"data/{self.name}"

    @property
    def url(self) -> str:
        """URL of its folder."""
        return f"{self.table_url}/{self.path}"

    def write(
        self, rows: DataFrame, day_column: str, *, split_by: str | None = None, layer: int = 0
    ) -> tuple[dict[datetime.date, tuple[DataFile, ...]], dict[datetime.date, dict[str, Span]]]:
        """Write rows in one Spark job, the files of each day apart.

        Args:
            day_column, split_by: date columns; no file holds two days, or two values of `split_by`.
            layer: of the files, see `DataFile`.

        Returns:
            Files of each day, and what their footers know of its columns; a day without rows is in neither.

        Raises:
            HeldError: when the lease was lost meanwhile.
        """
        from pyspark.sql import functions as F

        folders = {FOLDER_COLUMN: day_column} | ({SPLIT_COLUMN: split_by} if split_by else {})
        copies = {folder: F.col(column) for folder, column in folders.items()}
        rows.withColumns(copies).write.partitionBy(*folders).parquet(self.url)
        self.lease.check()
        files: dict[datetime.date, tuple[DataFile, ...]] = {}
        spans: dict[datetime.date, dict[str, Span]] = {}
        for entry in storage.list_files(self.url, recursive=True):
            if entry.name.endswith(".parquet"):
                day, file, its_spans = self._written(entry, layer)
                files[day] = (*files.get(day, ()), file)
                spans[day] = merged([spans.get(day, {}), its_spans])
        return files, spans

    def _written(self, entry: storage.FileEntry, layer: int) -> tuple[datetime.date, DataFile, dict[str, Span]]:
        folders = dict(folder.split("=", 1) for folder in entry.name.split("/")[:-1])
        happened = datetime.date.fromisoformat(folders[SPLIT_COLUMN]) if SPLIT_COLUMN in folders else None
        with storage.open_input(entry.url) as source:
            metadata = pq.read_metadata(source)
        path = entry.url.removeprefix(f"{self.table_url}/")
        file = DataFile(path=path, rows=metadata.num_rows, bytes=entry.size, happened=happened, layer=layer)
        return datetime.date.fromisoformat(folders[FOLDER_COLUMN]), file, column_spans(metadata)

    def manifest(
        self,
        day: datetime.date,
        provenance: Provenance,
        *,
        files: Sequence[DataFile],
        rows: int,
        digest: str,
        schema: tuple[tuple[str, str], ...],
        counts: Mapping[str, int] | None = None,
        checks: BorderChecks | None = None,
        carried_from: str | None = None,
    ) -> PartitionManifest:
        """The manifest to commit for a day; a carried one counts what its files store beside what they amount to."""
        return PartitionManifest(
            table=self.table,
            partition=day_partition(day),
            generation=self.generations[day_partition(day)],
            attempt=self.name,
            files=tuple(files),
            rows=rows,
            stored_rows=sum(file.rows for file in files) if carried_from is not None else None,
            carried_from=carried_from,
            digest=digest,
            schema=schema,
            inputs=provenance.inputs.get(day, {}),
            code=provenance.code,
            conf=provenance.conf,
            meanings=provenance.meanings,
            same_rows_as=provenance.same_rows_as.get(day, ()),
            counts=counts or {},
            checks=checks,
            created_at=datetime.datetime.now(datetime.UTC),
        )
