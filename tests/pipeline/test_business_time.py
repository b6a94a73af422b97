"""Instants on the business clock: as zoneinfo shows each of them, clock changes included."""

from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.business_time import day_of_number, local_days, local_micros, number_of_day, shown

MICROS = 1_000_000
YEAR_2100 = 4_102_444_800


@given(st.lists(st.integers(0, YEAR_2100 * MICROS), min_size=1), st.sampled_from(["Asia/Shanghai", "America/New_York"]))
def test_every_instant_is_what_zoneinfo_shows(at: list[int], zone: str) -> None:
    clock = local_micros(np.array(at), zone)
    for instant, found in zip(at, clock.tolist(), strict=True):
        second, micro = divmod(instant, MICROS)
        wall = datetime.datetime.fromtimestamp(second, ZoneInfo(zone)).replace(tzinfo=datetime.UTC, microsecond=micro)
        assert found == (wall - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(
            microseconds=1
        )


@pytest.mark.parametrize(("day", "hours"), [("2025-03-09", 23), ("2025-11-02", 25), ("2025-07-01", 24)])
def test_a_day_is_as_long_as_the_clock_has_it(day: str, hours: int) -> None:
    number, zone = number_of_day(datetime.date.fromisoformat(day)), "America/New_York"
    midnight = datetime.datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone))
    at = (int(midnight.timestamp()) + np.arange(-3600, 30 * 3600, 900)) * MICROS
    assert (local_days(at, zone) == number).sum() == 4 * hours
    assert day_of_number(number).isoformat() == day
    assert shown(int(midnight.timestamp()) * MICROS + 5, zone) == midnight.isoformat()
