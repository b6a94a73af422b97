"""FuxiCTR 2.3.10's DIN on resident batches, in .venv-parity: its own `train_step`, clipping included.

shipped        `optimizer: adam`, no regularisation, as its configurations for DIN have it
best           with torch's fused Adam
adagrad        torch's Adagrad; ε of Dice as in the paper, as ours has it
adagrad_fused  that, fused
It reads the item's own id as the last event, by one lookup with the events.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

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
    TASK,
    ArmSpec,
    Rows,
    resident,
)
from benchmarks.step_weights import Link, attention, copy_ours, layer, network, tables
from benchmarks.train_files import ITEM_INDEX, SEQUENCE_LENGTH, USER_INDEX, write_for_fuxictr
from features.manifest import PADDING_ID

ADAM_RATE, ADAGRAD_RATE = 1e-3, 0.01
LOSS = "binary_crossentropy"
CLIPPED_AT = 10.0
"""`max_gradient_norm` of its `fit`."""
DICE_EPSILON = 1e-8
TABLES = "embedding_layer.embedding_layer.embedding_layers.{}.weight"


def feature_map(spec: ArmSpec, meta: Sequence[str]) -> Any:
    """Its feature map: the last field is the item's; `meta` are columns that its loader wants and no layer reads."""
    found = importlib.import_module("fuxictr.features").FeatureMap("bench-train", data_dir="")
    column = {"type": "categorical", "vocab_size": spec.rows // FIELDS, "padding_idx": PADDING_ID}
    for name in NAMES:
        found.features[name] = column | {"source": "item" if name == ITEM else "user"}
    found.features |= {name: {"type": "meta"} for name in meta}
    found.labels, found.default_emb_dim = [TASK], DIM
    found.num_fields = found.get_num_fields()
    return found


def built(spec: ArmSpec, meta: Sequence[str] = ()) -> Any:
    """The model, compiled, in train mode."""
    zoo = importlib.import_module("model_zoo.LongCTR")
    is_adam = not spec.variant.startswith("adagrad")
    learning = ("adam", LOSS, ADAM_RATE) if is_adam else ("Adagrad", LOSS, ADAGRAD_RATE)
    model = zoo.DIN(
        feature_map(spec, meta),
        gpu=0 if spec.device == "cuda" else -1,
        dnn_hidden_units=list(HIDDEN),
        attention_hidden_units=list(ATTENTION),
        embedding_dim=DIM,
        optimizer=learning[0],
        loss=learning[1],
        learning_rate=learning[2],
        verbose=0,
        model_root="",
        metrics=[],
    )
    if spec.copied:
        start_from_ours(spec, model)
    model = model.to(spec.torch_dtype)
    model.compile(*learning)  # again: the state of its Adagrad was there before the weights' type changed
    if spec.variant == "best":
        model.optimizer = torch.optim.Adam(model.parameters(), lr=ADAM_RATE, fused=True)
    if spec.variant == "adagrad_fused":
        model.optimizer = torch.optim.Adagrad(model.parameters(), lr=ADAGRAD_RATE, fused=True)
    model._max_gradient_norm, model._batch_index = CLIPPED_AT, 0  # as `fit` and `train_epoch` set them
    return model.train()


def start_from_ours(spec: ArmSpec, model: nn.Module) -> None:
    """Our weights, and the paper's ε of Dice."""
    unit = "attention_layers.attention_layer.mlp.{}"
    links = [*tables(spec, TABLES), *network("dnn.mlp.{}", step=2), *attention(unit, step=2)]
    links += layer("body.pools.0.unit.last", unit.format(2 * len(ATTENTION)))
    output = f"dnn.mlp.{2 * len(HIDDEN)}"
    links += [Link("head.weight", f"{output}.weight"), Link("bias", f"{output}.bias")]
    copy_ours(spec, links, dict(model.named_parameters()))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eps = DICE_EPSILON


class FuxiCTRStep:
    """See `Stepper`."""

    def __init__(self, spec: ArmSpec) -> None:
        self.model = built(spec)
        if spec.dtype == "float64":  # its own makes float32 of labels
            self.model.get_labels = partial(_labels_as_they_are)
        self.batches = [self._on_device(spec, rows) for rows in resident(spec)]

    def _on_device(self, spec: ArmSpec, rows: Rows) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        assert rows.events is not None, "it is in this bench for DIN"
        ids = torch.from_numpy(rows.ids).to(spec.device)
        of_user = {name: ids[:, place].contiguous() for place, name in enumerate(NAMES[:-1])}
        of_user[TASK] = torch.from_numpy(rows.labels).to(spec.device, spec.torch_dtype)
        events = torch.from_numpy(rows.events).to(spec.device)
        items = torch.cat([events, ids[:, -1:]], dim=1)
        return of_user, {ITEM: items.flatten()}, (events != PADDING_ID).to(spec.torch_dtype)

    def step(self, number: int) -> Tensor:
        """See `Stepper`."""
        loss: Tensor = self.model.train_step(self.batches[number])
        return loss.detach()


def _labels_as_they_are(batch: tuple[dict[str, Tensor], ...]) -> Tensor:
    return batch[0][TASK].view(-1, 1)


def make(spec: ArmSpec) -> FuxiCTRStep:
    """See `Stepper`."""
    return FuxiCTRStep(spec)


def fit(spec: ArmSpec, rows: int, folder: str) -> float:
    """Seconds of its `train_epoch` over its own loader for long sequences, with that loader's defaults, shuffled.

    The rest of its `fit`, evaluation and checkpoints, is left out.
    """
    files = Path(folder)
    write_for_fuxictr(spec, rows, files)
    model = built(spec, meta=(USER_INDEX, ITEM_INDEX, SEQUENCE_LENGTH))
    loader = importlib.import_module("model_zoo.LongCTR.longctr_dataloader").LongCTRDataLoader(
        model.feature_map,
        str(files / "data.parquet"),
        str(files / "user_info.parquet"),
        str(files / "item_info.parquet"),
        batch_size=spec.batch,
        shuffle=True,
        max_len=EVENTS,
    )
    model._total_steps, model._eval_steps, model._stop_training = 0, rows, False
    started = time.perf_counter()
    model.train_epoch(loader)
    return time.perf_counter() - started
