"""Learning rates that fall where a metric stands still."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import ConfError
from training.config import Plateau, TrainConf
from training.judgement import Progress, monitored, on_plateau, rates_after
from training.optim import OptimConf, Rates


def reductions(values: Sequence[float | None], **conf: object) -> list[int]:
    """How often the rates have fallen after each epoch."""
    settings, progress, seen = Plateau.model_validate(conf), Progress(), []
    for epoch, value in enumerate(values):
        record = {"epoch": epoch, "valid": {"click": {"auc": value, "logloss": value}}}
        progress = on_plateau(progress, record, ("click", settings.metric), settings)
        seen.append(progress.reductions)
    return seen


def test_rates_fall_after_patience_epochs_and_counting_begins_anew() -> None:
    assert reductions([0.6, 0.5, 0.6, 0.6, 0.55, 0.6], patience=2) == [0, 0, 1, 1, 2, 2]
    assert reductions([0.6, 0.5, 0.6], patience=1) == [0, 1, 2]


def test_a_gain_in_between_begins_anew() -> None:
    assert reductions([0.6, 0.5, 0.7, 0.6, 0.6], patience=2) == [0, 0, 0, 0, 1]


def test_logloss_is_to_fall_and_a_small_gain_is_none() -> None:
    assert reductions([0.6, 0.5, 0.5], metric="logloss") == [0, 0, 1]
    assert reductions([0.600, 0.604, 0.608], min_gain=0.01) == [0, 1, 2]


def test_an_undefined_metric_is_no_gain_and_no_validation_day_is_no_plateau() -> None:
    assert reductions([None, 0.5, None]) == [1, 1, 2]
    unjudged = on_plateau(Progress(), {"epoch": 0, "valid": {}}, ("click", "auc"), Plateau())
    assert unjudged == Progress()


@given(st.integers(0, 40), st.floats(0.01, 0.99), st.floats(0, 0.1))
def test_each_rate_is_multiplied_and_stops_at_the_smallest(times: int, factor: float, smallest: float) -> None:
    optim = OptimConf.model_validate({"embedding": {"learning_rate": 0.05}, "dense": {"learning_rate": 1e-3}})
    rates = Rates(0.05, 1e-3)
    for _ in range(times):
        rates = Rates(*(max(rate * factor, min(rate, smallest)) for rate in rates))
    assert rates_after(times, optim, Plateau(factor=factor, min_learning_rate=smallest)) == pytest.approx(rates)
    assert rates_after(times, optim, None) == (0.05, 1e-3)


def test_a_task_that_is_not_predicted_is_said() -> None:
    with pytest.raises(ConfError, match=r"plateau\.task='like' is not predicted; the model predicts click, buy"):
        monitored("plateau", Plateau(task="like"), ("click", "buy"))
    assert monitored("plateau", Plateau(metric="gauc"), ("click", "buy")) == ("click", "gauc")


def test_a_rate_that_would_fall_too_late_is_refused() -> None:
    values = {"model": {"name": "lr"}, "plateau": {"patience": 2}, "early_stopping": {"patience": 2}}
    with pytest.raises(ConfError, match=r"plateau\.patience=2 is not below early_stopping\.patience=2"):
        TrainConf.of(values)
    settings = TrainConf.of(values | {"early_stopping": {"patience": 2, "metric": "logloss"}})
    assert settings.plateau == Plateau(patience=2)


def test_more_parts_than_rows_of_a_step_are_refused() -> None:
    with pytest.raises(ConfError, match=r"accumulate=9 parts of batch_size=8 rows"):
        TrainConf.of({"model": {"name": "lr"}, "batch_size": 8, "accumulate": 9})
