"""Which days older rows are drawn from, and how many of them there should be."""

from __future__ import annotations

import datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import TrainDaysConf, day_range
from pipeline.context import ONE_DAY
from pipeline.train_rows import replay_days, replay_rate

FIRST = datetime.date(2026, 1, 20)


@settings(deadline=None)
@given(trained=st.integers(0, 40), last=st.integers(1, 40))
def test_they_are_the_last_days_before_the_new_ones_that_the_champion_was_trained_on(trained: int, last: int) -> None:
    since = FIRST - ONE_DAY * trained
    found = replay_days(FIRST, since, TrainDaysConf(replay_share=0.5, replay_days=last))
    known = [day for day in day_range(FIRST - ONE_DAY * 50, FIRST + ONE_DAY * 5) if since <= day < FIRST]
    assert list(found) == known[-last:]


def test_without_a_share_there_are_none() -> None:
    assert replay_days(FIRST, FIRST - ONE_DAY * 9, TrainDaysConf(replay_share=0, replay_days=7)) == ()


@settings(deadline=None)
@given(share=st.floats(0.01, 10), new=st.integers(0, 10**9), older=st.integers(0, 10**9))
def test_the_rate_makes_so_many_older_rows_for_each_new_one_or_takes_all(share: float, new: int, older: int) -> None:
    rate = replay_rate(share, new, older)
    assert 0 <= rate <= 1
    assert abs(rate * older - min(older, share * new)) <= 1e-6 * max(1, older)
