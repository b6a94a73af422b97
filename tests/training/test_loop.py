"""Steps of several ranks against one; early stopping; the loss as a sum over all ranks."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from features import manifest as m
from features.errors import ConfError
from tests.training.test_models import make_batch
from tests.training.thread_ranks import ThreadExchange, on_ranks
from tests.training.trainset_factory import Sizes, write_trainset
from training import models
from training.batch import Batch
from training.config import TrainConf
from training.exchange import Exchange, SingleExchange
from training.judgement import Progress, judged
from training.loss import total_loss, weighted_bce
from training.optim import DenseOptimConf, OptimConf, Optimiser
from training.row_optim import RowOptimConf
from training.step import Learner

_BUILDING = threading.Lock()  # torch's random state belongs to the process, not to the thread that plays a rank
STEPS = 200
ROWS = 24
OPTIMISERS = {
    "row-wise Adagrad, Adam": OptimConf(embedding=RowOptimConf(l2=0.01), clip_norm=0.5),
    "lazy Adam, Adagrad": OptimConf(
        embedding=RowOptimConf(kind="adam", learning_rate=0.01), dense=DenseOptimConf(kind="adagrad")
    ),
    "lazy Adam with L2, SGD": OptimConf(
        embedding=RowOptimConf(kind="adam", learning_rate=0.01, l2=0.01),
        dense=DenseOptimConf(kind="sgd", learning_rate=0.05, l2=0.001),
    ),
}


@pytest.fixture(scope="module")
def trainset(tmp_path_factory: pytest.TempPathFactory) -> m.TrainSet:
    sizes = Sizes(users=12, anchors=6, watched=3, leaves=1)
    return write_trainset(tmp_path_factory.mktemp("trainset"), rows=64, valid_rows=64, gate_rows=64, sizes=sizes)


def part(batch: Batch, rows: slice) -> Batch:
    """Some of a batch's rows."""
    cut: dict[str, Any] = {}
    for item in fields(batch):
        value = getattr(batch, item.name)
        cut[item.name] = {k: v[rows] for k, v in value.items()} if isinstance(value, dict) else value[rows]
    return Batch(**cut)


def losses_of(trainset: m.TrainSet, name: str, optim: OptimConf, exchange: Exchange) -> Tensor:
    """[STEPS, T] losses over all ranks; rank r has its share of every batch, and more is masked on rank 0."""
    world = exchange.world
    conf = {"batch_norm": True, "embedding_dim": 4} | ({"experts": 2} if name == "mmoe" else {})
    with _BUILDING:
        model = models.build(name, trainset, conf, seed=world.rank).double()
    exchange.broadcast_parameters(model.state_dict())
    learner = Learner(model, Optimiser(model.table, model.dense_parameters(), optim), exchange)
    bounds = [0, 5, 16, ROWS] if world.size == 3 else [0, 7, ROWS] if world.size == 2 else [0, ROWS]
    losses = []
    for step in range(STEPS):
        batch = make_batch(trainset, rows=ROWS, seed=step % 10)
        mask = batch.label_mask.clone()
        mask[:5, 1:] = 0.0  # whatever the number of ranks, rank 0 begins with rows that only enter judges
        own = part(replace(batch, label_mask=mask), slice(bounds[world.rank], bounds[world.rank + 1]))
        seen = learner.step(own)
        losses.append(exchange.sum_(seen.sums) / seen.weights.clamp(min=1e-9))
    return torch.stack(losses)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_two_ranks_learn_what_one_does(trainset: m.TrainSet, optimiser: str) -> None:
    alone = losses_of(trainset, "mmoe", OPTIMISERS[optimiser], SingleExchange())
    both = on_ranks(2, lambda exchange: losses_of(trainset, "mmoe", OPTIMISERS[optimiser], exchange))
    assert torch.equal(both[0], both[1])
    assert (alone[-10:].mean() < 0.97 * alone[:10].mean()).item(), "it learns, so that equal losses mean something"
    torch.testing.assert_close(both[0], alone, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", ["deepfm", "esmm"])
def test_three_ranks_learn_what_one_does(trainset: m.TrainSet, name: str) -> None:
    optim = OPTIMISERS["row-wise Adagrad, Adam"]
    alone = losses_of(trainset, name, optim, SingleExchange())
    together = on_ranks(3, lambda exchange: losses_of(trainset, name, optim, exchange))
    torch.testing.assert_close(together[2], alone, atol=1e-9, rtol=0)


def test_any_rank_can_ask_all_to_stop(trainset: m.TrainSet) -> None:
    def flag(exchange: ThreadExchange) -> float:
        model = models.build("deepfm", trainset, {}, seed=0).double()
        learner = Learner(model, Optimiser(model.table, model.dense_parameters(), OptimConf()), exchange)
        return learner.step(make_batch(trainset), flag=exchange.world.rank == 1).flag.item()

    assert on_ranks(2, flag) == [1.0, 1.0]


def test_the_loss_is_a_sum_over_the_weight_of_all_rows() -> None:
    random = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(9, 2, generator=random), torch.rand(9, 2, generator=random).round()
    weights = torch.rand(9, 2, generator=random) * torch.tensor([1.0, 0.0])
    factors = torch.tensor([3.0, 5.0])
    whole = weights.sum(dim=0)
    parts = [
        total_loss(weighted_bce(logits[rows], labels[rows], weights[rows]), whole, factors)
        for rows in (slice(0, 2), slice(2, 9))
    ]
    each = torch.nn.functional.binary_cross_entropy(torch.sigmoid(logits[:, 0]), labels[:, 0], reduction="none")
    expected = 3.0 * (each * weights[:, 0]).sum() / weights[:, 0].sum()
    torch.testing.assert_close(sum(parts), expected)  # the second task has no weight, and adds nothing


def conf(**early_stopping: object) -> TrainConf:
    return TrainConf.of({"model": {"name": "deepfm"}, "epochs": 9, "early_stopping": early_stopping})


def after(values: Sequence[float | None], settings: TrainConf) -> Progress:
    """Progress after epochs with these values of the metric, as far as it goes on."""
    metric = ("enter", settings.early_stopping.metric)
    progress = Progress()
    for epoch, value in enumerate(values):
        if progress.finished:
            break
        progress = judged(progress, {"epoch": epoch, "valid": {"enter": {metric[1]: value}}}, metric, settings)
    return progress


def test_it_stops_after_patience_epochs_without_a_gain_and_keeps_the_best() -> None:
    progress = after([0.6, 0.7, 0.65, 0.69, 0.9], conf(patience=2))
    assert (progress.finished, progress.best_epoch, len(progress.curves)) == (True, 1, 4)


def test_logloss_is_to_fall() -> None:
    assert after([0.6, 0.5, 0.55], conf(metric="logloss")).best_epoch == 1


def test_a_small_gain_is_none() -> None:
    assert after([0.600, 0.604, 0.608], conf(min_gain=0.01, patience=2)).best_epoch == 0


def test_an_undefined_metric_is_no_gain_and_the_first_epoch_stands() -> None:
    progress = after([None, None], conf(patience=2))
    assert (progress.finished, progress.best_epoch, progress.best_value) == (True, 0, None)
    assert after([None, 0.5], conf(patience=2)).best_epoch == 1


def test_it_ends_with_the_last_epoch() -> None:
    rising = [0.5 + epoch / 100 for epoch in range(20)]
    assert len(after(rising, conf(patience=3)).curves) == 9


def test_without_a_validation_day_every_epoch_is_run_and_the_last_is_kept() -> None:
    progress, settings = Progress(), conf(patience=1)
    for epoch in range(settings.epochs):
        assert not progress.finished
        progress = judged(progress, {"epoch": epoch, "valid": {}}, ("enter", "auc"), settings)
    assert (progress.finished, progress.best_epoch) == (True, settings.epochs - 1)


def test_all_wrong_settings_are_named_at_once() -> None:
    with pytest.raises(ConfError, match=r"(?s)batch_size=0.*optim\.dense\.kind='adamw'.*epoch=3"):
        TrainConf.of({"model": {"name": "deepfm"}, "batch_size": 0, "epoch": 3, "optim": {"dense": {"kind": "adamw"}}})


def test_every_shipped_conf_is_valid(trainset: m.TrainSet) -> None:
    shipped = sorted((Path(__file__).parents[2] / "conf" / "models").glob("*.yaml"))
    assert {path.stem for path in shipped} == set(models.names())
    for path in shipped:
        settings = TrainConf.load(path)
        assert settings.model.name == path.stem
        assert settings.batch_size % 16 == 0
        models.build(settings.model.name, trainset, settings.model.conf, settings.seed)
