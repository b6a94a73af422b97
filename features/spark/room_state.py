"""Event time: the room as it stood when it was shown (`RoomOp` features of the catalog).

1. room_stats minutes ∪ rooms rows, per room in time order     → events of two kinds
2. as-of merge with the impressions of the room                → per impression the newest visible row of each
   kind, and running sums of minutes
3. features by index arithmetic, the catalog's default without a visible row
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, DoubleType, FloatType, LongType, StringType, StructField, StructType

from features.schema import Catalog
from features.spark.asof_merge import (
    AT,
    DAY,
    KIND,
    ORDER,
    QUERY,
    Chunk,
    Int64s,
    Part,
    asof_merge,
    last_visible,
    take_or_default,
    visible_sum,
)
from features.spark.event_time import (
    MICROS,
    MINUTE_MICROS,
    business_day,
    cutoff,
    day_number,
    micros,
    minute_complete_at,
    room_row_complete_at,
)
from features.spec import DType, Entity, Feature, RoomAge, RoomField, RoomLast, RoomSum

MINUTES, ROOM_ROWS = 0, 1
STARTED = "started_micros"

_SPARK_TYPES: dict[DType, DataType] = {
    DType.BIGINT: LongType(),
    DType.DOUBLE: DoubleType(),
    DType.STRING: StringType(),
    DType.VECTOR: ArrayType(FloatType()),
}
_ARROW_TYPES = {
    DType.BIGINT: pa.int64(),
    DType.DOUBLE: pa.float64(),
    DType.STRING: pa.string(),
    DType.VECTOR: pa.list_(pa.float32()),
}


def room_state(
    catalog: Catalog,
    impressions: DataFrame,
    room_stats: DataFrame,
    rooms: DataFrame,
    event_lag_s: int,
    max_room_age_days: int | None = None,
) -> DataFrame:
    """Each impression's room features; many days in one pass.

    An impression of day D at ts sees, of its room and with dt ≤ D, the minutes with minute + 60 s < ts − event_lag
    and the rooms rows that happened (started, or ended where `ended_at` is set) before ts − event_lag; the newest
    by (happened, dt) counts.

    Args:
        impressions: impression_id, room_id, ts.
        room_stats, rooms: raw.
        max_room_age_days: rows of a room that arrived longer before D do not count; None for no bound.

    Returns:
        impression_id and the features of Entity.ROOM, in catalog order, defaults where nothing is visible; only a
        vector may be null.
    """
    features = catalog.of_entity(Entity.ROOM)
    queries = impressions.select(
        "room_id", "impression_id", cutoff(event_lag_s).alias(AT), day_number(business_day()).alias(DAY)
    )
    fields = {_field_column(f): _cast(f) for f in features if isinstance(f.op, RoomField)}
    events = _minutes(room_stats, features).unionByName(_room_rows(rooms, fields), allowMissingColumns=True)
    return asof_merge(
        queries,
        events,
        keys=("room_id",),
        ties=(STARTED, *fields),
        kernel=RoomKernel(features=features, lag=event_lag_s * MICROS, max_room_age_days=max_room_age_days),
        schema=StructType(
            [StructField("impression_id", LongType()), *(StructField(f.name, _SPARK_TYPES[f.dtype]) for f in features)]
        ),
    )


def _minutes(room_stats: DataFrame, features: tuple[Feature, ...]) -> DataFrame:
    counted = dict.fromkeys(f.op.column for f in features if isinstance(f.op, RoomLast | RoomSum))
    return room_stats.select(
        "room_id",
        F.lit(MINUTES).alias(KIND),
        minute_complete_at().alias(AT),
        day_number("dt").alias(DAY),
        day_number("dt").cast("bigint").alias(ORDER),
        *(F.coalesce(F.col(column), F.lit(0)).cast("bigint").alias(column) for column in counted),
    )


def _room_rows(rooms: DataFrame, fields: dict[str, Column]) -> DataFrame:
    return rooms.select(
        "room_id",
        F.lit(ROOM_ROWS).alias(KIND),
        room_row_complete_at().alias(AT),
        day_number("dt").alias(DAY),
        day_number("dt").cast("bigint").alias(ORDER),
        micros("started_at").alias(STARTED),
        *(value.alias(name) for name, value in fields.items()),
    )


def _field_column(feature: Feature) -> str:
    return f"field_{feature.name}"


def _cast(feature: Feature) -> Column:
    assert isinstance(feature.op, RoomField)
    return F.col(feature.op.column).cast(_SPARK_TYPES[feature.dtype])


@dataclass(frozen=True, kw_only=True)
class RoomKernel:
    """Room features of a chunk of rooms; `lag` is event_lag in micros."""

    features: tuple[Feature, ...]
    lag: int
    max_room_age_days: int | None

    def __call__(self, chunk: Chunk) -> Iterator[pa.RecordBatch]:
        asked, minutes, rows = chunk.part(QUERY), chunk.part(MINUTES), chunk.part(ROOM_ROWS)
        last_minute = last_visible(asked.time, minutes.time)
        last_row = last_visible(asked.time, rows.time, self.max_room_age_days)
        columns = [
            self._values(feature, asked, minutes, rows, last_minute, last_row).cast(_ARROW_TYPES[feature.dtype])
            for feature in self.features
        ]
        names = ["impression_id", *(feature.name for feature in self.features)]
        yield pa.RecordBatch.from_arrays([asked.column("impression_id"), *columns], names=names)

    def _values(
        self, feature: Feature, asked: Part, minutes: Part, rows: Part, last_minute: Int64s, last_row: Int64s
    ) -> pa.Array:
        match feature.op:
            case RoomLast(column=column, minutes=span):
                recent = _within(asked, minutes, last_minute, span)
                return take_or_default(minutes.column(column), recent, feature.default)
            case RoomSum(column=column, minutes=span):
                total = visible_sum(asked.time, minutes.time, minutes.ints(column), span * MINUTE_MICROS)
                recent = _within(asked, minutes, last_minute, span)
                return pa.array(total, mask=recent < 0).fill_null(feature.default)
            case RoomField():
                return take_or_default(rows.column(_field_column(feature)), last_row, feature.default)
            case RoomAge():
                shown = asked.time.at + self.lag
                started = np.append(rows.ints(STARTED), 0)[last_row]
                return pa.array((shown - started) // MINUTE_MICROS, mask=last_row < 0).fill_null(feature.default)
        raise TypeError(f"{feature.name}: {type(feature.op).__name__} is no operation on rooms")


def _within(asked: Part, minutes: Part, last: Int64s, span: int) -> Int64s:
    """`last` where that minute was complete within the last `span` minutes before the cutoff, else −1."""
    complete_at = np.append(minutes.time.at, 0)[last]
    return np.where((last >= 0) & (complete_at > asked.time.at - span * MINUTE_MICROS), last, -1)
