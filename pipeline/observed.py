"""What is seen of rows while they are written: one pass gives counts and the content digest of every day."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence

from pyspark.sql import Column
from pyspark.sql import functions as F


def observed_columns(
    days: Sequence[datetime.date], day_column: str, columns: Sequence[str], counted: Sequence[str]
) -> list[Column]:
    """Aggregates of one pass, per day: rows, two order-free sums of row hashes, sums of counted columns."""
    row_hash = F.xxhash64(*[F.col(name) for name in columns])
    expressions = []
    for index, day in enumerate(days):
        here = F.col(day_column) == F.lit(day)
        # Two 32-bit halves: their sums stay exact in 64 bits up to 2^31 rows a day.
        high = F.when(here, F.shiftrightunsigned(row_hash, 32))
        low = F.when(here, row_hash.bitwiseAND(F.lit(0xFFFFFFFF)))
        expressions += [
            F.count(F.when(here, F.lit(1))).alias(f"rows_{index}"),
            F.sum(high).alias(f"high_{index}"),
            F.sum(low).alias(f"low_{index}"),
            *(F.sum(F.when(here, F.col(name))).alias(f"{name}_{index}") for name in counted),
        ]
    return expressions


def content_digest(observed: Mapping[str, int | None], index: int) -> str:
    parts = [int(observed[f"{name}_{index}"] or 0) for name in ("rows", "high", "low")]
    return "-".join(f"{part & 0xFFFFFFFFFFFFFFFF:x}" for part in parts)
