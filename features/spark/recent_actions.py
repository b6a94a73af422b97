"""The last actions of each user before a day: what sequences need of the days before D, and no more.

The state of D holds, per user and action of the catalog's sequences, of the actions that arrived before D:
the last `length` by (ts, action_id) among those with ts < start(D) − event_lag, which every impression of D sees; all
later ones, which only some see; none older than `max_age_days` at start(D). The category of an action's room, as of
the action, is attached once, when it arrives.

Each arrival day a has a TILE: the same of its own arrivals alone, as of a + 1. What is not among the last of its own
tile is not among the last of any state, so the state of D is that of an earlier day D0 and the tiles of [D0, D),
merged; or the tiles within reach alone. A late action merges by its ts either way.

    1. `action_events`                             → events (user_id, kind, at, day, order, anchor, category, value)
       or states and tiles, packed                 → one row per (user, action) with arrays
    2. hash by user; unpacked and merged by time   → chunks of whole users, events ascending in (user, kind, at, order)
    3. per day D: old and surplus ones cut off     → one row per (D, user, action), arrays oldest first
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DateType, DoubleType, LongType, StringType, StructField, StructType

from features.schema import Catalog
from features.spark.action_events import kind_number, kinds_of
from features.spark.asof_merge import AT, DAY, KIND, ORDER, Chunk, Int64s, Kernel, by_keys
from features.spark.event_time import DAY_MICROS, EPOCH, MICROS, day_number, day_starts
from features.spark.ops import ARRIVED

STATE_DAY = "dt"
ONE_DAY = dt.timedelta(days=1)
CHUNK_ROWS = 32_768
"""Rows of a chunk: a packed one stands for up to `length` events."""

_PACKED = {AT: "packed_at", ORDER: "packed_order", "anchor_id": "packed_anchor_id", "category": "packed_category"}
_PACKED |= {"value": "packed_value"}
_STATE = {AT: "at", ORDER: "action_id", "anchor_id": "anchor_id", "category": "category", "value": "value"}
"""Column of events → array column of packed rows, of the stored state."""

_SINGLE = {"anchor_id": "bigint", "category": "string", "value": "double"}
"""Columns that an event has besides its place in time; packed rows have them null."""

STATE_SCHEMA = StructType(
    [
        StructField(STATE_DAY, DateType()),
        StructField("user_id", LongType()),
        StructField("action", StringType()),
        *(StructField(name, ArrayType(LongType())) for name in ("at", "action_id", "anchor_id")),
        StructField("category", ArrayType(StringType())),
        StructField("value", ArrayType(DoubleType())),
    ]
)
"""`at` in micros since 1970 UTC; arrays of a row are aligned, oldest first, never empty."""


def kept_bounds(catalog: Catalog) -> dict[str, tuple[int, int]]:
    """Action → how many of its settled events are kept, and for how many days; in the order of `kinds_of`."""
    bounds: dict[str, tuple[int, int]] = {}
    for sequence in catalog.sequences:
        length, age = bounds.get(sequence.action, (0, 0))
        bounds[sequence.action] = (max(length, sequence.length), max(age, sequence.max_age_days))
    return bounds


def max_age_days(catalog: Catalog) -> int:
    """The longest reach of a sequence."""
    return max((sequence.max_age_days for sequence in catalog.sequences), default=0)


def action_tiles(catalog: Catalog, events: DataFrame, *, days: Sequence[dt.date], event_lag_s: int) -> DataFrame:
    """The tile of each arrival day of `days`, in one pass.

    Args:
        events: of `action_events`, of these arrival days; more do no harm.

    Returns:
        a: date, then the columns of STATE_SCHEMA but for dt; one row per (a, user, action) that has any.
    """
    kernel = _kernel(catalog, events, [day + ONE_DAY for day in days], event_lag_s, of_eve=True)
    return _run(kernel, events).select(F.date_sub(STATE_DAY, 1).alias(ARRIVED), *STATE_SCHEMA.names[1:])


def recent_actions(catalog: Catalog, stored: DataFrame, *, days: Sequence[dt.date], event_lag_s: int) -> DataFrame:
    """The state of each of `days`, in one pass.

    Args:
        stored: of `as_stored`: the tiles that arrived from min(days) − max_age_days to max(days) − 1; or the state of
            one day that is not later than min(days), and the tiles since.

    Returns:
        STATE_SCHEMA, one row per (D, user, action) that has any; the same from tiles alone and from a state.
    """
    kernel = _kernel(catalog, stored, days, event_lag_s, of_eve=False)
    return _run(kernel, packed(stored, kinds_of(catalog)))


def as_stored(tiles: DataFrame, state: DataFrame | None = None) -> DataFrame:
    """Tiles, and the state before them where there is one, as rows of STATE_SCHEMA: a tile is as of the day after."""
    rows = tiles.select(F.date_add(ARRIVED, 1).alias(STATE_DAY), *STATE_SCHEMA.names[1:])
    return rows if state is None else state.select(*STATE_SCHEMA.names).unionByName(rows)


def _kernel(
    catalog: Catalog, rows: DataFrame, days: Sequence[dt.date], event_lag_s: int, *, of_eve: bool
) -> RecentKernel:
    bounds = kept_bounds(catalog)
    return RecentKernel(
        days=tuple(((day - EPOCH).days, start) for day, start in day_starts(rows.sparkSession, days).items()),
        actions=tuple(kinds_of(catalog)),
        lengths=tuple(length for length, _ in bounds.values()),
        ages=tuple(age * DAY_MICROS for _, age in bounds.values()),
        lag=event_lag_s * MICROS,
        of_eve=of_eve,
    )


def _run(kernel: RecentKernel, rows: DataFrame) -> DataFrame:
    whole_users = partial(unpacked, kernel)
    return by_keys(rows, keys=("user_id",), kernel=whole_users, schema=STATE_SCHEMA, chunk_rows=CHUNK_ROWS)


def packed(state: DataFrame, kinds: Mapping[str, int]) -> DataFrame:
    """Rows of STATE_SCHEMA for a merge by user, still one per (dt, user, action); they arrived before their day.

    Returns:
        The columns of `action_events`, of which those of a single event are null, and packed arrays.
    """
    never = F.lit(0).cast("bigint")
    return state.where(F.col("action").isin(*kinds)).select(
        "user_id",
        kind_number(kinds).alias(KIND),
        never.alias(AT),
        (day_number(STATE_DAY) - 1).alias(DAY),
        never.alias(ORDER),
        *(F.lit(None).cast(sql_type).alias(name) for name, sql_type in _SINGLE.items()),
        *(F.col(name).alias(_PACKED[column]) for column, name in _STATE.items()),
    )


def unpacked(kernel: Kernel, chunk: Chunk) -> Iterator[pa.RecordBatch]:
    """Runs `kernel` on the chunk with its packed rows taken apart and merged with the others."""
    if _PACKED[AT] not in chunk.table.column_names:
        return kernel(chunk)
    lists = chunk.table.column(_PACKED[AT]).combine_chunks()
    is_packed = lists.is_valid().to_numpy(zero_copy_only=False)
    plain = chunk.table.filter(pa.array(~is_packed)).drop_columns(list(_PACKED.values()))
    if not is_packed.any():
        return kernel(Chunk(table=plain, segment=chunk.segment, kind=chunk.kind))
    whole = chunk.table.filter(pa.array(is_packed))
    lengths = whole.column(_PACKED[AT]).combine_chunks().value_lengths().to_numpy(zero_copy_only=False)
    repeated = whole.select(["user_id", KIND, DAY]).take(pa.array(np.repeat(np.arange(whole.num_rows), lengths)))
    for column, name in _PACKED.items():
        repeated = repeated.append_column(column, whole.column(name).combine_chunks().flatten())
    table = pa.concat_tables([plain, repeated.cast(_fields_of(plain, repeated))], promote_options="default")
    segment = np.concatenate((chunk.segment[~is_packed], np.repeat(chunk.segment[is_packed], lengths)))
    kind = np.concatenate((chunk.kind[~is_packed], np.repeat(chunk.kind[is_packed], lengths)))
    order = np.lexsort((_int64s(table, ORDER), _int64s(table, AT), kind, segment))
    return kernel(Chunk(table=table.take(pa.array(order)), segment=segment[order], kind=kind[order]))


def _fields_of(plain: pa.Table, rows: pa.Table) -> pa.Schema:
    return pa.schema([plain.schema.field(name) for name in rows.column_names])


def _int64s(table: pa.Table, name: str) -> Int64s:
    """A column as int64; null (only queries have nulls, in ORDER) becomes 0."""
    return np.asarray(table.column(name).combine_chunks().cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False))


@dataclass(frozen=True, kw_only=True)
class RecentKernel:
    """States of a chunk of whole users.

    Attributes:
        days: (day number, micros of its start) of every D.
        actions, lengths, ages: of each kind: its name, how many settled events stay, micros that an event lives.
        lag: event_lag in micros.
        of_eve: whether only what arrived on the day before counts.
    """

    days: tuple[tuple[int, int], ...]
    actions: tuple[str, ...]
    lengths: tuple[int, ...]
    ages: tuple[int, ...]
    lag: int
    of_eve: bool

    def __call__(self, chunk: Chunk) -> Iterator[pa.RecordBatch]:
        at, arrived = _int64s(chunk.table, AT), _int64s(chunk.table, DAY)
        group = chunk.segment * len(self.actions) + chunk.kind
        ages, lengths = np.array(self.ages)[chunk.kind], np.array(self.lengths)[chunk.kind]
        for day, start in self.days:
            is_known = arrived == day - 1 if self.of_eve else arrived < day
            rows = np.flatnonzero(is_known & (at >= start - ages))
            is_settled = at[rows] < start - self.lag
            rows = rows[~is_settled | (_later_in_group(group[rows], is_settled) < lengths[rows])]
            if rows.size:
                yield self._batch(chunk, day, rows, group[rows])

    def _batch(self, chunk: Chunk, day: int, rows: Int64s, group: Int64s) -> pa.RecordBatch:
        """One row per group from event numbers `rows` [E] in order."""
        first = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
        offsets = pa.array(np.append(first, rows.size).astype(np.int32))
        kept = chunk.table.take(pa.array(rows))
        actions = pa.array(self.actions).take(pa.array(chunk.kind[rows[first]]))
        columns = [
            pa.array(np.full(first.size, day, dtype=np.int32)).cast(pa.date32()),
            kept.column("user_id").combine_chunks().take(pa.array(first)),
            actions,
            *(pa.ListArray.from_arrays(offsets, kept.column(name).combine_chunks()) for name in _STATE),
        ]
        return pa.RecordBatch.from_arrays(columns, names=STATE_SCHEMA.names)


def _later_in_group(group: Int64s, is_settled: NDArray[np.bool_]) -> Int64s:
    """How many settled events of its group come after each event; `group` ascends."""
    after = is_settled.sum() - np.cumsum(is_settled)
    last = np.flatnonzero(np.append(group[1:] != group[:-1], True)) if group.size else np.zeros(0, dtype=np.int64)
    sizes = np.diff(np.append(-1, last))
    return np.asarray(after - np.repeat(after[last], sizes), dtype=np.int64)
