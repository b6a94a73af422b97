"""One step in parts against one step at once; what a step says of a loss that is no number."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from features import manifest as m
from features.errors import ConfError
from tests.training.test_models import NO_STATISTICS, make_batch
from tests.training.thread_ranks import on_ranks
from tests.training.trainset_factory import Sizes, write_trainset
from training import models
from training.batch import Batch
from training.exchange import Exchange, SingleExchange
from training.models import dien
from training.optim import DenseOptimConf, OptimConf, Optimiser
from training.row_optim import RowOptimConf
from training.step import Learner, StepLosses

ROWS, STEPS = 24, 4
OPTIM = OptimConf(embedding=RowOptimConf(l2=0.01), dense=DenseOptimConf(l2=0.01), clip_norm=0.5)


@pytest.fixture(scope="module")
def trainset(tmp_path_factory: pytest.TempPathFactory) -> m.TrainSet:
    sizes = Sizes(users=12, anchors=6, watched=3, leaves=1)
    return write_trainset(tmp_path_factory.mktemp("trainset"), rows=64, valid_rows=64, gate_rows=64, sizes=sizes)


def model_of(name: str, trainset: m.TrainSet) -> models.RankingModel:
    return models.build(name, trainset, {"embedding_dim": 4, **NO_STATISTICS.get(name, {})}, seed=0).double()


def learner_of(model: models.RankingModel, exchange: Exchange, accumulate: int = 1) -> Learner:
    """Of a copy: threads that play ranks share torch's random state, and cannot each build the same model."""
    model = copy.deepcopy(model)
    return Learner(model, Optimiser(model.table, model.dense_parameters(), OPTIM), exchange, accumulate)


def unevenly_judged(trainset: m.TrainSet, seed: int) -> Batch:
    """The first rows are judged by one task only, and some by none: parts have other counts than the whole."""
    batch = make_batch(trainset, rows=ROWS, seed=seed)
    mask = batch.label_mask.clone()
    mask[:7, 1:] = 0.0
    mask[3:9, 0] = 0.0
    return replace(batch, label_mask=mask)


def learnt(model: models.RankingModel, trainset: m.TrainSet, exchange: Exchange, accumulate: int) -> list[torch.Tensor]:
    """The weights after some steps, and the last losses."""
    learner, world = learner_of(model, exchange, accumulate), exchange.world
    for seed in range(STEPS):
        whole = unevenly_judged(trainset, seed)
        cut = [0, 10, ROWS] if world.size == 2 else [0, ROWS]
        losses = learner.step(whole.rows(cut[world.rank], cut[world.rank + 1]))
    return [exchange.sum_(losses.sums), losses.weights, *learner.model.state_dict().values()]


@pytest.fixture
def next_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """DIEN's other event is drawn from the rows at hand; here it is one of the same row, whatever the part."""
    monkeypatch.setattr(dien, "drawn", lambda events, present: events.roll(1, dims=1))


@pytest.mark.usefixtures("next_to_it")
@pytest.mark.parametrize("name", ["deepfm", "esmm", "mmoe", "dien"])
@pytest.mark.parametrize("parts", [2, 5])
def test_parts_learn_what_the_whole_batch_does(name: str, parts: int, trainset: m.TrainSet) -> None:
    model = model_of(name, trainset)
    whole = learnt(model, trainset, SingleExchange(), 1)
    in_parts = learnt(model, trainset, SingleExchange(), parts)
    for one, other in zip(whole, in_parts, strict=True):
        torch.testing.assert_close(other, one, atol=1e-10, rtol=0)


@pytest.mark.usefixtures("next_to_it")
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("name", ["deepfm", "dien"])
def test_fixed_sizes_learn_what_exact_ones_do(name: str, parts: int, trainset: m.TrainSet) -> None:
    model = model_of(name, trainset)
    exact = learnt(model, trainset, SingleExchange(), 1)
    model.table.fixed_sizes = True
    for one, other in zip(exact, learnt(model, trainset, SingleExchange(), parts), strict=True):
        torch.testing.assert_close(other, one, atol=1e-12 if parts == 1 else 1e-10, rtol=0)


@pytest.mark.parametrize("name", models.names())
def test_off_the_cpu_a_step_asks_for_no_value(name: str, trainset: m.TrainSet) -> None:
    """On the device "meta" there are shapes and no values: what would make a GPU's host wait fails."""
    model = models.build(name, trainset, {}, seed=0).to("meta")
    optim = OptimConf(embedding=RowOptimConf(l1=0.1, l2=0.1), clip_norm=0.5)
    learner = Learner(model, Optimiser(model.table, model.dense_parameters(), optim), SingleExchange())
    losses = learner.step(make_batch(trainset, ROWS).to("meta", torch.float32))
    assert (losses.sums.shape, losses.sums.dtype) == ((len(model.tasks),), torch.float32)


def test_parts_on_two_ranks_learn_what_one_batch_does(trainset: m.TrainSet) -> None:
    model = model_of("esmm", trainset)
    whole = learnt(model, trainset, SingleExchange(), 1)
    for in_parts in on_ranks(2, lambda exchange: learnt(model, trainset, exchange, 3)):
        for one, other in zip(whole, in_parts, strict=True):
            torch.testing.assert_close(other, one, atol=1e-10, rtol=0)


def test_more_parts_than_rows_is_a_row_each(trainset: m.TrainSet) -> None:
    batch = unevenly_judged(trainset, 0).rows(0, 3)
    losses = [learner_of(model_of("deepfm", trainset), SingleExchange(), parts).step(batch).sums for parts in (1, 7)]
    torch.testing.assert_close(losses[0], losses[1], atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("name", "conf"),
    [("deepfm", {"batch_norm": True}), ("din", {"attention_activation": "relu"})],
    ids=["norm", "dice"],
)
def test_statistics_of_the_batch_forbid_parts(name: str, conf: dict[str, object], trainset: m.TrainSet) -> None:
    model = models.build(name, trainset, conf, seed=0)
    optimiser = Optimiser(model.table, model.dense_parameters(), OPTIM)
    with pytest.raises(ConfError, match=r"accumulate=2: \d layers take statistics of the whole batch.*body\.deep\.1"):
        Learner(model, optimiser, SingleExchange(), 2)
    assert Learner(model, optimiser, SingleExchange(), 1).accumulate == 1


def test_a_step_says_which_rows_have_no_number(trainset: m.TrainSet) -> None:
    learner = learner_of(model_of("deepfm", trainset), SingleExchange(), 5)
    batch = make_batch(trainset, rows=ROWS)
    good = learner.step(batch)
    assert (bool(good.finite), bool(good.finite_rows.all()), float(learner.diverged)) == (True, True, 0)
    batch.dense[[3, 20], 0] = torch.inf
    bad = learner.step(batch)
    assert not bad.finite
    assert (~bad.finite_rows).nonzero().flatten().tolist() == [3, 20]
    assert (float(bad.diverged), float(learner.step(batch).diverged)) == (0, 1), "the next step tells the others"


def test_all_ranks_hear_of_one_ranks_bad_loss(trainset: m.TrainSet) -> None:
    model = model_of("deepfm", trainset)

    def told(exchange: Exchange) -> list[float]:
        learner, batch = learner_of(model, exchange), make_batch(trainset, rows=ROWS)
        if exchange.world.rank == 1:
            batch.dense[0, 0] = torch.nan
        steps: list[StepLosses] = [learner.step(batch) for _ in range(2)]
        return [float(step.diverged) for step in steps]

    assert on_ranks(2, told) == [[0, 1]] * 2
