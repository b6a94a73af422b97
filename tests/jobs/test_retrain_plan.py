"""Which days an incremental retrain works on, from what its champion was trained on."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import NotReadyError
from features.manifest import Split, TrainSet
from jobs.retrain_plan import incremental_days
from pipeline.config import PipelineConf, TrainDays, day_range, full_retrain_days
from pipeline.context import ONE_DAY
from tests.training.trainset_factory import write_trainset

DATE = datetime.date(2026, 1, 20)
CONF = PipelineConf()


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> TrainSet:
    folder: Path = tmp_path_factory.mktemp("trainset")
    return write_trainset(folder, rows=64, valid_rows=64, gate_rows=64)


def conf(**days: float) -> PipelineConf:
    return CONF.model_copy(update={"days": CONF.days.model_copy(update=days)})


def trained_on(described: TrainSet, days: TrainDays, **fields: object) -> TrainSet:
    """A train set of these days, as `pipeline.trainset` describes it."""
    train = Split(days=tuple(map(str, days.train)), files=(), rows=0)
    seen = max(*days.train, *days.valid)
    return described.model_copy(
        update={
            "splits": {"train": train},
            "seen_until": str(seen),
            "vocabulary_from": str(days.fit[0]),
            "trained_from": str(days.train[0]),
            "replayed": {str(day): 1 for day in days.replay},
            **fields,
        }
    )


def test_replayed_days_are_days_that_the_champion_was_trained_on(described: TrainSet) -> None:
    full = full_retrain_days(DATE - ONE_DAY * 3, CONF)
    champion = trained_on(described, full)
    days = incremental_days(DATE, champion, conf(replay_share=0.5, replay_days=3))
    assert days.train == tuple(day_range(full.train[-1] + ONE_DAY, days.gate - ONE_DAY))
    assert days.replay == full.train[-3:]
    assert days.fit == (*full.fit, *full.train)
    every = incremental_days(DATE, champion, conf(replay_share=0.5, replay_days=99))
    assert every.replay == full.train, "the days of the booster are none"
    assert incremental_days(DATE, champion, CONF).replay == ()


def test_replayed_days_of_a_champion_do_not_move_what_is_new(described: TrainSet) -> None:
    """It goes on after its own last day, from the same first days as those it went on from."""
    full = full_retrain_days(DATE - ONE_DAY * 4, CONF)
    wanted = conf(replay_share=1.0, replay_days=30)
    first = incremental_days(DATE - ONE_DAY * 2, trained_on(described, full), wanted)
    champion = trained_on(described, first, trained_from=str(full.train[0]))
    second = incremental_days(DATE, champion, wanted)
    assert second.train[0] == first.train[-1] + ONE_DAY
    assert second.fit[0] == full.fit[0]
    assert second.replay == tuple(day_range(full.train[0], first.train[-1]))


def test_of_an_older_manifest_only_the_days_that_it_names_are_replayed(described: TrainSet) -> None:
    full = full_retrain_days(DATE - ONE_DAY * 3, CONF)
    champion = trained_on(described, full, trained_from=None)
    assert incremental_days(DATE, champion, conf(replay_share=1.0, replay_days=30)).replay == full.train


def test_without_a_new_day_beside_the_gate_day_it_waits(described: TrainSet) -> None:
    champion = trained_on(described, full_retrain_days(DATE, CONF))
    assert incremental_days(DATE, champion, CONF).train == full_retrain_days(DATE, CONF).valid
    with pytest.raises(NotReadyError, match="no new mature day"):
        incremental_days(DATE - ONE_DAY, champion, CONF)


@settings(deadline=None)
@given(age=st.integers(1, 30), share=st.floats(0.01, 10), last=st.integers(1, 365), delay=st.integers(0, 3))
def test_replayed_days_are_never_new_judged_or_before_the_champion(
    described: TrainSet, age: int, share: float, last: int, delay: int
) -> None:
    asked = conf(replay_share=share, replay_days=last)
    asked = asked.model_copy(update={"time": asked.time.model_copy(update={"label_delay_days": delay})})
    full = full_retrain_days(DATE - ONE_DAY * age, asked)
    champion = trained_on(described, full)
    days = incremental_days(DATE, champion, asked)
    assert max(days.replay) < min(days.train) <= max(days.train) < days.gate
    assert set(days.replay) <= {*full.train} & {*days.fit}
    assert len(days.replay) == min(last, len(full.train))
