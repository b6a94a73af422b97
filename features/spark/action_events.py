"""Raw actions as events that sequences and the last actions are made of, with what was known of their rooms then.

actions of the catalog's sequences                    one row per action, its kind numbered
⋈ rooms, as of the action, by room and time           its category, as it was known when the action arrived
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from features.schema import Catalog
from features.spark.asof_merge import (
    AT,
    DAY,
    KIND,
    ORDER,
    QUERY,
    Chunk,
    asof_merge,
    last_visible,
    take_or_default,
)
from features.spark.event_time import action_complete_at, day_number, room_row_complete_at


def kinds_of(catalog: Catalog) -> dict[str, int]:
    """Numbers the actions that some sequence is made of."""
    return {action: kind for kind, action in enumerate(dict.fromkeys(s.action for s in catalog.sequences))}


def kind_number(kinds: Mapping[str, int]) -> Column:
    """The number of column `action` in `kinds`, null where it has none; kinds may be empty."""
    numbers = [F.when(F.col("action") == action, F.lit(kind)) for action, kind in kinds.items()]
    return F.coalesce(*numbers, F.lit(None).cast("int"))


def action_events(
    catalog: Catalog, actions: DataFrame, rooms: DataFrame, max_room_age_days: int | None = None
) -> DataFrame:
    """Raw actions as events of a merge by user, with the category that the rooms table gave them when they arrived.

    Args:
        actions: raw.
        rooms: raw, dt up to that of the last action.
        max_room_age_days: rows of a room that arrived longer before the action did do not count; None for no bound.

    Returns:
        user_id, KIND, AT, DAY, ORDER (action_id), anchor_id, category ('' unknown), value (0 for null).
    """
    kinds = kinds_of(catalog)
    events = actions.where(F.col("action").isin(*kinds)).select(
        "user_id",
        "room_id",
        "anchor_id",
        kind_number(kinds).alias("action_kind"),
        action_complete_at().alias(AT),
        day_number("dt").alias(DAY),
        F.col("action_id").alias("action_order"),
        F.coalesce("value", F.lit(0.0)).alias("value"),
    )
    with_category = _with_category_then(events, rooms, max_room_age_days)
    return with_category.select(
        "user_id",
        F.col("action_kind").alias(KIND),
        (F.col(AT) - 1).alias(AT),
        DAY,
        F.col("action_order").alias(ORDER),
        "anchor_id",
        "category",
        "value",
    )


def _with_category_then(events: DataFrame, rooms: DataFrame, max_room_age_days: int | None) -> DataFrame:
    """`events` one microsecond later with `category`: of the newest rooms row that arrived and was complete by then.

    The merge is strict, and a room's row counts for an event of the same instant: hence the microsecond.
    """
    rows = rooms.select(
        "room_id",
        F.lit(0).alias(KIND),
        room_row_complete_at().alias(AT),
        day_number("dt").alias(DAY),
        day_number("dt").cast("bigint").alias(ORDER),
        "category",
    )
    queries = events.withColumn(AT, F.col(AT) + 1)
    schema = StructType([*queries.schema.fields, StructField("category", StringType())])
    kernel = CategoryKernel(columns=tuple(schema.names), max_room_age_days=max_room_age_days)
    return asof_merge(queries, rows, keys=("room_id",), ties=("category",), kernel=kernel, schema=schema)


@dataclass(frozen=True, kw_only=True)
class CategoryKernel:
    """Passes the queries' columns through and adds the category of the newest visible rooms row, '' without one."""

    columns: tuple[str, ...]
    max_room_age_days: int | None

    def __call__(self, chunk: Chunk) -> Iterator[pa.RecordBatch]:
        asked, rows = chunk.part(QUERY), chunk.part(0)
        newest = last_visible(asked.time, rows.time, self.max_room_age_days)
        category = take_or_default(rows.column("category"), newest, "")
        passed = [asked.column(name) for name in self.columns[:-1]]
        yield pa.RecordBatch.from_arrays([*passed, category], names=list(self.columns))
