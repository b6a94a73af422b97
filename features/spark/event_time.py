"""When a raw row may be seen by an impression: the rules of the event clock (design.md, "Time").

An impression of day D at `ts` sees a row exactly when the row arrived by D (dt ≤ D) and was complete before
ts − event_lag. "Before" is strict: a row that completes in the very microsecond of the cutoff has no order to the
impression, and an impression must never see its own enter. Instants are int64 microseconds since 1970 UTC, days are
int days since 1970 in the session (business) time zone; neither ever becomes a float.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from zoneinfo import ZoneInfo

from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

EPOCH = dt.date(1970, 1, 1)
MICROS = 1_000_000
MINUTE_MICROS = 60 * MICROS
DAY_MICROS = 86_400 * MICROS


def business_day(ts: str = "ts") -> Column:
    """D: the day of a timestamp in the session time zone, as a date."""
    return F.to_date(F.col(ts))


def day_number(day: Column | str) -> Column:
    """A date as int days since 1970-01-01."""
    return F.unix_date(day)


def micros(ts: str) -> Column:
    """A timestamp as bigint microseconds since 1970 UTC."""
    return F.unix_micros(F.col(ts))


def day_starts(spark: SparkSession, days: Iterable[dt.date]) -> dict[dt.date, int]:
    """The midnight at which each day begins in the session time zone, in micros since 1970 UTC."""
    zone = ZoneInfo(str(spark.conf.get("spark.sql.session.timeZone")))
    midnights = {day: dt.datetime.combine(day, dt.time(), zone) for day in days}
    return {day: int(midnight.timestamp()) * MICROS for day, midnight in midnights.items()}


def cutoff(event_lag_s: int, ts: str = "ts") -> Column:
    """Rows that are complete before this instant (bigint micros) are seen: ts − event_lag."""
    return micros(ts) - F.lit(event_lag_s * MICROS)


def action_complete_at() -> Column:
    """An action is complete at its ts; by contract the ts of a watch is its end."""
    return micros("ts")


def minute_complete_at() -> Column:
    """A room_stats row counts a whole minute and is complete when the minute is over."""
    return micros("minute") + F.lit(MINUTE_MICROS)


def room_row_complete_at() -> Column:
    """A rooms row is written when the room starts, or again when it ends: the later of the two is when it happened.

    Thus a row that ends a room never tells an impression shown before that end anything, whatever it corrects.
    """
    return F.greatest(micros("started_at"), micros("ended_at"))
