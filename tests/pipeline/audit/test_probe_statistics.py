"""AUC against scikit-learn; regions that are pure beyond chance, and those that are honest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from pipeline.audit.conf import ProbeConf
from pipeline.audit.probe_statistics import Counted, Regions, auc, out_of_fold_auc, purest_region

CONF = ProbeConf()
LIMIT = np.log(CONF.alpha / 1e6)
"""As if a million regions were tested."""
ROWS = 50_000


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=60))
@settings(max_examples=100, deadline=None)
def test_auc_is_that_of_scikit_learn(rows: list[tuple[int, bool]]) -> None:
    codes = np.array([code for code, _ in rows], dtype=np.int64)
    labels = np.array([int(label) for _, label in rows], dtype=np.int64)
    counted = Counted.of(codes, labels, 7)
    if labels.min() == labels.max():
        assert auc(counted) == 0.5
    else:
        assert auc(counted) == pytest.approx(roc_auc_score(labels, codes), abs=1e-12)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_out_of_fold_rates_are_blind_to_their_own_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes, labels, folds = rng.integers(200, size=2_000), rng.integers(2, size=2_000), rng.integers(5, size=2_000)
    assert abs(out_of_fold_auc(codes, labels, folds, 200) - 0.5) < 0.08


def test_out_of_fold_rates_find_values_without_an_order() -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(40, size=ROWS)
    labels = (codes % 2).astype(np.int64)
    assert out_of_fold_auc(codes, labels, rng.integers(5, size=ROWS), 40) == 1.0
    assert abs(auc(Counted.of(codes, labels, 40)) - 0.5) < 0.1


def region_of(values: np.ndarray, labels: np.ndarray, *, ordered: bool = True) -> float:
    """Log of the chance of the purest region."""
    codes = np.unique(values, return_inverse=True)[1]
    counted = Counted.of(codes, labels, int(codes.max()) + 1)
    regions = Regions.of(counted.rows, CONF, ordered=ordered)
    assert regions.first.size > 0
    region = purest_region(regions, counted.positives, CONF, rows=counted.rows, base=counted.base)
    return 0.0 if region is None else region.log_chance


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.2, 0.5, 0.8]))
@settings(max_examples=8, deadline=None)
def test_an_honest_feature_has_no_region_beyond_chance(seed: int, rate: float) -> None:
    """Also a strong one: the label's odds follow the value over four deviations."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=ROWS)
    odds = rate / (1 - rate) * np.exp(2.0 * values)
    labels = (rng.random(ROWS) < odds / (1 + odds)).astype(np.int64)
    assert region_of(values, labels) > LIMIT
    assert region_of(np.floor(values * 3), labels) > LIMIT
    assert region_of(rng.integers(500, size=ROWS), labels, ordered=False) > LIMIT


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("noise", [0.0, 1e-5])
def test_a_twin_in_one_percent_of_the_rows_is_beyond_chance(rate: float, noise: float) -> None:
    """Whether its values are those of the label, or near them."""
    rng = np.random.default_rng(2)
    labels = (rng.random(ROWS) < rate).astype(np.int64)
    values = rng.normal(size=ROWS)
    planted = rng.permutation(ROWS)[: ROWS // 100]
    values[planted] = labels[planted] + noise * rng.normal(size=planted.size)
    assert abs(auc(Counted.of(np.unique(values, return_inverse=True)[1], labels, ROWS)) - 0.5) < 0.02
    assert region_of(values, labels) < LIMIT
