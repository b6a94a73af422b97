"""Sums by row against a dense table that every value is added to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.row_optim import RowOptimConf, row_optimiser
from training.row_sums import PADDING_ROW, RowSegments, by_row, by_row_fixed

TABLE_ROWS, COLUMNS = 12, 3
LOOKUPS = st.lists(st.integers(1, TABLE_ROWS - 1), max_size=40)


def random_values(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, COLUMNS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense_sums(rows: list[int], values: torch.Tensor) -> torch.Tensor:
    """[R, C] by one addition after the other."""
    table = torch.zeros(TABLE_ROWS, COLUMNS, dtype=torch.float64)
    for row, value in zip(rows, values, strict=True):
        if row != PADDING_ROW:
            table[row] += value
    return table


def spread(group: RowSegments, sums: torch.Tensor) -> torch.Tensor:
    """[R, C] from rows and sums, each row written once."""
    table = torch.zeros(TABLE_ROWS, COLUMNS, dtype=torch.float64)
    for row, value in zip(group.rows.tolist(), sums, strict=True):
        assert not table[row].any(), "a row twice"
        table[row] = value
    return table


@settings(max_examples=60, deadline=None)
@given(LOOKUPS, st.integers(0, 1000))
def test_sums_of_exact_size(rows: list[int], seed: int) -> None:
    group, values = by_row(torch.tensor(rows, dtype=torch.int64)), random_values(len(rows), seed)
    assert group.rows.tolist() == sorted(set(rows))
    torch.testing.assert_close(spread(group, group.sums(values)), dense_sums(rows, values), atol=1e-12, rtol=0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(PADDING_ROW, TABLE_ROWS - 1), max_size=40), st.integers(0, 1000))
def test_sums_of_fixed_size_leave_padding_out(rows: list[int], seed: int) -> None:
    group, values = by_row_fixed(torch.tensor(rows, dtype=torch.int64)), random_values(len(rows), seed)
    sums, real = group.sums(values), sorted(set(rows) - {PADDING_ROW})
    assert group.rows.tolist() == real + [PADDING_ROW] * (len(rows) - len(real))
    assert not sums[len(real) :].any()
    torch.testing.assert_close(spread(group, sums), dense_sums(rows, values), atol=1e-12, rtol=0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, TABLE_ROWS - 1), st.integers(0, 4)), max_size=30), st.booleans())
def test_lookups_may_share_values(lookups: list[tuple[int, int]], fixed: bool) -> None:
    rows, source = [row for row, _ in lookups], torch.tensor([place for _, place in lookups], dtype=torch.int64)
    group, values = (by_row_fixed if fixed else by_row)(torch.tensor(rows, dtype=torch.int64)), random_values(5, 0)
    sums = group.sums(values, source)
    torch.testing.assert_close(spread(group, sums), dense_sums(rows, values[source]), atol=1e-12, rtol=0)


def test_values_of_a_row_are_added_in_the_order_in_which_they_stand() -> None:
    group = by_row(torch.tensor([5, 2, 5, 5]))
    sums = group.sums(torch.tensor([[1e17], [1.0], [-1e17], [1.0]], dtype=torch.float64))
    assert sums.flatten().tolist() == [1.0, 1.0]


def test_fixed_sizes_never_ask_for_a_value() -> None:
    """On the device "meta" there are shapes and no values: what would wait for a value fails."""
    rows, values = torch.empty(9, dtype=torch.int64, device="meta"), torch.empty(4, 2, device="meta")
    group = by_row_fixed(rows)
    assert (group.rows.shape, group.sums(values, rows).shape) == ((9,), (9, 2))
    with pytest.raises(NotImplementedError):
        by_row(rows)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(PADDING_ROW, TABLE_ROWS - 1), max_size=20),
    st.sampled_from(["adagrad", "adam", "sgd"]),
    st.booleans(),
    st.sampled_from([0.0, 0.1]),
)
def test_optimisers_take_rows_of_either_size(rows: list[int], kind: Any, lazy: bool, penalty: float) -> None:
    lookups = torch.tensor(rows, dtype=torch.int64)
    weights = []
    real = lookups != PADDING_ROW
    for group, kept in ((by_row(lookups[real]), real), (by_row_fixed(lookups), torch.ones_like(real))):
        table = _Table()
        optimiser = row_optimiser(table, RowOptimConf(kind=kind, lazy=lazy, l1=penalty, l2=penalty))
        for seed in range(2):
            optimiser.step(group.rows, group.sums(random_values(len(rows), seed)[kept]))
        weights.append([table.weight.detach(), *optimiser.state.values()])
        assert not table.weight[PADDING_ROW].any()
    for exact, fixed in zip(*weights, strict=True):
        torch.testing.assert_close(fixed, exact, atol=1e-12, rtol=0)


class _Table(torch.nn.Module):
    """What an optimiser knows of an embedding table."""

    blocks = (COLUMNS - 1, 1)

    def __init__(self) -> None:
        super().__init__()
        weight = random_values(TABLE_ROWS, 7)
        weight[PADDING_ROW] = 0.0
        self.weight = torch.nn.Parameter(weight)
