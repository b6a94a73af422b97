"""Row optimisers against dense oracles on random sparse gradients; clipping; state that survives a restart."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle.recommenders import adagrad_rows
from training.optim import DenseOptimConf, OptimConf, Optimiser, Rates, dense_optimiser
from training.row_optim import LazyAdam, RowAdagrad, RowOptimConf, WholeTable

ROWS, BLOCKS = 7, (3, 1)
COLUMNS = sum(BLOCKS)

SparseGradient = tuple[torch.Tensor, torch.Tensor]
Kind = Literal["adagrad", "adam", "sgd"]
KINDS = ("adagrad", "adam", "sgd")


def random_gradients(seed: int, steps: int) -> list[SparseGradient]:
    """Per step some distinct rows, possibly none, and their gradients, in float64."""
    random = np.random.default_rng(seed)
    gradients = []
    for _ in range(steps):
        rows = np.sort(random.choice(ROWS, random.integers(0, ROWS + 1), replace=False))
        gradients.append((torch.from_numpy(rows), torch.from_numpy(random.normal(size=(len(rows), COLUMNS)))))
    return gradients


def random_table(seed: int) -> torch.nn.Parameter:
    random = torch.Generator().manual_seed(seed)
    return torch.nn.Parameter(torch.randn(ROWS, COLUMNS, generator=random, dtype=torch.float64))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.sampled_from([0.0, 0.1]))
def test_row_adagrad_is_its_loop(seed: int, steps: int, l2: float) -> None:
    weight, gradients = random_table(seed), random_gradients(seed, steps)
    before = weight.detach().numpy().copy()
    optimiser = RowAdagrad(weight, BLOCKS, RowOptimConf(learning_rate=0.1, l2=l2))
    dense = []
    for rows, gradient in gradients:
        optimiser.step(rows, gradient)
        dense.append(np.full((ROWS, COLUMNS), np.nan))
        dense[-1][rows.numpy()] = gradient.numpy()
    np.testing.assert_allclose(weight.detach().numpy(), adagrad_rows(before, BLOCKS, dense, 0.1, l2), atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_lazy_adam_is_torchs_sparse_adam(seed: int, steps: int) -> None:
    weight, gradients = random_table(seed), random_gradients(seed, steps)
    reference = torch.nn.Parameter(weight.detach().clone())
    theirs = torch.optim.SparseAdam([reference], lr=0.1)
    ours = LazyAdam(weight, RowOptimConf(kind="adam", learning_rate=0.1))
    for rows, gradient in gradients:
        ours.step(rows, gradient)
        reference.grad = torch.sparse_coo_tensor(rows.unsqueeze(0), gradient, reference.shape, check_invariants=True)
        theirs.step()
    torch.testing.assert_close(weight, reference, atol=1e-12, rtol=0)


def test_lazy_adam_of_every_row_is_dense_adam_with_l2() -> None:
    weight = random_table(0)
    reference = torch.nn.Parameter(weight.detach().clone())
    theirs = torch.optim.Adam([reference], lr=0.1, weight_decay=0.2, eps=1e-20)
    ours = LazyAdam(weight, RowOptimConf(kind="adam", learning_rate=0.1, l2=0.2, epsilon=1e-20))
    for seed in range(10):
        gradient = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        ours.step(torch.arange(ROWS), gradient)
        reference.grad = gradient.clone()
        theirs.step()
    torch.testing.assert_close(weight, reference, atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_no_step_touched_keep_weight_and_state(kind: Kind) -> None:
    table, parameter = _Table(), torch.nn.Parameter(torch.zeros(1))
    optimiser = Optimiser(table, [parameter], OptimConf(embedding=RowOptimConf(kind=kind, l1=0.1, l2=0.5), dense=SGD))
    before = table.weight.detach().clone()
    for _ in range(3):
        optimiser.step(torch.tensor([1, 4]), torch.ones(2, COLUMNS, dtype=torch.float64))
    untouched = [row for row in range(ROWS) if row not in (1, 4)]
    assert torch.equal(table.weight[untouched], before[untouched])
    assert not torch.equal(table.weight[[1, 4]], before[[1, 4]])
    assert all(not state[untouched].any() for state in optimiser.rows.state.values())


SGD = DenseOptimConf(kind="sgd", learning_rate=1.0)


class _Table(torch.nn.Module):
    """What an optimiser knows of an embedding table."""

    blocks = BLOCKS

    def __init__(self) -> None:
        super().__init__()
        self.weight = random_table(0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_table_is_torchs_optimiser_on_the_dense_gradient(kind: Kind) -> None:
    weight, gradients = random_table(1), random_gradients(1, 6)
    reference = torch.nn.Parameter(weight.detach().clone())
    theirs = {"adam": torch.optim.Adam, "adagrad": torch.optim.Adagrad, "sgd": torch.optim.SGD}[kind]([reference], 0.1)
    ours = WholeTable(weight, RowOptimConf(kind=kind, lazy=False, learning_rate=0.1, epsilon=1e-10))
    theirs.param_groups[0]["eps"] = 1e-10
    for rows, gradient in gradients:
        ours.step(rows, gradient)
        reference.grad = torch.zeros_like(reference).index_copy(0, rows, gradient)
        theirs.step()
    torch.testing.assert_close(weight, reference, atol=1e-12, rtol=0)
    assert weight.grad is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_dense_part_is_changed_by_torchs_optimiser(kind: Kind) -> None:
    parameter = torch.nn.Parameter(torch.ones(3, 2, dtype=torch.float64))
    reference = torch.nn.Parameter(parameter.detach().clone())
    theirs = {"adam": torch.optim.Adam, "adagrad": torch.optim.Adagrad, "sgd": torch.optim.SGD}[kind]([reference], 0.1)
    ours = dense_optimiser([parameter], DenseOptimConf(kind=kind, learning_rate=0.1))
    for seed in range(4):
        gradient = torch.randn(3, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        parameter.grad, reference.grad = gradient.clone(), gradient
        ours.step()
        theirs.step()
    torch.testing.assert_close(parameter, reference, atol=1e-12, rtol=0)


def test_a_changed_rate_is_that_of_the_next_step() -> None:
    for lazy in (True, False):
        table, parameter = _Table(), torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        rows = RowOptimConf(kind="sgd", lazy=lazy, learning_rate=0.5)
        optimiser = Optimiser(table, [parameter], OptimConf(embedding=rows, dense=SGD))
        assert optimiser.rates == (0.5, 1.0)
        optimiser.rates = Rates(0.25, 0.125)
        before, parameter.grad = table.weight.detach().clone(), torch.ones_like(parameter)
        optimiser.step(torch.tensor([3]), torch.ones(1, COLUMNS, dtype=torch.float64))
        assert (before - table.weight)[3].tolist() == pytest.approx([0.25] * COLUMNS)
        assert (optimiser.rates, parameter.item()) == ((0.25, 0.125), -0.125)


def test_clipping_scales_the_whole_gradient_to_the_norm() -> None:
    table, parameter = _Table(), torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimiser = Optimiser(table, [parameter], OptimConf(dense=SGD, clip_norm=1.0))
    parameter.grad = torch.tensor([3.0, 0.0], dtype=torch.float64)
    optimiser.step(torch.tensor([2]), torch.tensor([[4.0, 0.0, 0.0, 0.0]], dtype=torch.float64))
    assert parameter[0].item() == pytest.approx(-3 / 5)
    assert optimiser.rows.state["squares"][2, 0].item() == pytest.approx((4 / 5) ** 2 / 3)


def test_clipping_leaves_a_small_gradient_alone() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimiser = Optimiser(_Table(), [parameter], OptimConf(dense=SGD, clip_norm=10.0))
    parameter.grad = torch.ones(1, dtype=torch.float64)
    optimiser.step(torch.tensor([2]), torch.ones(1, COLUMNS, dtype=torch.float64))
    assert parameter.item() == -1.0


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_state_taken_over_goes_on_as_if_never_stopped(kind: Kind, lazy: bool) -> None:
    conf = OptimConf(embedding=RowOptimConf(kind=kind, lazy=lazy), dense=DenseOptimConf(kind=kind))

    def start() -> tuple[_Table, torch.nn.Parameter, Optimiser]:
        table, parameter = _Table(), torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
        return table, parameter, Optimiser(table, [parameter], conf)

    def advance(parameter: torch.nn.Parameter, optimiser: Optimiser, seeds: range) -> None:
        for seed in seeds:
            ((rows, gradient),) = random_gradients(seed, 1)
            parameter.grad = torch.full((3,), float(seed), dtype=torch.float64)
            optimiser.step(rows, gradient)

    table, parameter, optimiser = start()
    advance(parameter, optimiser, range(6))
    other_table, other_parameter, first = start()
    advance(other_parameter, first, range(3))
    second = Optimiser(other_table, [other_parameter], conf)
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    advance(other_parameter, second, range(3, 6))
    assert torch.equal(table.weight, other_table.weight)
    assert torch.equal(parameter, other_parameter)
