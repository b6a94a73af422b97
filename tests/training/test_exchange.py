"""One rank alone against the definition, and real Horovod ranks against the same definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.training.launch import run_ranks
from training.exchange import Exchange, HorovodExchange, SingleExchange
from training.world import World

ROW_COUNTS = (5, 0, 3)  # of rank 0, 1, 2: one rank has nothing to say


def _own_rows(rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A rank's sparse rows, some of them twice and some also on other ranks, and their float64 values."""
    rng = np.random.default_rng(rank)
    count = ROW_COUNTS[rank]
    rows = torch.from_numpy(rng.integers(0, 4, count))
    return rows, torch.from_numpy(rng.normal(size=(count, 2)))


def _exercise(exchange: Exchange) -> dict[str, Any]:
    """Every collective once, as JSON."""
    rank, size = exchange.world.rank, exchange.world.size
    rows, values = _own_rows(rank)
    gathering = exchange.start_gather_rows(rows), exchange.start_gather_rows(values)
    summing = exchange.start_sum_many(
        [torch.full((2, 2), rank + 0.5), torch.tensor([rank]), torch.tensor([0.1 + rank, 1.0]), torch.empty(0)]
    )
    sent = exchange.bytes_sent
    outgoing = torch.tensor([10 * rank + to for to in range(size) for _ in range(to)])
    parameters = {"weight": torch.full((2,), float(rank)), "steps": torch.tensor(rank)}
    exchange.broadcast_parameters(parameters)
    exchange.barrier()
    return {
        "world": [rank, size],
        "sum": exchange.sum_(torch.tensor([0.1, 0.2, 1e17], dtype=torch.float64) * (rank + 1)).tolist(),
        "many": [tensor.tolist() for tensor in summing()],
        "scalars": exchange.sum_scalars({"b": 0.1 * (rank + 1), "a": 1.0}),
        "rows": gathering[0]().tolist(),
        "row_values": gathering[1]().tolist(),
        "gathered": exchange.gather_rows(values).tolist(),
        "routed": exchange.alltoall(outgoing, torch.arange(size)).tolist(),
        "object": exchange.broadcast_object({"from": rank}),
        "objects": exchange.gather_objects({"rank": rank, "text": "x" * rank}),
        "parameters": [tensor.tolist() for tensor in parameters.values()],
        "sent": sent,
    }


def _exercise_horovod() -> dict[str, Any]:
    import horovod.torch as hvd

    hvd.init()
    assert World.current() == World(rank=hvd.rank(), size=hvd.size(), local_rank=hvd.local_rank())
    return _exercise(HorovodExchange())


def _expected(rank: int, size: int) -> dict[str, Any]:
    """What `_exercise` must return, from the definitions, in numpy."""
    every_rows, every_values = zip(*(_own_rows(r) for r in range(size)), strict=True)
    rows, values = torch.cat(every_rows).numpy(), torch.cat(every_values).numpy()
    factor = sum(r + 1 for r in range(size))
    return {
        "world": [rank, size],
        "sum": (np.array([0.1, 0.2, 1e17]) * factor).tolist(),
        "many": [
            [[sum(r + 0.5 for r in range(size))] * 2] * 2,
            [sum(range(size))],
            [sum(0.1 + r for r in range(size)), float(size)],
            [],
        ],
        "scalars": {"a": float(size), "b": 0.1 * factor},
        "rows": rows.tolist(),
        "row_values": values.tolist(),
        "gathered": values.tolist(),
        "routed": [10 * r + rank for r in range(size) for _ in range(rank)],
        "object": {"from": 0},
        "objects": [{"rank": r, "text": "x" * r} for r in range(size)],
        "parameters": [[0.0, 0.0], 0],
    }


def _assert_same(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    exact = ("world", "rows", "row_values", "gathered", "routed", "object", "objects", "parameters")
    assert {key: actual[key] for key in exact} == {key: expected[key] for key in exact}
    np.testing.assert_allclose(actual["sum"], expected["sum"], rtol=1e-15)
    assert actual["scalars"] == pytest.approx(expected["scalars"], rel=1e-15)
    for mine, theirs in zip(actual["many"], expected["many"], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)


def test_one_rank_alone_is_the_identity() -> None:
    result = _exercise(SingleExchange())
    _assert_same(result, _expected(0, 1))
    assert result["sent"] == 0


@pytest.mark.horovod
def test_ranks_agree_with_the_definition_and_with_each_other() -> None:
    ranks = len(ROW_COUNTS)
    results = run_ranks(_exercise_horovod, ranks=ranks)
    for rank, result in enumerate(results):
        _assert_same(result, _expected(rank, ranks))
    same_everywhere = ("sum", "many", "scalars", "rows", "row_values", "gathered", "object", "objects", "parameters")
    for key in same_everywhere:
        assert all(result[key] == results[0][key] for result in results), key
    row, six_floats, one_int = 8 + 2 * 8, 6 * 4, 8
    assert [result["sent"] for result in results] == [count * row + six_floats + one_int for count in ROW_COUNTS]


def test_results_do_not_alias_the_arguments() -> None:
    exchange = SingleExchange()
    tensor = torch.zeros(2)
    for result in (exchange.sum_(tensor), exchange.gather_rows(tensor), exchange.alltoall(tensor, torch.tensor([2]))):
        result += 1
    assert tensor.tolist() == [0.0, 0.0]


def test_counts_that_do_not_cover_the_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="do not route 3 rows"):
        SingleExchange().alltoall(torch.zeros(3), torch.tensor([2]))
