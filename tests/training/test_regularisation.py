"""L1 and L2 of a step against autograd of the loss as docs/training-options.md writes it out."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch.nn import functional

from features import manifest as m
from features.errors import ConfError
from tests.training.test_models import build, make_batch
from tests.training.trainset_factory import Sizes, write_trainset
from training.batch import Batch
from training.config import TrainConf
from training.exchange import SingleExchange
from training.modeling.layers import BatchNorm
from training.models import RankingModel
from training.optim import DenseOptimConf, OptimConf, Optimiser
from training.row_optim import RowOptimConf
from training.step import Learner

BIASES = ("bias", "position.weight")


@pytest.fixture(scope="module")
def trainset(tmp_path_factory: pytest.TempPathFactory) -> m.TrainSet:
    sizes = Sizes(users=40, anchors=30, watched=3, leaves=1)
    return write_trainset(tmp_path_factory.mktemp("trainset"), rows=64, valid_rows=64, gate_rows=64, sizes=sizes)


def touched_rows(model: RankingModel, batch: Batch) -> list[int]:
    """Rows of the table that the batch names, padding aside, found one by one."""
    columns = zip(model.input.inputs.categorical, batch.ids.T.tolist(), strict=True)
    named = [(column.vocabulary, ids) for column, ids in columns]
    named += [
        (field.vocabulary, batch.sequences[f"{sequence.name}.{field.name}"].flatten().tolist())
        for sequence in model.input.inputs.sequences
        for field in sequence.fields
    ]
    offsets = model.input.inputs.offsets()
    return sorted({offsets[name] + one for name, ids in named for one in ids if one != m.PADDING_ID})


def written_out(model: RankingModel, batch: Batch, optim: OptimConf) -> torch.Tensor:
    """mean loss + λ₁ ‖e‖₁ + λ₂/2 ‖e‖² + λ₁ ‖w‖₁ + λ₂/2 ‖w‖²."""
    labels, weights = model.targets(batch)
    losses = functional.binary_cross_entropy_with_logits(model(batch), labels, reduction="none")
    objective = ((losses * weights).sum(dim=0) / weights.sum(dim=0)).sum()
    rows: torch.Tensor = model.table.weight
    if optim.embedding.regularise == "touched":
        rows = rows[touched_rows(model, batch)]
    objective = objective + optim.embedding.l1 * rows.abs().sum() + optim.embedding.l2 / 2 * (rows * rows).sum()
    for name, weight in model.named_parameters():
        if name != "table.weight" and not name.endswith(BIASES):
            objective = objective + optim.dense.l1 * weight.abs().sum() + optim.dense.l2 / 2 * (weight * weight).sum()
    return objective


@pytest.mark.parametrize(
    ("regularise", "lazy"), [("touched", True), ("touched", False), ("all", False)], ids=["lazy", "touched", "all"]
)
@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_a_step_follows_the_gradient_of_the_written_out_loss(
    regularise: Literal["touched", "all"], lazy: bool, clip_norm: float | None, trainset: m.TrainSet
) -> None:
    """By SGD at rate 1, which makes a step the gradient itself."""
    rows = RowOptimConf(kind="sgd", learning_rate=1, l1=0.01, l2=0.3, regularise=regularise, lazy=lazy)
    optim = OptimConf(
        embedding=rows, dense=DenseOptimConf(kind="sgd", learning_rate=1, l1=0.02, l2=0.2), clip_norm=clip_norm
    )
    model, batch = build("deepfm", trainset, hidden=[5]), make_batch(trainset, rows=9)
    assert 0 < len(touched_rows(model, batch)) < 0.8 * trainset.table_rows()
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(written_out(model, batch, optim), parameters)
    gradients = tuple(g.to_dense() for g in gradients)
    norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
    scale = 1.0 if clip_norm is None else min(1.0, clip_norm / float(norm))
    before = [parameter.detach().clone() for parameter in parameters]
    regularised = model.regularised_parameters()
    optimiser = Optimiser(model.table, model.dense_parameters(), optim, regularised=regularised)
    Learner(model, optimiser, SingleExchange()).step(batch)
    for name, old, new, gradient in zip(names, before, parameters, gradients, strict=True):
        torch.testing.assert_close(old - new, scale * gradient, atol=1e-11, rtol=0, msg=name)


def test_all_rows_fall_where_all_are_regularised(trainset: m.TrainSet) -> None:
    conf = OptimConf(embedding=RowOptimConf(kind="adam", lazy=False, l2=0.1, regularise="all"))
    model, batch = build("lr", trainset), make_batch(trainset, rows=3)
    untouched = sorted(set(range(trainset.table_rows())) - set(touched_rows(model, batch)))
    before = model.table.weight.detach()[untouched].abs().clone()
    optimiser = Optimiser(model.table, model.dense_parameters(), conf)
    Learner(model, optimiser, SingleExchange()).step(batch)
    after = model.table.weight.detach()[untouched].abs()
    assert (after[before > 0.1] < before[before > 0.1]).all()
    assert not after[before == 0].any(), "rows of padding stay zero"


def test_a_lazy_optimiser_cannot_regularise_all_rows() -> None:
    wrong = {"model": {"name": "lr"}, "optim": {"embedding": {"kind": "adam", "l2": 0.1, "regularise": "all"}}}
    with pytest.raises(ConfError, match=r"optim\.embedding: regularise: all needs lazy: false; a lazy optimiser chang"):
        TrainConf.of(wrong)


def test_biases_norms_slopes_and_positions_are_not_regularised(trainset: m.TrainSet) -> None:
    model = build("din", trainset, batch_norm=True, activation="prelu")
    chosen = {id(parameter) for parameter in model.regularised_parameters()}
    for name, parameter in model.named_parameters():
        owner = model.get_submodule(name.rpartition(".")[0])
        is_weight = not name.endswith((*BIASES, "alpha", "table.weight")) and not isinstance(
            owner, BatchNorm | torch.nn.PReLU
        )
        assert (id(parameter) in chosen) == is_weight, name
    assert len(chosen) > 5
