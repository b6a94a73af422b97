"""PSI of scores: against the formula bin by bin, at its edges, and what it makes of twins and of shifts."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.score_shift import score_psi


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(20, 400), shift=st.floats(-2, 2))
def test_it_is_the_sum_over_the_champions_tenths(seed: int, rows: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    champion, candidate = rng.normal(size=rows), rng.normal(size=rows) + shift
    cuts = [-math.inf, *np.quantile(champion, np.arange(1, 10) / 10), math.inf]
    expected = 0.0
    for low, high in itertools.pairwise(cuts):
        q, p = (max(sum(low <= x < high for x in side), 0.5) / rows for side in (champion, candidate))
        expected += (p - q) * math.log(p / q)
    assert score_psi(candidate, champion) == pytest.approx(expected, abs=1e-12)
    assert expected >= 0


def test_equal_scores_are_no_shift_and_no_rows_no_answer() -> None:
    scores = np.random.default_rng(0).random(500)
    assert score_psi(scores, scores) == 0
    assert score_psi(np.zeros(0), np.zeros(0)) is None


def test_a_bin_left_empty_weighs_half_a_row() -> None:
    champion = np.arange(100.0)
    collapsed = np.full(100, 5.0)
    half = 0.5 / 100
    expected = (1 - 0.1) * math.log(1 / 0.1) + 9 * (half - 0.1) * math.log(half / 0.1)
    assert score_psi(collapsed, champion) == pytest.approx(expected)


def test_a_champion_of_few_distinct_scores_has_fewer_bins() -> None:
    champion = np.repeat([0.1, 0.2], [900, 100])
    assert score_psi(champion, champion) == 0
    swapped = score_psi(np.repeat([0.1, 0.2], [100, 900]), champion)
    assert swapped == pytest.approx(0.8 * math.log(9) * 2)


def test_twins_are_far_below_the_shift_of_a_standard_deviation() -> None:
    rng = np.random.default_rng(1)
    logit = rng.normal(size=20_000)
    twin, moved = logit + 0.2 * rng.normal(size=20_000), logit + 1.0
    assert (score_psi(twin, logit) or 0) < 0.05
    assert (score_psi(moved, logit) or 0) > 0.8  # the symmetric divergence of N(0, 1) and N(1, 1) is 1
