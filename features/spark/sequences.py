"""Event time: the last actions of a user before each impression (`SequenceFeature` of the catalog).

1. actions as events, with the category of their room          → `action_events.action_events`
   ∪ what arrived before the first day, packed                 → of users who are asked for, rows of (user, action)
2. impressions ⋈ events of the user, as of the impression      → per impression the last L events of each kind
3. gathered by index arithmetic, newest first                  → one ragged array per sequence field
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql.types import ArrayType, LongType, StringType, StructField, StructType

from features.schema import Catalog, sequence_name
from features.spark.action_events import action_events, kinds_of
from features.spark.asof_merge import AT, DAY, QUERY, Chunk, Int64s, Part, Prefixes, asof_merge, days_of, visible
from features.spark.event_time import DAY_MICROS, MICROS, business_day, cutoff, day_number
from features.spark.recent_actions import CHUNK_ROWS, packed, unpacked
from features.spec import DType, SequenceFeature

QUERY_ROWS = 16_384
"""Impressions per output batch: bounds the memory of a user with very many."""

_SCALES = {"watch_ms": 1000, "coins": 1}
"""Source → how many units one unit of an action's value has."""


def sequences(
    catalog: Catalog,
    impressions: DataFrame,
    actions: DataFrame,
    rooms: DataFrame,
    event_lag_s: int,
    recent: DataFrame | None = None,
    max_room_age_days: int | None = None,
) -> DataFrame:
    """Each impression's sequences; many days in one pass.

    An impression of day D sees the user's actions with dt ≤ D and ts < impression ts − event_lag, the last
    `length` by (ts, action_id), none older than `max_age_days` before the impression.

    Args:
        impressions: impression_id, user_id, ts.
        actions: raw, to the last day D; from the first day D on with `recent`, from D − max_age_days on without.
        rooms: raw; the category of an event is the room's as of the event (arrived by the action's dt, complete
            by its ts), so that nothing of a later end of the room is seen.
        recent: what arrived before the first day D, of `recent_actions.as_stored`; rows of other users do no harm.
        max_room_age_days: rows of a room that arrived longer before the action did do not count; None for no bound.

    Returns:
        impression_id and, per sequence field, array<bigint> or array<string>, newest first; empty without events.
        Fields of one sequence are aligned. Unknown categories are ''.
    """
    kinds = kinds_of(catalog)
    events = action_events(catalog, actions, rooms, max_room_age_days)
    queries = impressions.select(
        "user_id",
        "impression_id",
        cutoff(event_lag_s).alias(AT),
        day_number(business_day()).alias(DAY),
    )
    if recent is not None:
        # Most users of a state were shown nothing on these days: they are left out before rows are moved.
        asked = queries.select("user_id").distinct().hint("shuffle_hash")
        of_asked = packed(recent, kinds).join(asked, on="user_id", how="left_semi")
        events = events.unionByName(of_asked, allowMissingColumns=True)
    kernel = SequenceKernel(sequences=catalog.sequences, kinds=kinds, lag=event_lag_s * MICROS)
    return asof_merge(
        queries,
        events,
        keys=("user_id",),
        kernel=partial(unpacked, kernel),
        schema=output_schema(catalog),
        chunk_rows=CHUNK_ROWS,
    )


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
        columns: dict[str, pa.Array] = {
            source: part.column(source) for source in sources if source not in (*_SCALES, "age_s")
        }
        values = part.column("value").to_numpy(zero_copy_only=False)
        columns |= {source: pa.array(units(values, _SCALES[source])) for source in sources if source in _SCALES}
        return _Events(part=part, columns=columns)

    def values(self, source: str, rows: Int64s, shown: Int64s) -> pa.Array:
        """The attribute `source` of events `rows` for impressions at `shown`, aligned and flat."""
        if source == "age_s":
            return pa.array((shown - self.part.time.at[rows]) // MICROS)
        return self.columns[source].take(pa.array(rows))


def units(values: NDArray[np.float64], per_unit: int) -> Int64s:
    """Whole units of 1 / per_unit, halves away from zero, as Spark's round has them."""
    scaled = np.abs(values * per_unit)
    whole = np.floor(scaled)
    return np.asarray(np.copysign(whole + (scaled - whole >= 0.5), values), dtype=np.int64)
