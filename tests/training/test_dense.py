"""The dense part compiled, and in bfloat16: on a CPU, by the code that runs on a GPU."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch

from features import manifest as m
from features.errors import ConfError
from tests.training.test_models import make_batch
from tests.training.trainset_factory import Sizes, write_trainset
from training import models
from training.config import TrainConf
from training.exchange import SingleExchange
from training.optim import OptimConf, Optimiser
from training.step import Learner

ROWS = 24


@pytest.fixture(scope="module")
def trainset(tmp_path_factory: pytest.TempPathFactory) -> m.TrainSet:
    sizes = Sizes(users=12, anchors=6, watched=3, leaves=1)
    return write_trainset(tmp_path_factory.mktemp("trainset"), rows=64, valid_rows=64, gate_rows=64, sizes=sizes)


def loud(name: str, trainset: m.TrainSet, **conf: object) -> models.RankingModel:
    """Weights large enough that fewer bits show."""
    model = models.build(name, trainset, {"embedding_dim": 4, **conf}, seed=0)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random) * 0.3)
        model.table.weight[[start + m.PADDING_ID for start in model.table.offsets.values()]] = 0.0
    return model


def learnt(model: models.RankingModel, trainset: m.TrainSet, steps: int = 3) -> dict[str, torch.Tensor]:
    """The weights after some steps."""
    learner = Learner(model, Optimiser(model.table, model.dense_parameters(), OptimConf()), SingleExchange())
    for seed in range(steps):
        learner.step(make_batch(trainset, ROWS, seed).to("cpu", torch.float32))
    return model.state_dict()


@pytest.mark.parametrize("name", models.names())
def test_bfloat16_leaves_logits_loss_and_gradients_in_float32(name: str, trainset: m.TrainSet) -> None:
    model, batch = loud(name, trainset), make_batch(trainset, ROWS).to("cpu", torch.float32)
    torch.manual_seed(0)
    full, lowered = model(batch), copy.deepcopy(model)
    lowered.lower(torch.bfloat16)
    torch.manual_seed(0)
    logits, auxiliary = lowered.with_auxiliary(batch)
    assert logits.dtype == torch.float32
    assert auxiliary is None or auxiliary.dtype == torch.float32
    assert (logits - full).abs().max() < 0.05 * full.abs().max()
    assert not torch.equal(logits, logits.bfloat16().float()), "a logit has all its bits"
    torch.autograd.backward(logits.sum())
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in lowered.parameters())
    assert torch.equal(lowered.eval()(batch), model.eval()(batch)), "what is judged and exported is not lowered"


def test_bfloat16_takes_the_products_of_the_network(trainset: m.TrainSet) -> None:
    model, seen = loud("deepfm", trainset), []
    model.lower(torch.bfloat16)
    model.body.get_submodule("deep.0").register_forward_hook(lambda _layer, _inputs, output: seen.append(output.dtype))
    model(make_batch(trainset, ROWS).to("cpu", torch.float32))
    assert seen == [torch.bfloat16]


@pytest.mark.parametrize(("name", "conf"), [("deepfm", {"batch_norm": True}), ("esmm", {}), ("din", {})])
def test_what_is_compiled_learns_the_same(name: str, conf: dict[str, object], trainset: m.TrainSet) -> None:
    """Captured and differentiated ahead of time, and run as it is: no compiler is needed."""
    model = loud(name, trainset, **conf)
    compiled = copy.deepcopy(model)
    compiled.compile_dense(backend="aot_eager")
    plain, seen = learnt(model, trainset), learnt(compiled, trainset)
    for key, weight in plain.items():
        torch.testing.assert_close(seen[key], weight, atol=1e-5, rtol=0)


@pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="there is no C++ compiler")
def test_a_compiled_network_learns_the_same(trainset: m.TrainSet) -> None:
    model = loud("deepfm", trainset, hidden=[8])
    compiled = copy.deepcopy(model)
    compiled.compile_dense()
    plain, seen = learnt(model, trainset), learnt(compiled, trainset)
    for key, weight in plain.items():
        torch.testing.assert_close(seen[key], weight, atol=1e-5, rtol=0)


def test_a_copy_does_not_compute_with_the_weights_of_what_was_compiled(trainset: m.TrainSet) -> None:
    model, batch = loud("deepfm", trainset), make_batch(trainset, ROWS).to("cpu", torch.float32)
    model.compile_dense(backend="eager")
    before, copied = model(batch), copy.deepcopy(model)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert torch.equal(copied(batch), torch.zeros_like(before))
    assert torch.equal(model(batch), before)


@pytest.mark.parametrize("conf", [{"dense_precision": "bfloat16"}, {"exchange": {"values": "float16"}}])
def test_exactness_and_rounding_are_refused_together(conf: dict[str, object]) -> None:
    with pytest.raises(ConfError, match="precision=float64 is for exactness"):
        TrainConf.of({"model": {"name": "lr"}, "precision": "float64", **conf})
