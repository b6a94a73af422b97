"""DeepCTR-Torch 0.3.0's step on resident batches, in .venv-parity: the body of its `fit`'s loop, metrics off.

`fit` also calls `.item()` twice in a step, for its running loss: left out here, in its favour on a GPU.

shipped        as a user gets it: L2 over all tables in the loss, `compile("adam", …)`, the sum of the losses
best           the same without L2, with torch's fused Adam
adagrad        without L2, its own "adagrad", and the mean of the losses: what ours can be compared with step by step
adagrad_fused  that with torch's fused Adagrad
"""

from __future__ import annotations

import importlib
import time
from threading import Thread
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.step_arms import (
    ATTENTION,
    DIM,
    EVENTS,
    FIELDS,
    HIDDEN,
    ITEM,
    NAMES,
    ArmSpec,
    Rows,
    drawn,
    resident,
)
from benchmarks.step_weights import Link, attention, copy_ours, layer, network, tables

ADAGRAD_RATE = 0.01
LENGTH = "length"
LOSS = "binary_crossentropy"


def peer() -> tuple[Any, Any]:
    """Its modules `models` and `inputs`. On import a thread asks PyPI for its newest version: it is not started."""
    with patch.object(Thread, "start", lambda _: None):
        return importlib.import_module("deepctr_torch.models"), importlib.import_module("deepctr_torch.inputs")


def built(spec: ArmSpec) -> Any:
    """The model, compiled, in train mode."""
    zoo, inputs = peer()
    sparse = [inputs.SparseFeat(name, spec.rows // FIELDS, embedding_dim=DIM) for name in NAMES]
    conf: dict[str, Any] = {"dnn_hidden_units": HIDDEN, "device": spec.device}
    if spec.variant != "shipped":
        conf["l2_reg_embedding"] = 0.0
    if spec.model == "deepfm":
        conf |= {} if spec.variant == "shipped" else {"l2_reg_linear": 0.0}
        model = zoo.DeepFM(sparse, sparse, **conf)
    else:
        history = inputs.SparseFeat(f"hist_{ITEM}", spec.rows // FIELDS, embedding_dim=DIM, embedding_name=ITEM)
        columns = [*sparse, inputs.VarLenSparseFeat(history, maxlen=EVENTS, length_name=LENGTH)]
        model = zoo.DIN(columns, [ITEM], att_hidden_size=ATTENTION, **conf)
    if spec.copied:
        start_from_ours(spec, model)
    model = model.to(spec.torch_dtype)
    model.compile(optimiser(spec, model), LOSS, metrics=[])
    return model.train()


def optimiser(spec: ArmSpec, model: nn.Module) -> str | torch.optim.Optimizer:
    """What `compile` is given."""
    if spec.variant == "best":
        return torch.optim.Adam(model.parameters(), fused=True)
    if spec.variant == "adagrad_fused":
        return torch.optim.Adagrad(model.parameters(), lr=ADAGRAD_RATE, fused=True)
    return {"shipped": "adam", "adagrad": "adagrad"}[spec.variant]


def start_from_ours(spec: ArmSpec, model: nn.Module) -> None:
    """Our weights; a scale and a shift that only its Dice has are held at 1 and 0."""
    theirs = dict(model.named_parameters())
    links = [*tables(spec, "embedding_dict.{}.weight"), *network("dnn.linears.{}")]
    links += [Link("bias", "out.bias"), Link("head.weight", "dnn_linear.weight")]
    if spec.model == "deepfm":
        links += tables(spec, "linear_model.embedding_dict.{}.weight", is_linear=True)
    else:
        links += attention("attention.local_att.dnn.linears.{}")
        links += layer("body.pools.0.unit.last", "attention.local_att.dense")
    for name, parameter in theirs.items():
        if ".bn." in name:
            parameter.requires_grad_(False)
    copy_ours(spec, links, theirs)


def columns_of(rows: Rows) -> dict[str, Any]:
    """What its `fit` takes: column → [n] or [n, L]."""
    found: dict[str, Any] = {name: rows.ids[:, place] for place, name in enumerate(NAMES)}
    if rows.events is not None:
        found |= {f"hist_{ITEM}": rows.events, LENGTH: np.full(len(rows.labels), EVENTS)}
    return found


class DeepCTRStep:
    """See `Stepper`."""

    def __init__(self, spec: ArmSpec) -> None:
        self.model = built(spec)
        self.reduction = "mean" if spec.variant.startswith("adagrad") else "sum"
        self.batches = [self._on_device(spec, rows) for rows in resident(spec)]

    def _on_device(self, spec: ArmSpec, rows: Rows) -> tuple[Tensor, Tensor]:
        columns = columns_of(rows)
        wide = [columns[name].reshape(len(rows.labels), -1) for name in self.model.feature_index]
        inputs = torch.from_numpy(np.concatenate(wide, axis=1))  # `fit` makes floats of ids, too
        labels = torch.from_numpy(rows.labels)
        return inputs.to(spec.device, spec.torch_dtype), labels.to(spec.device, spec.torch_dtype)

    def step(self, number: int) -> Tensor:
        """See `Stepper`."""
        inputs, labels = self.batches[number]
        model = self.model
        found = model(inputs).squeeze(-1)
        model.optim.zero_grad()
        loss: Tensor = model.loss_func(found, labels, reduction=self.reduction)
        total = loss + model.get_regularization_loss() + model.aux_loss
        total.backward()
        model.optim.step()
        return loss.detach() if self.reduction == "mean" else loss.detach() / len(labels)


def make(spec: ArmSpec) -> DeepCTRStep:
    """See `Stepper`."""
    return DeepCTRStep(spec)


def fit(spec: ArmSpec, rows: int, folder: str) -> float:  # noqa: ARG001 - it reads no files
    """Seconds of its own `fit` over rows that are in memory, one epoch, shuffled by its DataLoader; metrics off."""
    model, found = built(spec), drawn(spec, rows)
    columns = columns_of(found)
    started = time.perf_counter()
    model.fit(columns, found.labels, batch_size=spec.batch, epochs=1, verbose=0)
    return time.perf_counter() - started
