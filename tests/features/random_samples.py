"""Random samples of the real catalog: any column, right type, labels that features can learn."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from features.schema import Catalog, label_name, mask_name

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FIRST_DAY = datetime.date(2025, 3, 1)


def days(count: int) -> list[datetime.date]:
    """Consecutive days from FIRST_DAY."""
    return [FIRST_DAY + datetime.timedelta(days=offset) for offset in range(count)]


def sample_rows(
    catalog: Catalog, its_days: Sequence[datetime.date], per_day: int, seed: int = 0
) -> list[tuple[Any, ...]]:
    """Rows in the order of `catalog.sample_columns()`; `enter` follows the first dense feature."""
    random = np.random.default_rng(seed)
    return [
        _row(catalog, day, (1 << 58) + place * per_day + index, random)
        for place, day in enumerate(its_days)
        for index in range(per_day)
    ]


def _row(catalog: Catalog, day: datetime.date, impression: int, random: np.random.Generator) -> tuple[Any, ...]:
    entered = int(random.random() < 0.4)
    midnight = datetime.datetime.combine(day, datetime.time())
    values: dict[str, Any] = {
        "impression_id": impression,
        "user_id": int(random.integers(1, 20)) << 55,
        "anchor_id": int(random.integers(1, 12)) << 54,
        "room_id": int(random.integers(1, 30)),
        "ts": midnight + datetime.timedelta(seconds=int(random.integers(0, 86_400))),
        "dt": day,
    }
    for feature in catalog.features:
        values.setdefault(feature.name, _value(feature.dtype.value, random, entered))
    for sequence in catalog.sequences:
        length = int(random.integers(0, 4))
        for field in sequence.fields:
            values[f"{sequence.name}_{field.name}"] = [
                int(random.integers(1, 12)) << 54 if field.source == "anchor_id" else _value(field.dtype.value, random)
                for _ in range(length)
            ]
    for label in catalog.labels:
        judged = 1 if label.space == "impressions" else entered
        positive = entered if label.name == "enter" else int(judged and random.random() < 0.5)
        values |= {label_name(label.name): positive, mask_name(label.name): judged}
    return tuple(values[column.name] for column in catalog.sample_columns())


def _value(sql_type: str, random: np.random.Generator, signal: int = 0) -> Any:
    if sql_type == "string":
        return ["", "a", "b", "c"][int(random.integers(0, 4))]
    if sql_type == "bigint":
        return int(random.integers(0, 20)) + 3 * signal
    if sql_type == "double":
        return float(random.random()) + 0.1 * signal
    return [float(x) for x in random.random(8)] if random.random() < 0.8 else None


def sample_frame(spark: SparkSession, catalog: Catalog, rows: list[tuple[Any, ...]]) -> DataFrame:
    """The rows as Spark has them."""
    ddl = ", ".join(f"`{column.name}` {column.sql_type}" for column in catalog.sample_columns())
    return spark.createDataFrame(rows, ddl)
