"""The arithmetic of the population-stability index, on any counts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.stability import positive_rate, psi
from tests.oracle.stability import stability_index

FLOOR = 1e-4
counts = st.lists(st.integers(0, 200), min_size=4, max_size=4).filter(any)


def rows(of_bins: list[int]) -> list[int]:
    return [at for at, count in enumerate(of_bins) for _ in range(count)]


@given(now=counts, before=counts)
def test_it_is_what_summing_over_bins_gives(now: list[int], before: list[int]) -> None:
    found = psi(now, before, FLOOR)
    assert found == pytest.approx(stability_index(rows(now), rows(before), FLOOR), abs=1e-12)


@given(now=counts, before=counts)
def test_it_is_finite_symmetric_and_never_negative(now: list[int], before: list[int]) -> None:
    found = psi(now, before, FLOOR)
    assert found is not None
    assert 0 <= found < math.inf
    assert found == pytest.approx(psi(before, now, FLOOR), abs=1e-12)


@given(now=counts, times=st.integers(1, 50))
def test_the_same_shares_have_not_moved(now: list[int], times: int) -> None:
    assert psi(now, [count * times for count in now], FLOOR) == pytest.approx(0, abs=1e-12)


def test_a_bin_that_empties_weighs_what_the_floor_says() -> None:
    moved = (0.5 - FLOOR) * math.log(0.5 / FLOOR) + (1 - 0.5) * math.log(1 / 0.5)
    assert psi([0, 10], [5, 5], FLOOR) == pytest.approx(moved)


def test_no_rows_is_no_distribution() -> None:
    assert psi([0, 0], [1, 2], FLOOR) is None
    assert psi([1, 2], [0, 0], FLOOR) is None


def test_masked_rows_do_not_count_for_a_label() -> None:
    assert positive_rate([0, 0, 90, 6, 4]) == 0.4
    assert positive_rate([3, 0, 90, 0, 0]) is None
