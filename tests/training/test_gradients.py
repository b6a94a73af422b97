"""Gradients summed over ranks: what travels, how much of it, and that it comes to what one rank would have."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from features import manifest as m
from tests.training.test_models import make_batch
from tests.training.thread_ranks import on_ranks
from tests.training.trainset_factory import Sizes, write_trainset
from training import models
from training.exchange import Exchange, SingleExchange
from training.gradients import ExchangeConf, packed, unpacked
from training.optim import OptimConf, Optimiser
from training.row_sums import PADDING_ROW
from training.step import Learner

ROWS, CUT, STEPS = 24, 10, 3


@pytest.fixture(scope="module")
def trainset(tmp_path_factory: pytest.TempPathFactory) -> m.TrainSet:
    sizes = Sizes(users=12, anchors=6, watched=3, leaves=1)
    return write_trainset(tmp_path_factory.mktemp("trainset"), rows=64, valid_rows=64, gate_rows=64, sizes=sizes)


@pytest.fixture(scope="module")
def model(trainset: m.TrainSet) -> models.RankingModel:
    return models.build("deepfm", trainset, {"embedding_dim": 4}, seed=0).double()


def learnt(
    model: models.RankingModel,
    trainset: m.TrainSet,
    exchange: Exchange,
    *,
    values: str = "full",
    fixed_sizes: bool = False,
    optim: OptimConf | None = None,
) -> tuple[Learner, dict[str, torch.Tensor]]:
    """A copy of the model after some steps."""
    own, conf = copy.deepcopy(model), ExchangeConf.model_validate({"values": values})
    own.table.fixed_sizes = fixed_sizes
    optimiser = Optimiser(own.table, own.dense_parameters(), optim or OptimConf())
    learner = Learner(own, optimiser, exchange, conf=conf)
    for seed in range(STEPS):
        cut = [0, CUT, ROWS] if exchange.world.size == 2 else [0, ROWS]
        learner.step(make_batch(trainset, ROWS, seed).rows(*cut[exchange.world.rank : exchange.world.rank + 2]))
    return learner, own.state_dict()


@pytest.mark.parametrize("fixed_sizes", [False, True])
@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_two_ranks_come_to_the_sums_of_one(
    model: models.RankingModel, trainset: m.TrainSet, clip_norm: float | None, fixed_sizes: bool
) -> None:
    optim = OptimConf(clip_norm=clip_norm)
    _, alone = learnt(model, trainset, SingleExchange(), optim=optim)
    both = on_ranks(2, lambda exchange: learnt(model, trainset, exchange, fixed_sizes=fixed_sizes, optim=optim)[1])
    for name, weight in alone.items():
        assert torch.equal(both[0][name], both[1][name])
        torch.testing.assert_close(both[0][name], weight, atol=1e-9, rtol=0)


def test_float16_comes_near_and_is_the_same_on_all_ranks(model: models.RankingModel, trainset: m.TrainSet) -> None:
    full = on_ranks(2, lambda exchange: learnt(model, trainset, exchange)[1])[0]
    both = on_ranks(2, lambda exchange: learnt(model, trainset, exchange, values="float16")[1])
    assert all(torch.equal(both[0][name], both[1][name]) for name in full)
    learnt_by_full, rounded = full["table.weight"] - model.table.weight, both[0]["table.weight"] - full["table.weight"]
    assert 0 < rounded.abs().max() < 0.01 * learnt_by_full.abs().max()


@pytest.mark.parametrize(("values", "bytes_per_row"), [("full", 4 + 5 * 8), ("float16", 4 + 6 * 2)])
@pytest.mark.parametrize("fixed_sizes", [False, True])
def test_each_row_of_a_rank_travels_once(
    model: models.RankingModel, trainset: m.TrainSet, values: str, bytes_per_row: int, fixed_sizes: bool
) -> None:
    """An int32 number, and 4 + 1 float64 columns of the table, or as many float16 and an exponent."""
    learners = on_ranks(2, lambda x: learnt(model, trainset, x, values=values, fixed_sizes=fixed_sizes)[0])
    for learner, rows in zip(learners, (slice(0, CUT), slice(CUT, ROWS)), strict=True):
        touched = 0
        for seed in range(STEPS):
            batch = make_batch(trainset, ROWS, seed)
            ids = torch.cat([batch.ids, *batch.sequences.values()], dim=1)[rows]
            present = ids != m.PADDING_ID
            touched += len((ids + model.input.columns.offsets)[present].unique())
        assert learner.gradients.table_bytes == touched * bytes_per_row


def test_one_rank_sends_nothing(model: models.RankingModel, trainset: m.TrainSet) -> None:
    learner, _ = learnt(model, trainset, SingleExchange(), values="float16")
    assert learner.gradients.table_bytes == 0


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.float32, (3, 4), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_packed_values_keep_eleven_bits_of_the_rows_largest(values: np.ndarray) -> None:
    sent = packed(torch.from_numpy(values))
    assert sent.dtype == torch.float16
    error = (unpacked(sent, torch.float32) - torch.from_numpy(values)).abs()
    largest = torch.from_numpy(values).abs().amax(dim=1, keepdim=True)
    assert (error <= largest * 2.0**-11 + 2.0**-140).all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_no_number_arrives_as_such(bad: float) -> None:
    arrived = unpacked(packed(torch.tensor([[1.0, bad], [0.5, 2.0]])), torch.float32)
    assert not torch.isfinite(arrived[0]).all()
    assert arrived[1].tolist() == [0.5, 2.0]


def test_no_rows_at_all_are_packed() -> None:
    assert unpacked(packed(torch.zeros(0, 3)), torch.float32).shape == (0, 3)


def test_the_padding_row_is_that_of_the_first_vocabulary(model: models.RankingModel) -> None:
    assert min(model.table.offsets.values()) + m.PADDING_ID == PADDING_ROW
    assert not model.table.weight[PADDING_ROW].any()
