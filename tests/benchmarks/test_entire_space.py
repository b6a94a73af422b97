"""The world of clicks and purchases is what its equations say; the clicked are not like all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.entire_space import COLUMNS, FULL, Impressions, mean_over_hidden, splits_of
from training.samples.schema import SampleSchema

SMALL = replace(FULL, users=200, items=100, rows={"train": 100_000, "test": 500})
SIGMAS = 4.5


@pytest.fixture(scope="module")
def seen() -> Impressions:
    return splits_of(SMALL)["train"]


@pytest.fixture(scope="module")
def hidden() -> Impressions:
    return splits_of(replace(SMALL, hidden=1.0))["train"]


def excess(drawn: np.ndarray, probability: np.ndarray) -> float:
    """How far what was drawn is above what was to be expected, in standard deviations."""
    return float((drawn - probability).sum() / np.sqrt((probability * (1 - probability)).sum()))


def test_labels_are_drawn_from_the_equations(seen: Impressions, hidden: Impressions) -> None:
    for rows in (seen, hidden):
        assert abs(excess(rows.click, rows.ctr)) < SIGMAS
        assert not (rows.buy & ~rows.click).any()
    clicked = seen.click == 1
    for few in (clicked, clicked & (seen.cvr > 0.3), clicked & (seen.cvr < 0.1)):
        assert abs(excess(seen.buy[few], seen.cvr[few])) < SIGMAS


def test_what_is_hidden_makes_the_clicked_buy_more_often(hidden: Impressions) -> None:
    clicked = hidden.click == 1
    assert excess(hidden.buy[clicked], hidden.cvr[clicked]) > 10


def test_clicks_select_the_likely_buyers(seen: Impressions) -> None:
    assert seen.cvr[seen.click == 1].mean() > 1.3 * seen.cvr.mean()
    assert 0.5 < np.corrcoef(seen.ctr, seen.cvr)[0, 1] < 0.95  # own factors, too


def test_the_mean_over_what_is_hidden_is_that_of_many_draws() -> None:
    logit = np.array([-6.0, -2.0, 0.0, 1.5])
    assert mean_over_hidden(logit, 0.0) == pytest.approx(1 / (1 + np.exp(-logit)))
    z = np.random.default_rng(1).standard_normal((200_000, 1))
    drawn = 1 / (1 + np.exp(-(logit + 1.3 * z)))
    assert np.abs(mean_over_hidden(logit, 1.3) - drawn.mean(axis=0)).max() < SIGMAS * 0.5 / np.sqrt(len(z))


def test_splits_are_the_same_at_each_call_and_models_see_ids_alone() -> None:
    first, second = splits_of(SMALL)["test"].table(), splits_of(SMALL)["test"].table()
    assert first.equals(second)
    assert first.column_names == SampleSchema.model_validate({"columns": COLUMNS}).read
