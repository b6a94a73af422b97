"""Encoded rows → Parquet with equal row groups in a seeded global order.

Spark's own writer cuts row groups by bytes; the feed needs them equal in rows. So each task writes its
Parquet file itself, at a path of its own that is never moved, and says what it wrote.

Steps, for N rows, S logical shards and row groups of R = ceil(N / (S × k)) rows:
  1. order      h = hash(seed, impression_id); P partitions by h, each sorted by (h, impression_id)
  2. encode     [n sample rows] → [n encoded rows], batch by batch
  3. write      every partition writes its full row groups of R; up to R − 1 rows are left over   P files
  4. leftovers  one task joins them in partition order: row groups of R, the last one shorter     1 file
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark import TaskContext
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from features import storage
from features.checksums import checksums
from features.manifest import DataFile

SCHEMA = "kind string, place int, payload binary"
ARROW_SCHEMA = pa.schema([("kind", pa.string()), ("place", pa.int32()), ("payload", pa.binary())])
WRITTEN, LEFT_OVER = "written", "left over"

Encode = Callable[[pa.RecordBatch], pa.Table]


@dataclass(frozen=True, kw_only=True)
class PackPlan:
    """How many rows make a row group."""

    rows: int
    row_group_rows: int

    @classmethod
    def of(cls, rows: int, shards: int, target: int) -> PackPlan:
        """The number of row groups is a multiple of `shards`, each near `target` rows."""
        groups = shards * max(1, round(rows / (shards * target)))
        return cls(rows=rows, row_group_rows=max(1, -(-rows // groups)))


class RowGroupWriter:
    """Writes row groups of exactly `size` rows; what does not fill one stays in `left_over`."""

    def __init__(self, url: str, size: int) -> None:
        self._url = url
        self._size = size
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._row_groups: list[int] = []
        self._writer: pq.ParquetWriter | None = None

    def add(self, table: pa.Table) -> None:
        """Take rows; full row groups are written at once."""
        self._pending.append(table)
        self._pending_rows += len(table)
        if self._pending_rows < self._size:
            return
        whole = pa.concat_tables(self._pending)
        full = len(whole) // self._size * self._size
        for start in range(0, full, self._size):
            self._write(whole.slice(start, self._size))
        self._pending = [whole.slice(full)]
        self._pending_rows = len(whole) - full

    def flush(self) -> None:
        """Write what is left as a last, shorter row group."""
        if self._pending_rows:
            self._write(pa.concat_tables(self._pending))
            self._pending, self._pending_rows = [], 0

    @property
    def left_over(self) -> pa.Table | None:
        """Rows that were not written."""
        return pa.concat_tables(self._pending) if self._pending_rows else None

    def close(self) -> DataFile | None:
        """End the file; None when nothing was written."""
        if self._writer is None:
            return None
        self._writer.close()
        with storage.open_input(self._url) as written:
            sums = checksums(written)
        return DataFile(path=self._url.rsplit("/", 1)[1], row_groups=tuple(self._row_groups), checksums=sums)

    def _write(self, table: pa.Table) -> None:
        if self._writer is None:
            filesystem, path = storage.resolve(self._url)
            filesystem.create_dir(path.rsplit("/", 1)[0], recursive=True)
            self._writer = pq.ParquetWriter(path, table.schema, filesystem=filesystem, compression="zstd")
        self._writer.write_table(table, row_group_size=len(table))
        self._row_groups.append(len(table))


def pack(samples: DataFrame, encode: Encode, folder: str, plan: PackPlan, files: int, seed: int) -> list[DataFile]:
    """Encode and write rows below `folder` (a URL that only this attempt uses).

    Args:
        samples: rows with `impression_id`; all columns that `encode` needs.
        encode: [n sample rows] → [n encoded rows]; runs in the Spark workers.

    Returns:
        The files in the order of their paths, paths relative to the parent of `folder`.
    """
    order = F.xxhash64(F.lit(seed), F.lit("order"), F.col("impression_id"))
    ordered = samples.withColumn("_order", order).repartition(files, "_order")
    ordered = ordered.sortWithinPartitions("_order", "impression_id").drop("_order")
    size = plan.row_group_rows

    def write_full(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        place = context.partitionId() if context else 0
        writer = RowGroupWriter(f"{folder}/part-{place:05d}-{uuid.uuid4().hex[:8]}.parquet", size)
        for batch in batches:
            writer.add(encode(batch))
        yield from _described(writer.close(), place)
        if writer.left_over is not None:
            yield _row(LEFT_OVER, place, _to_ipc(writer.left_over))

    def write_rest(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        writer = RowGroupWriter(f"{folder}/rest-{uuid.uuid4().hex[:8]}.parquet", size)
        for batch in batches:
            for row in batch.to_pylist():
                if row["kind"] == WRITTEN:
                    yield _row(WRITTEN, row["place"], row["payload"])
                else:
                    writer.add(pa.ipc.open_stream(row["payload"]).read_all())
        writer.flush()
        yield from _described(writer.close(), -1)

    written = ordered.mapInArrow(write_full, SCHEMA).repartition(1).sortWithinPartitions("place")
    rows = written.mapInArrow(write_rest, SCHEMA).collect()
    name = folder.rsplit("/", 1)[1]
    found = [DataFile.model_validate_json(row["payload"]) for row in rows]
    return sorted(
        (file.model_copy(update={"path": f"{name}/{file.path}"}) for file in found), key=lambda file: file.path
    )


def _described(file: DataFile | None, place: int) -> Iterator[pa.RecordBatch]:
    if file is not None:
        yield _row(WRITTEN, place, json.dumps(file.model_dump()).encode())


def _row(kind: str, place: int, payload: bytes) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{"kind": kind, "place": place, "payload": payload}], schema=ARROW_SCHEMA)


def _to_ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())
