"""The models against their equations, and what every model must keep: padding, targets, positions, seeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from features import manifest as m
from features.errors import ConfError, DataError
from tests.oracle.recommenders import pairs_of_fields, row_fields
from tests.training.trainset_factory import write_trainset
from training import models
from training.batch import Batch
from training.loss import total_loss, weighted_bce
from training.modeling.layers import BatchNorm, PositionTower, fm_second_order, pairwise
from training.models.esmm import logit_of_product
from training.models.mmoe import MMoE

ROWS = 37
NO_STATISTICS = {name: {"activation": "relu", "attention_activation": "relu"} for name in ("din", "dien")}
"""Confs of models with Dice, in which training and evaluation say the same."""


@pytest.fixture(scope="module")
def trainset(tmp_path_factory: pytest.TempPathFactory) -> m.TrainSet:
    return write_trainset(tmp_path_factory.mktemp("trainset"), rows=64, valid_rows=64, gate_rows=64)


@pytest.fixture(params=models.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make_batch(trainset: m.TrainSet, rows: int = ROWS, seed: int = 0) -> Batch:
    """Random rows: some ids absent, some sequences empty, children judged where their parent is positive."""
    random = torch.Generator().manual_seed(seed)

    def ids(vocabulary: str, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randint(0, trainset.num_ids(vocabulary), shape, generator=random)

    labels = (torch.rand(rows, len(trainset.tasks), generator=random) < 0.5).float()
    mask = torch.rand(rows, len(trainset.tasks), generator=random).round(decimals=1)
    for column, task in enumerate(trainset.tasks):
        if task.parent is not None:
            mask[:, column] *= labels[:, [t.name for t in trainset.tasks].index(task.parent)]
    return Batch(
        ids=torch.stack([ids(field.vocabulary, (rows,)) for field in trainset.categorical], dim=1),
        dense=torch.randn(rows, len(trainset.dense), generator=random),
        vectors={v.name: torch.randn(rows, v.dim, generator=random) for v in trainset.vectors},
        sequences={
            f"{s.name}.{f.name}": ids(f.vocabulary, (rows, s.length))
            * (torch.arange(s.length) < torch.randint(0, s.length + 1, (rows, 1), generator=random))
            for s in trainset.sequences
            for f in s.fields
        },
        labels=labels * (mask > 0),
        label_mask=mask,
        position=torch.randint(0, trainset.positions or 1, (rows,), generator=random),
        group=torch.arange(rows),
        row_id=torch.arange(rows),
    ).to("cpu", torch.float64)


def build(name: str, trainset: m.TrainSet, **conf: object) -> models.RankingModel:
    """A model in float64 with weights large enough for every term to show."""
    model = models.build(name, trainset, conf, seed=3).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
        padding = [start + m.PADDING_ID for start in trainset.offsets().values()]
        model.table.weight[padding] = 0.0
    return model


def loss_of(model: models.RankingModel, batch: Batch) -> torch.Tensor:
    labels, weights = model.targets(batch)
    return total_loss(weighted_bce(model(batch), labels, weights), weights.sum(dim=0), model.task_weights.double())


def test_every_model_is_found_by_its_name() -> None:
    assert set(models.names()) >= {path.stem for path in Path("conf/models").glob("*.yaml")}


def test_deepfm_is_its_equation(trainset: m.TrainSet) -> None:
    model, batch = build("deepfm", trainset, hidden=[5]).eval(), make_batch(trainset)
    logits = model(batch.without_position())
    weights = {name: value.detach().numpy() for name, value in model.named_parameters()}
    dim = model.table.dim
    for row in range(ROWS):
        looked_up = row_fields(batch, row, trainset, weights["table.weight"])
        dense, vector = batch.dense[row].numpy(), batch.vectors["content"][row].numpy()
        fields = [field[:dim] for field in looked_up]
        fields += [weights["input.vectors.0.weight"] @ vector, weights["input.dense.weight"] @ dense]
        wide = np.concatenate([dense, vector]) @ weights["body.terms.weight"][:, 0]
        linear = sum(field[dim] for field in looked_up) + wide + weights["bias"][0]
        hidden = weights["body.deep.0.weight"] @ np.concatenate([*fields, dense]) + weights["body.deep.0.bias"]
        deep = weights["head.weight"][0] @ np.maximum(hidden, 0)
        assert logits[row, 0].item() == pytest.approx(linear + pairs_of_fields(fields) + deep, abs=1e-9)


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(-3, 3), min_size=2, max_size=2), min_size=1, max_size=6))
def test_fm_sums_the_products_of_all_pairs(fields: list[list[float]]) -> None:
    fast = fm_second_order(torch.tensor([fields], dtype=torch.float64))
    assert fast.item() == pytest.approx(pairs_of_fields([np.array(field) for field in fields]), abs=1e-9)


def test_the_gradient_of_all_pairs_is_that_of_the_formula() -> None:
    fields = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pairwise, fields)
    assert torch.autograd.gradcheck(fm_second_order, fields)


@settings(deadline=None)
@given(st.floats(-30, 12), st.floats(-30, 12))
def test_the_logit_of_a_product_of_probabilities(a: float, b: float) -> None:
    logit = logit_of_product(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64))
    product = 1 / (1 + np.exp(-a)) / (1 + np.exp(-b))
    assert torch.sigmoid(logit).item() == pytest.approx(product, rel=1e-9)


def test_the_logit_of_a_product_stays_finite_where_the_product_is_not() -> None:
    far = torch.tensor([-400.0, 400.0, 0.0])
    assert torch.isfinite(logit_of_product(far, far)).all()
    assert logit_of_product(far, far)[0].item() == pytest.approx(-800)


def test_mmoe_mixes_experts_by_each_tasks_gate(trainset: m.TrainSet) -> None:
    model, batch = build("mmoe", trainset, experts=3).eval(), make_batch(trainset)
    assert isinstance(model, MMoE)
    flat = model.input(batch).flat
    weights = dict(model.named_parameters())
    for task, logits in enumerate(model(batch.without_position()).unbind(dim=1)):
        scores = (flat @ weights[f"gates.{task}.weight"].T).exp()
        shares = scores / scores.sum(dim=1, keepdim=True)
        mixed = sum(shares[:, [e]] * model.experts[e](flat) for e in range(3))
        torch.testing.assert_close(logits, model.towers[task](mixed)[:, 0])


def test_esmm_targets_are_ctr_and_ctcvr_over_all_impressions(trainset: m.TrainSet) -> None:
    model, batch = build("esmm", trainset), make_batch(trainset)
    labels, weights = model.targets(batch)
    enter, gift = (batch.labels[:, c] for c in (0, 2))
    enter_weight, gift_weight = (batch.label_mask[:, c] for c in (0, 2))
    assert model.tasks == ("enter", "gift", "enter_and_gift")
    assert torch.equal(labels[:, 2], enter * gift)
    assert torch.equal(weights[:, 2], torch.where(enter > 0, enter_weight * gift_weight, enter_weight))
    assert ((enter == 0) & (weights[:, 2] > 0)).any()


def test_esmm_has_no_loss_on_cvr_itself(trainset: m.TrainSet) -> None:
    model, batch = build("esmm", trainset), make_batch(trainset)
    assert model.task_weights.tolist() == [1.0, 0.0, 1.0]
    before = loss_of(model, batch)
    flipped = batch.labels.clone()
    outside = (batch.labels[:, 0] == 0) | (batch.label_mask[:, 0] == 0)
    flipped[outside, 2] = 1 - flipped[outside, 2]
    torch.testing.assert_close(loss_of(model, _with_labels(batch, flipped)), before)


def _with_labels(batch: Batch, labels: torch.Tensor) -> Batch:
    return replace(batch, labels=labels)


def test_training_and_exported_lookups_agree_with_gradients(name: str, trainset: m.TrainSet) -> None:
    model, batch = build(name, trainset, **NO_STATISTICS.get(name, {})), make_batch(trainset)
    gradients = []
    for training, fixed_sizes in ((True, False), (True, True), (False, False)):
        model.train(training)
        model.table.fixed_sizes = fixed_sizes
        model.zero_grad(set_to_none=True)
        loss = loss_of(model, batch)
        torch.autograd.backward(loss)
        gradient = model.table.weight.grad
        assert gradient is not None
        gradients.append((loss.detach(), gradient.to_dense()))
        assert gradient.is_sparse == training
    *trained, exported = gradients
    for seen in trained:
        torch.testing.assert_close(seen, exported, atol=1e-12, rtol=0)


def test_padding_is_never_read_nor_learnt(name: str, trainset: m.TrainSet) -> None:
    model, batch = build(name, trainset), make_batch(trainset)
    padding = [start + m.PADDING_ID for start in trainset.offsets().values()]
    torch.autograd.backward(loss_of(model, batch))
    gradient = model.table.weight.grad
    assert gradient is not None
    assert not gradient.to_dense()[padding].any()
    before = model.eval()(batch)
    with torch.no_grad():
        model.table.weight[padding] = 100.0
    assert torch.equal(model(batch), before)


def test_all_sequences_empty_and_one_row(name: str, trainset: m.TrainSet) -> None:
    model, batch = build(name, trainset, **NO_STATISTICS.get(name, {})), make_batch(trainset, rows=1)
    empty = replace(batch, sequences={key: torch.zeros_like(value) for key, value in batch.sequences.items()})
    torch.testing.assert_close(model.train()(empty), model.eval()(empty))
    assert torch.isfinite(model(empty)).all()


def test_an_untrained_model_says_about_the_base_rates(name: str, trainset: m.TrainSet) -> None:
    model, train = models.build(name, trainset, {}, seed=3), trainset.splits["train"]
    plain = [column for column, target in enumerate(model.targets_of) if len(target.all_of) == 1]
    rates = torch.tensor([train.positives[model.tasks[at]] / train.judged[model.tasks[at]] for at in plain])
    probabilities = model.probabilities(model(make_batch(trainset).to("cpu", torch.float32)))[:, plain]
    assert (probabilities - rates).abs().max() < 0.05
    assert (rates - 0.5).abs().max() > 0.1, "base rates of one half would not tell"


def test_the_seed_alone_decides_the_initial_weights(name: str, trainset: m.TrainSet) -> None:
    torch.manual_seed(99)
    first = models.build(name, trainset, {}, seed=3).state_dict()
    after = torch.rand(1)
    torch.manual_seed(99)
    assert torch.equal(torch.rand(1), after)
    second = models.build(name, trainset, {}, seed=3).state_dict()
    other = models.build(name, trainset, {}, seed=4).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    drawn = [key for key in first if not torch.equal(first[key], other[key])]
    # Linear weights begin at 0: where there is nothing else, nothing is drawn.
    assert bool(drawn) == (name not in ("lr", "gbdt_lr"))


def test_only_the_table_has_sparse_gradients(name: str, trainset: m.TrainSet) -> None:
    model = build(name, trainset)
    assert len(model.dense_parameters()) == len(list(model.parameters())) - 1
    assert sum(value.shape == model.table.weight.shape for value in model.state_dict().values()) == 1


def test_position_moves_labels_on_impressions_only_and_not_their_mean(name: str, trainset: m.TrainSet) -> None:
    model, batch = build(name, trainset), make_batch(trainset)
    moved = model(batch) - model(batch.without_position())
    spaces = {task.name: task.space for task in trainset.tasks}
    for column, target in enumerate(model.targets_of):
        if len(target.all_of) > 1:
            continue
        on_impressions = spaces[target.name] == "impressions"
        assert bool(moved[:, column].abs().max() > 1e-3) == on_impressions
        assert moved[:, column].mean().abs().item() < 1e-12


def test_the_position_tower_recovers_the_bias_it_was_shown() -> None:
    """Every place down costs 0.3 of the logit: the tower learns that, the bias the mean."""
    random = torch.Generator().manual_seed(0)
    position = torch.randint(0, 5, (200_000,), generator=random)
    effect = -0.3 * torch.arange(5.0)
    label = (torch.rand(200_000, generator=random) < torch.sigmoid(effect[position] - 0.5)).float()
    tower, bias = PositionTower(5, [True]), torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.LBFGS([*tower.parameters(), bias], max_iter=50)

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        logits = tower(position) + bias
        value = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], label)
        torch.autograd.backward(value)
        return value

    optimiser.step(loss)
    learnt = tower.weight[:, 0].detach() - tower.weight[0, 0].item()
    torch.testing.assert_close(learnt, effect, atol=0.05, rtol=0)


def test_batch_norm_is_torchs(trainset: m.TrainSet) -> None:
    ours, theirs = BatchNorm(4).double(), torch.nn.BatchNorm1d(4).double()
    for seed in range(3):
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3 + 5
        mine, reference = x.clone().requires_grad_(), x.clone().requires_grad_()
        torch.testing.assert_close(ours(mine), theirs(reference))
        torch.autograd.backward(ours(mine).square().sum())
        torch.autograd.backward(theirs(reference).square().sum())
        torch.testing.assert_close(mine.grad, reference.grad)
    torch.testing.assert_close(ours.mean, theirs.running_mean)
    torch.testing.assert_close(ours.variance, theirs.running_var)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_a_task_that_was_left_out_is_named(trainset: m.TrainSet) -> None:
    without = trainset.model_copy(update={"left_out": {"gift": "12 positives on 2026-01-10"}})
    with pytest.raises(DataError, match=r"task 'gift' was left out.*12 positives"):
        models.build("esmm", without, {}, seed=0)
    assert models.build("mmoe", without, {}, seed=0).tasks == ("enter", "watch")


def test_unknown_names_and_keys_are_named(trainset: m.TrainSet) -> None:
    with pytest.raises(ConfError, match=r"choose one of autoint, dcn, .*, xdeepfm"):
        models.build("dcm", trainset, {}, seed=0)
    with pytest.raises(ConfError, match=r"(?s)model\.dropout=1\.5.*model\.hiden=\[3\]"):
        models.build("deepfm", trainset, {"dropout": 1.5, "hiden": [3]}, seed=0)
    with pytest.raises(ConfError, match="task_weights names gift"):
        models.build("esmm", trainset, {"task_weights": {"gift": 2.0}}, seed=0)


def test_a_train_set_of_ids_alone(name: str, tmp_path: Path) -> None:
    trainset = write_trainset(tmp_path, rows=64, valid_rows=64, gate_rows=64)
    bare = trainset.model_copy(update={"dense": (), "vectors": (), "sequences": (), "positions": None})
    model = models.build(name, bare, {}, seed=0).double()
    batch = make_batch(bare)
    assert torch.isfinite(model(batch.without_position())).all()
