"""What Parquet's footers know of columns: nulls, smallest and largest value, at no cost beside reading them.

A footer leaves the extremes out when a column holds NaN; how many there are is in its histogram.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow.parquet as pq


@dataclass(frozen=True, kw_only=True)
class Span:
    """Nulls of a column, and the range of its numbers; None where it has none, or is of another type."""

    nulls: int
    low: float | None = None
    high: float | None = None


def column_spans(metadata: pq.FileMetaData) -> dict[str, Span]:
    """Column → span, of one file; columns within arrays and structs are left out."""
    found: dict[str, Span] = {}
    flat = [index for index in range(metadata.num_columns) if metadata.schema.column(index).max_definition_level <= 1]
    names = {index: metadata.schema.column(index).path for index in flat}
    for group in (metadata.row_group(index) for index in range(metadata.num_row_groups)):
        spans = {name: _span(group.column(index).statistics) for index, name in names.items() if "." not in name}
        found = merged([found, spans])
    return found


def _span(statistics: pq.Statistics | None) -> Span:
    if statistics is None:
        return Span(nulls=0)
    nulls = statistics.null_count if statistics.has_null_count else 0
    if not statistics.has_min_max or not _is_number(statistics.min) or not _is_number(statistics.max):
        return Span(nulls=nulls)
    return Span(nulls=nulls, low=float(statistics.min), high=float(statistics.max))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def merged(parts: Iterable[Mapping[str, Span]]) -> dict[str, Span]:
    """Spans of several files, or row groups, as of one."""
    found: dict[str, Span] = {}
    for part in parts:
        for name, span in part.items():
            other = found.get(name, Span(nulls=0))
            lows = [low for low in (span.low, other.low) if low is not None]
            highs = [high for high in (span.high, other.high) if high is not None]
            found[name] = Span(
                nulls=span.nulls + other.nulls, low=min(lows, default=None), high=max(highs, default=None)
            )
    return found
