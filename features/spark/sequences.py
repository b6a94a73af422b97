"""Event time: the last actions of a user before each impression (`SequenceFeature` of the catalog).

1. actions of the catalog's sequences ⋈ rooms, as of the action   → actions with the category of their room
2. impressions ⋈ actions of the user, as of the impression        → per impression the last L events of each kind
3. gathered by index arithmetic, newest first                     → one ragged array per sequence field
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, LongType, StringType, StructField, StructType

from features.schema import Catalog, sequence_name
from features.spark.asof_merge import (
    AT,
    DAY,
    KIND,
    ORDER,
    QUERY,
    Chunk,
    Int64s,
    Part,
    Prefixes,
    asof_merge,
    days_of,
    last_visible,
    take_or_default,
    visible,
)
from features.spark.event_time import (
    DAY_MICROS,
    MICROS,
    action_complete_at,
    business_day,
    cutoff,
    day_number,
    room_row_complete_at,
)
from features.spec import DType, SequenceFeature

QUERY_ROWS = 16_384
"""Impressions per output batch: bounds the memory of a user with very many."""

_VALUES = {"watch_ms": 1000, "coins": 1}  # source → scale of the action's value


def sequences(
    catalog: Catalog, impressions: DataFrame, actions: DataFrame, rooms: DataFrame, event_lag_s: int
) -> DataFrame:
    """Each impression's sequences; many days in one pass.

    An impression of day D sees the user's actions with dt ≤ D and ts < impression ts − event_lag, the last
    `length` by (ts, action_id), none older than `max_age_days` before the impression.

    Args:
        impressions: impression_id, user_id, ts.
        actions: raw, dt from D − max_age_days to D for every D.
        rooms: raw; the category of an event is the room's as of the event (arrived by the action's dt, complete
            by its ts), so that nothing of a later end of the room is seen.

    Returns:
        impression_id and, per sequence field, array<bigint> or array<string>, newest first; empty without events.
        Fields of one sequence are aligned. Unknown categories are ''.
    """
    kinds = {action: kind for kind, action in enumerate(dict.fromkeys(s.action for s in catalog.sequences))}
    sources: set[str] = {field.source for sequence in catalog.sequences for field in sequence.fields}
    events = _events(actions, kinds, sources)
    if "category" in sources:
        events = _with_category_then(events, rooms)
    queries = impressions.select(
        "user_id",
        "impression_id",
        cutoff(event_lag_s).alias(AT),
        day_number(business_day()).alias(DAY),
    )
    kernel = SequenceKernel(sequences=catalog.sequences, kinds=kinds, lag=event_lag_s * MICROS)
    return asof_merge(queries, events, keys=("user_id",), kernel=kernel, schema=output_schema(catalog))


def output_schema(catalog: Catalog) -> StructType:
    """impression_id, then the sequence fields in catalog order."""
    element = {DType.BIGINT: LongType(), DType.STRING: StringType()}
    return StructType(
        [
            StructField("impression_id", LongType()),
            *(
                StructField(sequence_name(sequence.name, field.name), ArrayType(element[field.dtype]))
                for sequence in catalog.sequences
                for field in sequence.fields
            ),
        ]
    )


def _events(actions: DataFrame, kinds: dict[str, int], sources: set[str]) -> DataFrame:
    values = [_value(scale).alias(source) for source, scale in _VALUES.items() if source in sources]
    kind = F.coalesce(*(F.when(F.col("action") == action, F.lit(kind)) for action, kind in kinds.items()))
    return actions.where(F.col("action").isin(*kinds)).select(
        "user_id",
        "room_id",
        "anchor_id",
        kind.alias(KIND),
        action_complete_at().alias(AT),
        day_number("dt").alias(DAY),
        F.col("action_id").alias(ORDER),
        *values,
    )


def _value(scale: int) -> Column:
    return F.round(F.coalesce(F.col("value"), F.lit(0.0)) * scale).cast("bigint")


def _with_category_then(events: DataFrame, rooms: DataFrame) -> DataFrame:
    """`events` with `category`: of the newest row of the room that arrived and was complete by the event."""
    rows = rooms.select(
        "room_id",
        F.lit(0).alias(KIND),
        room_row_complete_at().alias(AT),
        day_number("dt").alias(DAY),
        day_number("dt").cast("bigint").alias(ORDER),
        "category",
    )
    # The merge is strict, and a room's row counts for an event of the same instant: one microsecond later.
    queries = events.withColumnRenamed(KIND, "action_kind").withColumn(AT, F.col(AT) + 1)
    schema = StructType([*queries.schema.fields, StructField("category", StringType())])
    attached = asof_merge(
        queries,
        rows,
        keys=("room_id",),
        ties=("category",),
        kernel=CategoryKernel(columns=tuple(schema.names)),
        schema=schema,
    )
    return attached.withColumn(AT, F.col(AT) - 1).withColumnRenamed("action_kind", KIND)


@dataclass(frozen=True, kw_only=True)
class CategoryKernel:
    """Passes the queries' columns through and adds the category of the newest visible rooms row, '' without one."""

    columns: tuple[str, ...]

    def __call__(self, chunk: Chunk) -> Iterator[pa.RecordBatch]:
        asked, rows = chunk.part(QUERY), chunk.part(0)
        category = take_or_default(rows.column("category"), last_visible(asked.time, rows.time), "")
        passed = [asked.column(name) for name in self.columns[:-1]]
        yield pa.RecordBatch.from_arrays([*passed, category], names=list(self.columns))


@dataclass(frozen=True, kw_only=True)
class SequenceKernel:
    """Ragged sequences of a chunk of users; `kinds` numbers the actions, `lag` is event_lag in micros."""

    sequences: tuple[SequenceFeature, ...]
    kinds: dict[str, int]
    lag: int

    def __call__(self, chunk: Chunk) -> Iterator[pa.RecordBatch]:
        asked = chunk.part(QUERY)
        ids = asked.ints("impression_id")
        events = {action: _Events.of(chunk.part(kind), self.sequences) for action, kind in self.kinds.items()}
        for day, of_day in days_of(asked.time):
            queries = asked.time.take(of_day)
            shown = queries.at + self.lag
            seen = [
                visible(queries, events[sequence.action].part.time, day).not_before(
                    shown - sequence.max_age_days * DAY_MICROS
                )
                for sequence in self.sequences
            ]
            for first in range(0, of_day.size, QUERY_ROWS):
                rows = slice(first, first + QUERY_ROWS)
                yield self._batch(ids[of_day[rows]], shown[rows], rows, seen, events)

    def _batch(
        self, ids: Int64s, shown: Int64s, rows: slice, seen: list[Prefixes], events: dict[str, _Events]
    ) -> pa.RecordBatch:
        columns, names = [pa.array(ids)], ["impression_id"]
        for sequence, prefixes in zip(self.sequences, seen, strict=True):
            taken, offsets = prefixes.newest_first(sequence.length, rows)
            for field in sequence.fields:
                values = events[sequence.action].values(field.source, taken, np.repeat(shown, np.diff(offsets)))
                columns.append(pa.ListArray.from_arrays(pa.array(offsets), values))
                names.append(sequence_name(sequence.name, field.name))
        return pa.RecordBatch.from_arrays(columns, names=names)


@dataclass(frozen=True, kw_only=True)
class _Events:
    """The actions of one kind in a chunk, with the columns that sequences need of them."""

    part: Part
    columns: dict[str, pa.Array]

    @staticmethod
    def of(part: Part, sequences: tuple[SequenceFeature, ...]) -> _Events:
        sources = {field.source for sequence in sequences for field in sequence.fields}
        return _Events(part=part, columns={source: part.column(source) for source in sources if source != "age_s"})

    def values(self, source: str, rows: Int64s, shown: Int64s) -> pa.Array:
        """The attribute `source` of events `rows` for impressions at `shown`, aligned and flat."""
        if source == "age_s":
            return pa.array((shown - self.part.time.at[rows]) // MICROS)
        return self.columns[source].take(pa.array(rows))
