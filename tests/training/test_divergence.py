"""A loss that is no number: which batch it was, on all ranks alike, and before anything is saved."""

from __future__ import annotations

import copy

import pytest
import torch

from features import manifest as m
from features.errors import DataError
from tests.training.test_models import make_batch
from tests.training.thread_ranks import on_ranks
from tests.training.trainset_factory import Sizes, write_trainset
from training import models
from training.batch import Batch
from training.divergence import DivergenceWatch
from training.exchange import Exchange, SingleExchange
from training.optim import OptimConf, Optimiser
from training.step import Learner

ROWS = 12


@pytest.fixture(scope="module")
def trainset(tmp_path_factory: pytest.TempPathFactory) -> m.TrainSet:
    sizes = Sizes(users=12, anchors=6, watched=3, leaves=1)
    return write_trainset(tmp_path_factory.mktemp("trainset"), rows=64, valid_rows=64, gate_rows=64, sizes=sizes)


@pytest.fixture(scope="module")
def model(trainset: m.TrainSet) -> models.RankingModel:
    return models.build("deepfm", trainset, {"embedding_dim": 4}, seed=0).double()


def watched(model: models.RankingModel, exchange: Exchange, batches: list[Batch]) -> DivergenceWatch:
    """After a step on each batch, as steps 3, 4, … of epoch 2; each rank has its half of the rows."""
    own = copy.deepcopy(model)
    learner = Learner(own, Optimiser(own.table, own.dense_parameters(), OptimConf()), exchange)
    watch = DivergenceWatch(learner, 8, "somewhere")
    for step, batch in enumerate(batches, start=3):
        each = ROWS // exchange.world.size
        rows = batch.rows(exchange.world.rank * each, (exchange.world.rank + 1) * each)
        watch.taken(2, step, rows.row_id, learner.step(rows))
    return watch


def batches_with(trainset: m.TrainSet, bad: dict[int, list[int]]) -> list[Batch]:
    """Four batches, infinite in some rows of some of them; row i of batch b has the id 100 b + i."""
    made = []
    for place in range(4):
        batch = make_batch(trainset, rows=ROWS, seed=place)
        batch.dense[bad.get(place, []), 0] = torch.inf
        batch.row_id[:] = 100 * place + torch.arange(ROWS)
        made.append(batch)
    return made


def test_finite_steps_pass(model: models.RankingModel, trainset: m.TrainSet) -> None:
    watched(model, SingleExchange(), batches_with(trainset, {})).require_finite()


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_first_bad_batch_is_named_on_every_rank(
    ranks: int, model: models.RankingModel, trainset: m.TrainSet
) -> None:
    """The steps after it are bad in every row, as its update has spoilt the weights."""
    batches = batches_with(trainset, {1: [1, 7, 9]})

    def told(exchange: Exchange) -> str:
        watch = watched(model, exchange, batches)
        watch.saved_at = 40
        with pytest.raises(DataError) as caught:
            watch.require_finite()
        return str(caught.value)

    for message in on_ranks(ranks, told):
        assert "epoch 2, step 4: the loss is not a number" in message
        assert "diverged (3); e.g. 101, 107, 109." in message
        assert "The checkpoint of step 40, before it, is kept in somewhere" in message


def test_at_most_five_rows_are_named_and_no_checkpoint_is_said(
    model: models.RankingModel, trainset: m.TrainSet
) -> None:
    watch = watched(model, SingleExchange(), batches_with(trainset, {3: list(range(9))}))
    with pytest.raises(DataError, match=r"step 6.*\(9\); e\.g\. 300, 301, 302, 303, 304\. There is no checkpoint yet"):
        watch.require_finite()


def test_a_weight_that_is_no_number_is_found_before_the_loss_is(
    model: models.RankingModel, trainset: m.TrainSet
) -> None:
    own = copy.deepcopy(model)
    learner = Learner(own, Optimiser(own.table, own.dense_parameters(), OptimConf()), SingleExchange())
    watch = DivergenceWatch(learner, 8, "somewhere")
    batch = make_batch(trainset, rows=ROWS)
    watch.taken(0, 0, batch.row_id, learner.step(batch))
    with torch.no_grad():
        own.table.weight[3, 0] = torch.nan
    with pytest.raises(DataError, match=r"epoch 0, step 0: a weight after it is not a number.*\(12\)"):
        watch.require_finite()
