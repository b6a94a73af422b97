"""What an impression may see of the raw tables, naively: one row at a time, over naive local timestamps."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import pandas as pd

Row = dict[Hashable, Any]


def rows_of(frame: pd.DataFrame) -> list[Row]:
    """The rows as dictionaries, nulls of every kind as None."""
    return [{name: _null_free(value) for name, value in row.items()} for row in frame.to_dict("records")]


def _null_free(value: Any) -> Any:
    return None if not isinstance(value, list) and pd.isna(value) else value


def units(value: float, per_unit: int) -> int:
    """Whole units of 1 / per_unit, halves up."""
    return math.floor(value * per_unit + 0.5)


def happened(room_row: Row) -> pd.Timestamp:
    """When a rooms row was written: at the start, or at the end where it names one."""
    started: pd.Timestamp = room_row["started_at"]
    return started if room_row["ended_at"] is None else max(started, room_row["ended_at"])


def newest_room_row(rows: list[Row], ties: tuple[str, ...]) -> Row | None:
    """By (happened, arrival), then by the values themselves, null lowest."""
    return max(rows, key=lambda row: (happened(row), row["dt"], [_order(row[name]) for name in ties]), default=None)


def _order(value: Any) -> tuple[Any, ...]:
    return () if value is None else (value,)
