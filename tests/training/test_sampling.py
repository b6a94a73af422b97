"""Probabilities corrected for negatives that were left out, against the definition and against all rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from features import manifest as m
from features.errors import ConfError
from tests.training.test_models import make_batch
from tests.training.trainset_factory import write_trainset
from training import models
from training.batch import Batch
from training.exchange import SingleExchange
from training.metrics import Judged, TaskMetrics, evaluate
from training.modeling.sampling import Sampling
from training.optim import DenseOptimConf, OptimConf, Optimiser
from training.row_optim import RowOptimConf
from training.step import Learner

KEPT = 0.1


@pytest.fixture(scope="module")
def trainset(tmp_path_factory: pytest.TempPathFactory) -> m.TrainSet:
    return write_trainset(tmp_path_factory.mktemp("trainset"), rows=64, valid_rows=64, gate_rows=64)


@given(st.floats(-30, 12), st.floats(1e-4, 1))
def test_a_probability_is_corrected_by_the_formula(logit: float, kept: float) -> None:
    p = 1 / (1 + np.exp(-logit))
    corrected = Sampling({"click": ("click",)}, {"click": kept}).double()(torch.tensor([[logit]], dtype=torch.float64))
    assert corrected.item() == pytest.approx(p / (p + (1 - p) / kept), rel=1e-6)


@given(st.floats(0.01, 0.9), st.floats(0.01, 0.9), st.floats(0.01, 1))
def test_a_conjunction_moves_with_its_first_label(click: float, buy: float, kept: float) -> None:
    """By counting: of 1 row, `click` are clicked, `click · buy` bought; negatives of click are thinned to `kept`."""
    rows = click + (1 - click) * kept
    seen = torch.tensor([[click / rows, buy, click * buy / rows]], dtype=torch.float64).logit()
    predicts = {"click": ("click",), "buy": ("buy",), "both": ("click", "buy")}
    corrected = Sampling(predicts, {"click": kept}).double()(seen)
    assert corrected[0].tolist() == pytest.approx([click, buy, click * buy], rel=1e-6)


def test_without_a_share_nothing_is_corrected(trainset: m.TrainSet) -> None:
    model, logits = models.build("esmm", trainset, {}, seed=0), torch.randn(5, 3)
    assert torch.equal(model.probabilities(logits), torch.sigmoid(logits))
    assert torch.equal(model.rows_before_sampling(make_batch(trainset)), torch.ones(37, 3).double())


def test_what_cannot_be_corrected_is_refused(trainset: m.TrainSet) -> None:
    with pytest.raises(ConfError, match="negatives_kept names enter_and_gift, gift; this model corrects enter"):
        models.build("esmm", trainset, {"negatives_kept": {"gift": 0.5, "enter_and_gift": 0.5}}, seed=0)
    with pytest.raises(ConfError, match=r"model\.negatives_kept\.enter=0"):
        models.build("esmm", trainset, {"negatives_kept": {"enter": 0}}, seed=0)


def test_rows_before_sampling_follow_the_first_label(trainset: m.TrainSet) -> None:
    batch = make_batch(trainset)
    model = models.build("esmm", trainset, {"negatives_kept": {"enter": 0.25}}, seed=0).double()
    places = [[task.name for task in trainset.tasks].index(name) for name in ("enter", "gift", "enter")]
    for place, (column, share) in enumerate(zip(places, (0.25, 1.0, 0.25), strict=True)):
        wanted = [1.0 if label else 1 / share for label in batch.labels[:, column].tolist()]
        assert model.rows_before_sampling(batch)[:, place].tolist() == wanted


def world(trainset: m.TrainSet) -> Batch:
    """8,000 rows with one id each; ids differ in how often `enter` follows."""
    count, rng = 8_000, np.random.default_rng(0)
    ids = torch.from_numpy(np.sort(rng.integers(2, 6, count)))
    chance = torch.tensor([0.0, 0.0, 0.02, 0.05, 0.1, 0.3])[ids].numpy()
    batch = chosen(make_batch(trainset, rows=1).to("cpu", torch.float32), torch.zeros(count, dtype=torch.int64))
    for value in (batch.ids, batch.dense, batch.labels, *batch.vectors.values(), *batch.sequences.values()):
        value.zero_()
    batch.labels[:, 0] = torch.from_numpy((rng.random(count) < chance).astype(np.float32))
    batch.label_mask[:, 0] = 1.0
    batch.ids[:, 0] = ids
    return batch


def chosen(batch: Batch, rows: torch.Tensor) -> Batch:
    """Some rows, or one of them often."""
    names = ("ids", "dense", "labels", "label_mask", "group", "row_id")
    tensors: dict[str, Any] = {name: getattr(batch, name)[rows] for name in names}
    for name in ("vectors", "sequences"):
        tensors[name] = {one: value[rows] for one, value in getattr(batch, name).items()}
    return replace(batch, position=None, **tensors)


def figures(model: models.RankingModel, batch: Batch, weights: torch.Tensor) -> TaskMetrics:
    with torch.no_grad():
        scores = model.eval().probabilities(model(batch).double())
    judged = Judged(score=scores[:, 0], label=batch.labels[:, 0], weight=weights[:, 0], group=batch.group)
    return evaluate(judged, SingleExchange())


def test_learnt_on_a_tenth_of_the_negatives_it_is_calibrated_on_all(trainset: m.TrainSet) -> None:
    """Every tenth negative of each id: no chance in the thinning, so that 1 % is the model's."""
    whole = world(trainset)
    negatives = (whole.labels[:, 0] == 0).nonzero().flatten()
    kept = torch.cat([(whole.labels[:, 0] == 1).nonzero().flatten(), negatives[:: round(1 / KEPT)]])
    thinned = chosen(whole, kept)
    sgd = OptimConf(
        embedding=RowOptimConf(kind="sgd", learning_rate=4), dense=DenseOptimConf(kind="sgd", learning_rate=4)
    )
    corrected = models.build("lr", trainset, {"negatives_kept": {"enter": KEPT}}, seed=0)
    learner = Learner(corrected, Optimiser(corrected.table, corrected.dense_parameters(), sgd), SingleExchange())
    for _ in range(40):
        learner.step(thinned)
    seen = figures(corrected, whole, whole.label_mask)
    assert seen.pcoc == pytest.approx(1, abs=0.01)
    of_train = figures(corrected, thinned, thinned.label_mask * corrected.rows_before_sampling(thinned))
    assert of_train.pcoc == pytest.approx(1, abs=0.01), "weighed back, the train rows say the same"
    assert of_train.logloss == pytest.approx(seen.logloss, rel=0.02)
    plain = models.build("lr", trainset, {}, seed=0)
    plain.load_state_dict(corrected.state_dict())
    uncorrected = figures(plain, whole, whole.label_mask)
    assert uncorrected.pcoc is not None
    assert uncorrected.pcoc > 3
    assert uncorrected.auc == pytest.approx(seen.auc)
