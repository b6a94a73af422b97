"""As-of merge: for every query the events of its key that it may see, by one sort instead of a range join.

    1. queries ∪ events, one narrow schema             → rows (keys, kind, at, day, order, payload)
    2. hash by keys, sort by (keys, kind, at, order)   → partitions of whole keys, each key's events in time order
    3. mapInArrow cuts a partition into chunks         → Arrow tables of whole keys, about CHUNK_ROWS rows
    4. per chunk and day D: events that arrived by D   → row numbers, ascending in (key, at)
       binary search within the key for the cutoff     → each query's visible prefix [start, stop)
    5. the kernel takes the last, the last L, or sums  → one output row per query

Cost is linear in rows (times the days of a chunk) and memory is bounded by the largest key, not by the partition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

Int64s = NDArray[np.int64]

KIND, AT, DAY, ORDER = "kind", "at", "day", "order"
"""Columns of both sides: what a row is; micros when it is complete (events) or cuts off (queries); the day it
arrived (events) or belongs to (queries), as a day number; what decides between events of equal `at`."""

QUERY = -1
"""`kind` of queries; events count from 0."""

CHUNK_ROWS = 131_072


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """When rows are: `segment` numbers the keys of a chunk, ascending; within one, events ascend in `at`. Aligned."""

    segment: Int64s
    at: Int64s
    day: Int64s

    def take(self, rows: Int64s) -> Timeline:
        """The rows of these numbers."""
        return Timeline(segment=self.segment[rows], at=self.at[rows], day=self.day[rows])


@dataclass(frozen=True, kw_only=True)
class Prefixes:
    """What each of n queries of one day sees: events rows[start[i]:stop[i]], oldest first.

    `rows` [V] numbers the events that arrived by that day; `at` [V] is when they were complete.
    """

    rows: Int64s
    at: Int64s
    start: Int64s
    stop: Int64s

    def not_before(self, oldest: Int64s) -> Prefixes:
        """The same without events complete before oldest[i]."""
        start = segment_search(self.at, self.start, self.stop, oldest)
        return Prefixes(rows=self.rows, at=self.at, start=start, stop=self.stop)

    def newest_first(self, length: int, queries: slice) -> tuple[Int64s, NDArray[np.int32]]:
        """Event numbers of the last `length` events of some queries, flat, and where each query's begin [n + 1]."""
        stop = self.stop[queries]
        taken = np.minimum(stop - self.start[queries], length)
        offsets = np.concatenate(([0], np.cumsum(taken)))
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], taken)
        return self.rows[np.repeat(stop, taken) - 1 - within], offsets.astype(np.int32)


def segment_search(at: Int64s, start: Int64s, stop: Int64s, bound: Int64s) -> Int64s:
    """First i in [start, stop) with at[i] ≥ bound, else stop; `at` ascends within each range. All of [n] at once."""
    low, high = start.copy(), stop.copy()
    open_queries = np.flatnonzero(low < high)
    while open_queries.size:
        middle = (low[open_queries] + high[open_queries]) >> 1
        is_before = at[middle] < bound[open_queries]
        low[open_queries[is_before]] = middle[is_before] + 1
        high[open_queries[~is_before]] = middle[~is_before]
        open_queries = open_queries[low[open_queries] < high[open_queries]]
    return low


def days_of(queries: Timeline) -> Iterator[tuple[int, Int64s]]:
    """Each day of the queries with the numbers of its queries."""
    for day in np.unique(queries.day):
        yield int(day), np.flatnonzero(queries.day == day)


def visible(queries: Timeline, events: Timeline, day: int, max_age_days: int | None = None) -> Prefixes:
    """Events of the query's key that arrived by `day` and are complete strictly before the query's `at`.

    Args:
        queries: all of this day.
        max_age_days: events that arrived longer before `day` do not count; None for no bound.
    """
    is_known = events.day <= day
    if max_age_days is not None:
        is_known &= events.day >= day - max_age_days
    rows = np.flatnonzero(is_known)
    segment, at = events.segment[rows], events.at[rows]
    start = segment.searchsorted(queries.segment, "left")
    end = segment.searchsorted(queries.segment, "right")
    return Prefixes(rows=rows, at=at, start=start, stop=segment_search(at, start, end, queries.at))


def last_visible(queries: Timeline, events: Timeline, max_age_days: int | None = None) -> Int64s:
    """Number of the newest visible event of each query, −1 where there is none: [n]. `max_age_days`: of `visible`."""
    last = np.full(queries.at.size, -1, dtype=np.int64)
    for day, of_day in days_of(queries):
        prefixes = visible(queries.take(of_day), events, day, max_age_days)
        some = prefixes.stop > prefixes.start
        last[of_day[some]] = prefixes.rows[prefixes.stop[some] - 1]
    return last


def visible_sum(queries: Timeline, events: Timeline, values: Int64s, span: int) -> Int64s:
    """Sum over visible events complete in the open interval (at − span, at): [n], through integer running sums."""
    total = np.zeros(queries.at.size, dtype=np.int64)
    for day, of_day in days_of(queries):
        asked = queries.take(of_day)
        prefixes = visible(asked, events, day).not_before(asked.at - span + 1)
        running = np.concatenate(([0], np.cumsum(values[prefixes.rows])))
        total[of_day] = running[prefixes.stop] - running[prefixes.start]
    return total


@dataclass(frozen=True, kw_only=True)
class Part:
    """The queries, or the events of one kind, of a chunk."""

    table: pa.Table
    time: Timeline

    def column(self, name: str) -> pa.Array:
        """A column as one Arrow array."""
        return self.table.column(name).combine_chunks()

    def ints(self, name: str) -> Int64s:
        """A column without nulls as int64 (a null would turn the column into floats: it is an error)."""
        return _ints(self.column(name))


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Whole keys, sorted by (keys, kind, at, order)."""

    table: pa.Table
    segment: Int64s
    kind: Int64s

    def part(self, kind: int) -> Part:
        """The rows of one kind, in order."""
        rows = np.flatnonzero(self.kind == kind)
        table = self.table.take(pa.array(rows))
        at, day = _ints(table.column(AT).combine_chunks()), _ints(table.column(DAY).combine_chunks())
        return Part(table=table, time=Timeline(segment=self.segment[rows], at=at, day=day))


Kernel = Callable[[Chunk], Iterator[pa.RecordBatch]]


def asof_merge(
    queries: DataFrame,
    events: DataFrame,
    *,
    keys: Sequence[str],
    ties: Sequence[str] = (),
    kernel: Kernel,
    schema: StructType,
    chunk_rows: int = CHUNK_ROWS,
) -> DataFrame:
    """Runs `kernel` over chunks of whole keys.

    Args:
        queries: keys, AT, DAY and payload.
        events: keys, KIND, AT, DAY, ORDER and payload; `kind` says which table a row came from.
        keys: never null; both sides spell them alike.
        ties: payload columns that decide last between events of equal (kind, at, order), so that the result does
            not depend on how rows are partitioned.
        kernel: chunk → rows of `schema`; pickled to the workers.
        chunk_rows: fewer where rows are wide.
    """
    rows = events.unionByName(queries.withColumn(KIND, F.lit(QUERY)), allowMissingColumns=True)
    return by_keys(rows, keys=keys, ties=ties, kernel=partial(_if_asked, kernel), schema=schema, chunk_rows=chunk_rows)


def _if_asked(kernel: Kernel, chunk: Chunk) -> Iterator[pa.RecordBatch]:
    if (chunk.kind == QUERY).any():
        yield from kernel(chunk)


def by_keys(
    rows: DataFrame,
    *,
    keys: Sequence[str],
    ties: Sequence[str] = (),
    kernel: Kernel,
    schema: StructType,
    chunk_rows: int = CHUNK_ROWS,
) -> DataFrame:
    """Steps 2 to 5 over rows that have their KIND already; every chunk goes to the kernel, asked or not."""
    ordered = rows.repartition(*keys).sortWithinPartitions(*keys, KIND, AT, ORDER, *ties)
    return ordered.mapInArrow(partial(_merge_partition, tuple(keys), kernel, chunk_rows), schema)


def _merge_partition(
    keys: Sequence[str], kernel: Kernel, chunk_rows: int, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    for table in whole_key_tables(batches, keys, chunk_rows):
        kind = _ints(table.column(KIND).combine_chunks())
        yield from kernel(Chunk(table=table, segment=_segments(table, keys), kind=kind))


def whole_key_tables(batches: Iterable[pa.RecordBatch], keys: Sequence[str], chunk_rows: int) -> Iterator[pa.Table]:
    """Cuts sorted batches into tables of at least `chunk_rows` rows (the last: fewer) at borders between keys."""
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        if not batch.num_rows:
            continue
        border = _last_key_start(held[-1] if held else None, batch, keys)
        if border is not None and rows + border >= chunk_rows:
            yield pa.Table.from_batches([*held, batch.slice(0, border)])
            held, rows = [], 0
            batch = batch.slice(border)
        held.append(batch)
        rows += batch.num_rows
    if held:
        yield pa.Table.from_batches(held)


def _last_key_start(before: pa.RecordBatch | None, batch: pa.RecordBatch, keys: Sequence[str]) -> int | None:
    """Where the last key of the batch begins, or None when it began before the batch (or nothing is before)."""
    is_last = np.ones(batch.num_rows, dtype=bool)
    for key in keys:
        values = _ints(batch.column(key))
        is_last &= values == values[-1]
    start = int(is_last.argmax())
    if start:
        return start
    if before is None or all(before.column(key)[-1] == batch.column(key)[0] for key in keys):
        return None
    return 0


def _segments(table: pa.Table, keys: Sequence[str]) -> Int64s:
    changes = np.zeros(table.num_rows, dtype=bool)
    for key in keys:
        values = _ints(table.column(key).combine_chunks())
        changes[1:] |= values[1:] != values[:-1]
    return np.cumsum(changes)


def _ints(column: pa.Array) -> Int64s:
    if column.null_count:
        raise ValueError(f"{column.null_count} nulls in an integer column of an as-of merge")
    return np.asarray(pc.cast(column, pa.int64()).to_numpy(zero_copy_only=False))


def take_or_default(column: pa.Array, rows: Int64s, default: object) -> pa.Array:
    """column[rows]; `default` where rows is −1 or the value is null. Default None leaves null."""
    taken = column.take(pa.array(rows, mask=rows < 0))
    return taken if default is None else taken.fill_null(default)
