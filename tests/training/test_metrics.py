"""Metrics of 1 to 3 ranks against scikit-learn on all rows at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from tests.training.launch import run_ranks
from tests.training.thread_ranks import on_ranks
from training.exchange import Exchange, HorovodExchange, SingleExchange
from training.metrics import Judged, TaskMetrics, evaluate

TOLERANCE = 1e-12


@dataclass(frozen=True, kw_only=True)
class Rows:
    """All rows, and the rank that holds each of them."""

    score: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    group: np.ndarray
    rank: np.ndarray

    def of(self, rank: int) -> Judged:
        mine = self.rank == rank
        score, label, weight, group = (
            torch.from_numpy(values[mine]) for values in (self.score, self.label, self.weight, self.group)
        )
        return Judged(score=score, label=label, weight=weight, group=group)


@st.composite
def drawn_rows(draw: st.DrawFn, max_rows: int = 60) -> Rows:
    """Scores on a coarse grid, so that many are equal; some rows masked; unequal ranks, some of them empty."""
    count = draw(st.integers(0, max_rows))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    grid = draw(st.sampled_from([2, 5, 1000]))
    return random_rows(random, count, grid=grid, users=draw(st.integers(1, 8)))


def random_rows(random: np.random.Generator, count: int, *, grid: int, users: int) -> Rows:
    return Rows(
        score=random.integers(1, grid, count, endpoint=True) / (grid + 1),
        label=(random.random(count) < 0.4).astype(float),
        weight=random.choice([0.0, 1.0, 1.0, 2.5], count),
        group=random.integers(0, users, count) + 10**15,
        rank=random.integers(0, 3, count) * random.integers(0, 2),
    )


def reference(rows: Rows) -> dict[str, float | None]:
    """The same figures by scikit-learn, on the unmasked rows of all ranks."""
    kept = rows.weight > 0
    score, label, weight, group = rows.score[kept], rows.label[kept], rows.weight[kept], rows.group[kept]
    total, weighted, left_out = 0.0, 0.0, 0
    for user in np.unique(group):
        own = group == user
        if len(np.unique(label[own])) < 2:
            left_out += 1
            continue
        weighted += weight[own].sum() * roc_auc_score(label[own], score[own], sample_weight=weight[own])
        total += weight[own].sum()
    both = len(np.unique(label)) == 2
    observed = (weight * label).sum()
    return {
        "auc": float(roc_auc_score(label, score, sample_weight=weight)) if both else None,
        "gauc": weighted / total if total else None,
        "logloss": float(log_loss(label, score, sample_weight=weight, labels=[0, 1])) if len(label) else None,
        "pcoc": float((weight * score).sum() / observed) if observed else None,
        "rows": len(label),
        "positives": int(label.sum()),
        "gauc_users_left_out": left_out,
    }


def check(metrics: TaskMetrics, wanted: dict[str, float | None]) -> None:
    for name, value in wanted.items():
        seen = metrics.as_dict()[name]
        assert seen == value if value is None else seen == pytest.approx(value, abs=TOLERANCE, rel=TOLERANCE), name


@settings(deadline=None, max_examples=25)
@given(drawn_rows())
@pytest.mark.parametrize("size", [2, 3])
def test_figures_of_several_ranks_are_scikit_learns(size: int, rows: Rows) -> None:
    moved = Rows(**{**vars(rows), "rank": rows.rank % size})
    results = on_ranks(size, lambda exchange: evaluate(moved.of(exchange.world.rank), exchange))
    assert all(result == results[0] for result in results)
    check(results[0], reference(rows))


@settings(deadline=None, max_examples=25)
@given(drawn_rows())
def test_figures_of_one_rank_are_scikit_learns(rows: Rows) -> None:
    alone = Rows(**{**vars(rows), "rank": np.zeros_like(rows.rank)})
    check(evaluate(alone.of(0), SingleExchange()), reference(rows))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_many_rows(size: int) -> None:
    rows = random_rows(np.random.default_rng(0), 5000, grid=10**6, users=40)
    rows = Rows(**{**vars(rows), "rank": np.arange(5000) % size})
    check(on_ranks(size, lambda exchange: evaluate(rows.of(exchange.world.rank), exchange))[0], reference(rows))


def test_the_mean_of_the_ranks_aucs_is_another_number() -> None:
    """What this module is for: a rank of easy rows and one of hard rows."""
    rows = Rows(
        score=np.array([0.9, 0.8, 0.3, 0.2]),
        label=np.array([1.0, 0.0, 1.0, 0.0]),
        weight=np.ones(4),
        group=np.zeros(4, dtype=np.int64),
        rank=np.array([0, 0, 1, 1]),
    )
    exact = on_ranks(2, lambda exchange: evaluate(rows.of(exchange.world.rank), exchange).auc)[0]
    own = [evaluate(rows.of(rank), SingleExchange()).auc for rank in range(2)]
    assert (exact, own) == (0.75, [1.0, 1.0])


def test_a_masked_row_counts_nowhere() -> None:
    rows = random_rows(np.random.default_rng(1), 50, grid=9, users=5)
    rows = Rows(**{**vars(rows), "rank": np.zeros(50, dtype=np.int64)})
    changed = Rows(**{**vars(rows), "score": np.where(rows.weight == 0, 0.99, rows.score)})
    assert (rows.weight == 0).any()
    assert evaluate(rows.of(0), SingleExchange()) == evaluate(changed.of(0), SingleExchange())


def _figures_on_a_rank(count: int) -> dict[str, Any]:
    import horovod.torch as horovod

    horovod.init()
    exchange: Exchange = HorovodExchange()
    rows = random_rows(np.random.default_rng(3), count, grid=20, users=7)
    rows = Rows(**{**vars(rows), "rank": np.arange(count) % 3 // 2})
    figures = evaluate(rows.of(exchange.world.rank), exchange).as_dict()
    horovod.shutdown()
    return figures


@pytest.mark.horovod
def test_figures_of_real_ranks_are_scikit_learns() -> None:
    rows = random_rows(np.random.default_rng(3), 400, grid=20, users=7)
    for figures in run_ranks(_figures_on_a_rank, ranks=2, count=400):
        check(TaskMetrics(**figures), reference(rows))
