"""Instants as the business clock shows them, without Spark: [n] int64 microseconds since 1970 UTC."""

from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from features.spark.event_time import DAY_MICROS, EPOCH, MICROS

Int64s = NDArray[np.int64]
BLOCK_S = 900  # clocks are changed at whole quarters of an hour


def local_micros(at: Int64s, zone: str) -> Int64s:
    """[n] instants → [n] micros since 1970 as the clock of the zone shows them."""
    blocks, block_of = np.unique(at // (BLOCK_S * MICROS), return_inverse=True)
    clock = ZoneInfo(zone)
    offsets = [_offset_s(int(block) * BLOCK_S, clock) for block in blocks]
    return at + np.array(offsets, dtype=np.int64)[block_of] * MICROS


def _offset_s(second: int, clock: ZoneInfo) -> int:
    shown = datetime.datetime.fromtimestamp(second, clock).utcoffset()
    assert shown is not None
    return round(shown.total_seconds())


def local_days(at: Int64s, zone: str) -> Int64s:
    """[n] instants → [n] business days, as numbers since 1970-01-01."""
    return local_micros(at, zone) // DAY_MICROS


def day_of_number(number: int) -> datetime.date:
    """The date of a day number."""
    return EPOCH + datetime.timedelta(days=number)


def number_of_day(day: datetime.date) -> int:
    """The day number of a date."""
    return (day - EPOCH).days


def shown(at: int, zone: str) -> str:
    """An instant for people, in the zone."""
    moment = datetime.datetime.fromtimestamp(at // MICROS, ZoneInfo(zone))
    return moment.isoformat()
