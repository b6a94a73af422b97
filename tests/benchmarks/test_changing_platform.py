"""The days of the benchmark: all that the first morning needs is there, and nothing that is not needed."""

from __future__ import annotations

from benchmarks.changing_platform import FIRST_DAY, PlatformConf
from jobs.settings import Settings
from pipeline.config import full_retrain_days
from pipeline.context import ONE_DAY

PLATFORM = PlatformConf(impressions=1000, anchors=150, anchor_growth=0.05, drift=0.05, mornings=10)


def test_the_first_morning_is_the_first_one_that_has_its_days() -> None:
    conf = Settings.load("local", ["days.train=14"]).pipeline
    dates = PLATFORM.dates(conf)
    assert len(dates) == 11
    assert full_retrain_days(dates[0], conf).fit[0] == FIRST_DAY + ONE_DAY  # the day before has no profile before it
    assert full_retrain_days(dates[0] - ONE_DAY, conf).fit[0] == FIRST_DAY


def test_every_day_of_every_morning_is_simulated_and_sampled() -> None:
    conf = Settings.load("local", ["days.train=14"]).pipeline
    needed = {day for date in PLATFORM.dates(conf) for day in full_retrain_days(date, conf).all}
    assert set(PLATFORM.sampled_days(conf)) == needed
    last = FIRST_DAY + ONE_DAY * (PLATFORM.days(conf) - 1)
    assert last == PLATFORM.dates(conf)[-1] - ONE_DAY
    assert max(needed) < last
