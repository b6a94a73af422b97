"""The bootstrap against scikit-learn: weighted AUC with ties, per-user AUC, and what an interval means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from training.bootstrap import Judged, Resamples, auc, baseline_comparison, compare, interval, user_aucs


def rows(seed: int, n: int = 400, users: int = 30, *, ties: bool = True, skill: float = 1.0) -> Judged:
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.4).astype(float)
    score = skill * label + rng.normal(size=n)
    return Judged.of(
        np.round(score, 1) if ties else score, label, rng.choice([0.0, 1.0, 2.5], n), rng.integers(0, users, n)
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), ties=st.booleans())
def test_each_round_is_the_weighted_auc_of_its_resample(seed: int, ties: bool) -> None:
    judged = rows(seed, ties=ties)
    draws = Resamples.draw(judged.group, rounds=5, seed=seed)
    expected = [
        roc_auc_score(judged.label, judged.score, sample_weight=judged.weight * drawn[draws.codes])
        for drawn in draws.multiplicity
    ]
    np.testing.assert_allclose(draws.auc(judged), expected, rtol=0, atol=1e-12)
    assert auc(judged) == pytest.approx(roc_auc_score(judged.label, judged.score, sample_weight=judged.weight))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_user_aucs_are_sklearns_user_by_user(seed: int) -> None:
    judged = rows(seed, n=200, users=40)
    users, codes = np.unique(judged.group, return_inverse=True)
    per_user, weight = user_aucs(judged, codes, len(users))
    for user in range(len(users)):
        own = codes == user
        assert weight[user] == pytest.approx(judged.weight[own].sum())
        if len(np.unique(judged.label[own])) == 1:
            assert np.isnan(per_user[user])
        else:
            expected = roc_auc_score(judged.label[own], judged.score[own], sample_weight=judged.weight[own])
            assert per_user[user] == pytest.approx(expected, abs=1e-12)


def test_draws_are_a_function_of_the_seed_and_keep_the_number_of_users() -> None:
    group = np.repeat(np.arange(50), 4)
    first, again = (Resamples.draw(group, rounds=20, seed=3) for _ in range(2))
    other = Resamples.draw(group, rounds=20, seed=4)
    np.testing.assert_array_equal(first.multiplicity, again.multiplicity)
    assert (first.multiplicity != other.multiplicity).any()
    np.testing.assert_array_equal(first.multiplicity.sum(axis=1), np.full(20, 50))


def test_the_same_model_differs_by_exactly_nothing() -> None:
    judged = rows(1)
    compared = compare(judged, judged, rounds=60, seed=0, level=0.95)
    for difference in (compared.auc_difference, compared.gauc_difference):
        assert difference is not None
        assert (difference.low, difference.point, difference.high) == (0.0, 0.0, 0.0)


def test_pairing_narrows_the_interval() -> None:
    """Two models that share most of their errors: the paired interval is much narrower than either's own."""
    judged = rows(2, n=2000, users=200, ties=False)
    noise = np.random.default_rng(0).normal(size=len(judged.score))
    twin = Judged.of(judged.score + 0.05 * noise, judged.label, judged.weight, judged.group)
    compared = compare(judged, twin, rounds=200, seed=0, level=0.95)
    assert compared.auc is not None
    assert compared.auc_difference is not None
    assert compared.auc_difference.high - compared.auc_difference.low < (compared.auc.high - compared.auc.low) / 3


def test_interval_covers_the_true_auc_about_as_often_as_it_says() -> None:
    """Scores N(1,1) against N(0,1): the true AUC is Φ(1/√2) = 0.7602. 90 % nominal over 100 worlds."""
    covered = 0
    for world in range(100):
        judged = rows(world, n=600, users=150, ties=False)
        own = compare(judged, None, rounds=100, seed=world, level=0.9).auc
        assert own is not None
        covered += own.low <= 0.7602 <= own.high
    assert 80 <= covered <= 98


def test_an_interval_is_undefined_rather_than_a_fiction() -> None:
    assert interval(float("nan"), np.ones(10), 0.9) is None
    assert interval(0.7, np.r_[np.full(10, np.nan), np.full(90, 0.7)], 0.9) is None
    assert interval(0.7, np.r_[np.full(4, np.nan), np.full(96, 0.7)], 0.9) is not None


def test_a_paired_comparison_refuses_other_rows() -> None:
    judged = rows(3)
    with pytest.raises(ValueError, match="same rows"):
        compare(judged, Judged.of(judged.score, 1 - judged.label, judged.weight, judged.group), rounds=50, seed=0,
                level=0.9)  # fmt: skip


def test_baseline_comparison_says_which_is_better_or_why_it_cannot() -> None:
    good, poor = rows(5, n=3000, users=300, skill=1.5), rows(5, n=3000, users=300, skill=0.3)
    assert np.array_equal(good.label, poor.label)
    won = baseline_comparison("enter", good, poor)
    lost = baseline_comparison("enter", poor, good)
    assert won.beats
    assert won.baseline is not None
    assert won.model is not None
    assert won.model.point > won.baseline.high
    assert "beats the popularity baseline" in won.finding
    assert not lost.beats
    assert "does not beat" in lost.finding
    one_class = Judged.of(good.score, np.zeros_like(good.label), good.weight, good.group)
    undefined = baseline_comparison("gift", one_class, one_class)
    assert not undefined.beats
    assert "cannot be compared" in undefined.finding
    assert "0 positives" in undefined.finding


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_some_of_the_rows_keep_the_draws_of_all_users(seed: int) -> None:
    """A segment: its rounds are the weighted figures of its rows under the day's draws, users without a row weigh 0."""
    judged = rows(seed, n=500, users=40)
    kept = np.random.default_rng(seed).random(len(judged.score)) < 0.5
    draws = Resamples.draw(judged.group, rounds=6, seed=seed)
    part, own = draws.of(kept), judged.where(kept)
    weights = [own.weight * drawn[draws.codes[kept]] for drawn in draws.multiplicity]
    expected = [roc_auc_score(own.label, own.score, sample_weight=weight) for weight in weights]
    np.testing.assert_allclose(part.auc(own), expected, rtol=0, atol=1e-12)
    sums = part.totals(part.per_user(own.weight, own.weight * own.label))
    for found, weight in zip(sums, weights, strict=True):
        np.testing.assert_allclose(found, [weight.sum(), (weight * own.label).sum()], rtol=1e-12)


def test_unit_weights_are_added_as_integers_and_give_what_any_weights_give() -> None:
    judged = rows(4, n=3000, users=200)
    ones, twos = (
        Judged.of(judged.score, judged.label, np.full(len(judged.score), weight), judged.group) for weight in (1.0, 2.0)
    )
    draws = Resamples.draw(judged.group, rounds=20, seed=1)
    np.testing.assert_allclose(draws.auc(ones), draws.auc(twos), rtol=0, atol=1e-14)
