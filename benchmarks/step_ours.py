"""Our step on resident batches: `training.step.Learner`, as a training of one rank has it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.step_arms import ArmSpec, as_batch, model_conf, resident
from benchmarks.step_weights import our_model
from benchmarks.train_files import write_trainset
from pipeline.config import conf_folder
from training.batch import Batch
from training.config import ModelChoice, TrainConf
from training.exchange import Exchange, SingleExchange
from training.memory import keep_freed_memory
from training.optim import DenseOptimConf, OptimConf, Optimiser
from training.row_optim import RowOptimConf, RowTable
from training.step import Learner

ADAGRAD_RATE = 0.01
"""Of every matched arm: torch's default."""
TORCH_EPSILON = 1e-10
"""Of torch.optim.Adagrad, which the peers take."""


@dataclass(frozen=True)
class _ByElement:
    """The table with an accumulator per element: row-wise Adagrad over blocks of one column is element-wise Adagrad."""

    weight: nn.Parameter
    blocks: tuple[int, ...]


def shipped(spec: ArmSpec) -> OptimConf:
    """What conf/models has for the model."""
    return TrainConf.load(conf_folder() / "models" / f"{spec.model}.yaml").optim


def lazy_adam(_spec: ArmSpec) -> OptimConf:
    """Adam for all, lazy in the table, without regularisation: the nearest to the peers' fused Adam."""
    rows = RowOptimConf(kind="adam", learning_rate=1e-3)
    return OptimConf(embedding=rows, dense=DenseOptimConf(kind="adam", learning_rate=1e-3))


def adagrad(_spec: ArmSpec) -> OptimConf:
    """Adagrad for all, as torch has it."""
    rows = RowOptimConf(kind="adagrad", learning_rate=ADAGRAD_RATE, epsilon=TORCH_EPSILON)
    return OptimConf(embedding=rows, dense=DenseOptimConf(kind="adagrad", learning_rate=ADAGRAD_RATE))


COMPILED, LOWERED = "compiled", "compiled_bf16"
VARIANTS: Mapping[str, Callable[[ArmSpec], OptimConf]] = {
    "shipped": shipped,
    COMPILED: shipped,
    LOWERED: shipped,
    "lazy_adam": lazy_adam,
    "adagrad": adagrad,
}


def learner(spec: ArmSpec, exchange: Exchange) -> Learner:
    """As `training.run` puts it together."""
    model = our_model(spec).to(device=spec.device, dtype=spec.torch_dtype).train()
    prepared: Any = model
    if spec.variant == LOWERED:
        prepared.lower(torch.bfloat16)
    if spec.variant in (COMPILED, LOWERED):
        prepared.compile_dense()
    table: RowTable = model.table
    if spec.variant == "adagrad":
        table = _ByElement(model.table.weight, (1,) * model.table.weight.shape[1])
    conf, regularised = VARIANTS[spec.variant](spec), model.regularised_parameters()
    optimiser = Optimiser(table, model.dense_parameters(), conf, regularised=regularised)
    return Learner(model, optimiser, exchange, **_exchanged(spec))


def _exchanged(spec: ArmSpec) -> dict[str, Any]:
    """Further arguments of the learner: nothing where gradients travel as they are."""
    if spec.values == "full":
        return {}
    return {"conf": importlib.import_module("training.gradients").ExchangeConf(values=spec.values)}


class OurStep:
    """See `Stepper`."""

    def __init__(self, spec: ArmSpec, exchange: Exchange) -> None:
        if spec.device == "cpu":
            keep_freed_memory()
        self.learner = learner(spec, exchange)
        self.batches: list[Batch] = [as_batch(rows).to(spec.device, spec.torch_dtype) for rows in resident(spec)]

    def step(self, number: int) -> Tensor:
        """See `Stepper`."""
        losses = self.learner.step(self.batches[number])
        return losses.sums.sum() / losses.weights.sum()


def make(spec: ArmSpec) -> OurStep:
    """One rank alone."""
    torch.manual_seed(spec.seed)
    return OurStep(spec, SingleExchange())


def fit(spec: ArmSpec, rows: int, folder: str) -> float:
    """Seconds that `rows` take in `training.run.train`, read from Parquet by its feed; evaluation left out."""
    from training.run import train  # not at the top: only this needs Petastorm

    write_trainset(spec, rows, Path(folder))
    conf = TrainConf(
        model=ModelChoice(name=spec.model, **model_conf(spec)),
        batch_size=spec.batch,
        epochs=1,
        seed=spec.seed,
        device="cpu" if spec.device == "cpu" else "auto",
        threads=spec.threads,
        optim=shipped(spec),
    )
    result = train(conf, folder, f"{folder}/run", show_progress=False)
    assert result.rows_per_second is not None, "it has taken steps"
    return rows / result.rows_per_second
