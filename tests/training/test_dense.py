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
from training.optim import DenseOptimConf, OptimConf, Optimiser
from training.step import Learner

# torch.compile looks for a gradient that the lookup's rows do not keep, and torch's C++ warns.
compiles = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
ROWS = 24


@pytest.fixture(scope="module")
def trainset(tmp_path_factory: pytest.TempPathFactory) -> m.TrainSet:
    sizes = Sizes(users=12, anchors=6, watched=3, leaves=1)
    return write_trainset(tmp_path_factory.mktemp("trainset"), rows=64, valid_rows=64, gate_rows=64, sizes=sizes)


def loud(name: str, trainset: m.TrainSet, **conf: object) -> models.RankingModel:
    """Weights large enough that fewer bits show."""
    model = models.build(name, trainset, conf, seed=0)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random) * 0.3)
        model.table.weight[[start + m.PADDING_ID for start in model.table.offsets.values()]] = 0.0
    return model


def learnt(model: models.RankingModel, trainset: m.TrainSet, steps: int = 3) -> dict[str, torch.Tensor]:
    """The weights after some steps, of SGD: Adam would blow rounding up where a gradient is 0, as before batch norm."""
    conf = OptimConf(dense=DenseOptimConf(kind="sgd", learning_rate=0.1))
    learner = Learner(model, Optimiser(model.table, model.dense_parameters(), conf), SingleExchange())
    for seed in range(steps):
        learner.step(make_batch(trainset, ROWS, seed).to("cpu", torch.float32))
    return model.state_dict()


def assert_compiled_learns_the_same(model: models.RankingModel, trainset: m.TrainSet, backend: str) -> None:
    compiled = copy.deepcopy(model)
    compiled.compile_dense(backend)
    plain, seen = learnt(model, trainset), learnt(compiled, trainset)
    for key, weight in plain.items():
        torch.testing.assert_close(seen[key], weight, atol=1e-5, rtol=0)


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
    model.load_state_dict(lowered.state_dict())  # running means, too: they are of what was lowered
    assert torch.equal(lowered.eval()(batch), model.eval()(batch)), "what is judged and exported is not lowered"


def test_bfloat16_takes_the_products_of_the_network(trainset: m.TrainSet) -> None:
    model, seen = loud("deepfm", trainset), []
    model.lower(torch.bfloat16)
    model.get_submodule("body.deep.0").register_forward_hook(lambda _layer, _inputs, output: seen.append(output.dtype))
    model(make_batch(trainset, ROWS).to("cpu", torch.float32))
    assert seen == [torch.bfloat16]


@compiles
@pytest.mark.parametrize("name", ["esmm", "din"])
def test_what_is_compiled_learns_the_same(name: str, trainset: m.TrainSet) -> None:
    """Captured and differentiated ahead of time, and run as it is: no compiler is needed."""
    assert_compiled_learns_the_same(loud(name, trainset), trainset, backend="aot_eager")


@compiles
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # of torch's own
@pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="there is no C++ compiler")
def test_a_compiled_network_learns_the_same(trainset: m.TrainSet) -> None:
    assert_compiled_learns_the_same(loud("deepfm", trainset, hidden=[8]), trainset, backend="inductor")


@compiles
def test_what_is_compiled_makes_way_for_sums_over_ranks(trainset: m.TrainSet) -> None:
    """Batch norm asks the other ranks in the middle of the network, and once more in the backward pass."""
    model, batch = loud("deepfm", trainset, hidden=[8], batch_norm=True), make_batch(trainset, ROWS)
    sent: list[int] = []

    def doubled(tensor: torch.Tensor) -> torch.Tensor:
        sent.append(tensor.nbytes)  # what is counted is of no graph
        return 2 * tensor

    seen = []
    for is_compiled in (False, True):
        own = copy.deepcopy(model)
        own.synchronise(doubled)
        if is_compiled:
            own.compile_dense(backend="eager")
        logits = own(batch.to("cpu", torch.float32))
        torch.autograd.backward(logits.square().sum())
        assert own.table.weight.grad is not None
        seen.append((logits.detach(), own.table.weight.grad.to_dense()))
    torch.testing.assert_close(seen[1], seen[0])
    assert sent[: len(sent) // 2] == sent[len(sent) // 2 :]
    assert len(sent) == 4, "forward and backward of one layer, twice"


@compiles
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
