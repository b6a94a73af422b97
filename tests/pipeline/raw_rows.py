"""Small raw tables by hand, and writers that keep or break the contract on purpose."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq

ZONE = "Asia/Shanghai"
DAY = dt.date(2025, 5, 5)

ARROW_TYPES: Mapping[str, Mapping[str, pa.DataType]] = {
    "impressions": {
        **dict.fromkeys(("impression_id", "user_id", "anchor_id", "room_id"), pa.int64()),
        "ts": pa.timestamp("us", tz="UTC"),
        "scene": pa.string(),
        "device": pa.string(),
        "position": pa.int32(),
    },
    "actions": {
        **dict.fromkeys(("action_id", "impression_id", "user_id", "anchor_id", "room_id"), pa.int64()),
        "ts": pa.timestamp("us", tz="UTC"),
        "action": pa.string(),
        "value": pa.float64(),
    },
    "users": {
        "user_id": pa.int64(),
        "gender": pa.string(),
        "city": pa.string(),
        "device": pa.string(),
        "age": pa.int32(),
        "registered_on": pa.date32(),
    },
    "anchors": {
        "anchor_id": pa.int64(),
        "gender": pa.string(),
        "city": pa.string(),
        "category": pa.string(),
        "age": pa.int32(),
        "level": pa.int32(),
        "signed_on": pa.date32(),
    },
    "rooms": {
        "room_id": pa.int64(),
        "anchor_id": pa.int64(),
        "started_at": pa.timestamp("us", tz="UTC"),
        "ended_at": pa.timestamp("us", tz="UTC"),
        "category": pa.string(),
        "tags": pa.list_(pa.string()),
        "content": pa.list_(pa.float32()),
    },
    "room_stats": {
        "room_id": pa.int64(),
        "minute": pa.timestamp("us", tz="UTC"),
        **dict.fromkeys(("viewers", "entries", "comments", "gift_coins"), pa.int64()),
    },
}


def at(day_offset: int, hour: int = 12, minute: int = 0) -> dt.datetime:
    """A moment in the business zone, days after DAY."""
    day = DAY + dt.timedelta(days=day_offset)
    return dt.datetime(day.year, day.month, day.day, hour, minute, tzinfo=ZoneInfo(ZONE))


def impression(impression_id: int, ts: dt.datetime, **changed: object) -> dict[str, object]:
    row = {"impression_id": impression_id, "user_id": 1, "anchor_id": 2, "room_id": 3, "ts": ts, "position": 0}
    return {**row, "scene": "feed", "device": "phone", **changed}


def action(action_id: int, ts: dt.datetime, **changed: object) -> dict[str, object]:
    row = {"action_id": action_id, "impression_id": None, "user_id": 1, "anchor_id": 2, "room_id": 3, "ts": ts}
    return {**row, "action": "enter", "value": 1.0, **changed}


def put_day(
    warehouse: Path,
    table: str,
    day: dt.date,
    rows: Sequence[Mapping[str, Any]],
    *,
    types: Mapping[str, pa.DataType] | None = None,
    marker: bool = True,
) -> Path:
    """Writes one raw day with pyarrow, independent of the code under test. `types` replaces or adds columns."""
    folder = warehouse / "raw" / table / f"dt={day.isoformat()}"
    folder.mkdir(parents=True, exist_ok=True)
    fields = {**ARROW_TYPES[table], **(types or {})}
    columns = {name: pa.array([row.get(name) for row in rows], kind) for name, kind in fields.items()}
    pq.write_table(pa.table(columns), folder / f"part-{len(list(folder.glob('*.parquet')))}.parquet")
    if marker:
        (folder / "_SUCCESS").touch()
    return folder


def day(offset: int) -> dt.date:
    return DAY + dt.timedelta(days=offset)
