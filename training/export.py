"""PyTorch → ONNX, and the published folder around it.

The graph has no position tower: `Batch.position` is None while it is traced. Its inputs are named as in
`training.scorer.graph_inputs`; its outputs are `logits` and `probabilities`, both [n, T]; n is free. Logits are as
trained; probabilities are calibrated if the model is, and MANIFEST.json says how.
"""

from __future__ import annotations

import copy
import json
import logging
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from features.encoding import Encoder
from features.errors import GateStoppedError
from features.manifest import OOV_ID, PADDING_ID, TRAINSET_FILE, TrainSet, sequence_column, vector_column
from features.storage import read_bytes
from training.batch import Batch
from training.modeling.base import RankingModel, Target
from training.published import (
    EXAMPLES_FILE,
    GRAPH_FILE,
    MODEL_FILE,
    SCHEMA_FILE,
    Contents,
    Output,
    seal,
)
from training.sample_rows import schema_of, to_rows
from training.scorer import DENSE, IDS, LOGITS, PROBABILITIES, graph_inputs, open_graph, run_graph

MAX_LOGIT_DIFFERENCE = 1e-4
EXAMPLES = 20
DAY_COLUMN = "dt"
INLINE_LIMIT = 1 << 30  # bytes of weights above which they lie beside the graph: ONNX ends at 2 GB

Array = NDArray[Any]


def serving_batch(inputs: Mapping[str, Tensor], trainset: TrainSet) -> Batch:
    """Graph inputs → the rows as they look when serving: no position, no labels, no user, no impression."""
    ids = inputs[IDS]
    none = torch.zeros(0)
    return Batch(
        ids=ids,
        dense=inputs[DENSE] if DENSE in inputs else torch.zeros(ids.shape[0], 0),
        vectors={vector.name: inputs[vector_column(vector.name)] for vector in trainset.vectors},
        sequences={
            f"{sequence.name}.{field.name}": inputs[sequence_column(sequence.name, field.name)]
            for sequence in trainset.sequences
            for field in sequence.fields
        },
        labels=none,
        label_mask=none,
        position=None,
        group=none,
        row_id=none,
    )


class ServingGraph(nn.Module):
    """The model as the exported graph: tensors in a fixed order in, logits and probabilities out."""

    def __init__(self, model: RankingModel, trainset: TrainSet, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.trainset, self.names = model, trainset, names

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Tensors in the order of `names` → logits [n, T], probabilities [n, T]."""
        logits = self.model(serving_batch(dict(zip(self.names, inputs, strict=True)), self.trainset))
        return logits, self.model.probabilities(logits)


def torch_scores(model: RankingModel, trainset: TrainSet, inputs: Mapping[str, Array]) -> tuple[Array, Array]:
    """What PyTorch says, in evaluation and on CPU: logits and probabilities, both [n, T] float32."""
    graph = ServingGraph(for_serving(model), trainset, tuple(inputs))
    with torch.no_grad():
        logits, probabilities = graph(*(torch.from_numpy(np.ascontiguousarray(value)) for value in inputs.values()))
    return logits.numpy(), probabilities.numpy()


def for_serving(model: RankingModel) -> RankingModel:
    """The model in evaluation, float32 and on CPU: itself if it is that already, otherwise a copy."""
    if not model.training and all(p.device.type == "cpu" and p.dtype == torch.float32 for p in model.parameters()):
        return model
    return copy.deepcopy(model).to(device="cpu", dtype=torch.float32).eval()


def probe(trainset: TrainSet, rows: int, *, oov: bool = False, empty: bool = False, seed: int = 0) -> dict[str, Array]:
    """Made-up graph inputs of the right shapes: every id OOV, every sequence empty, or anything goes."""
    rng = np.random.default_rng(seed)

    def drawn(vocabulary: str, shape: tuple[int, ...]) -> Array:
        return np.full(shape, OOV_ID) if oov else rng.integers(0, trainset.num_ids(vocabulary), shape)

    inputs: dict[str, Array] = {
        IDS: np.stack([drawn(column.vocabulary, (rows,)) for column in trainset.categorical], axis=1).astype(np.int64)
    }
    if trainset.dense:
        inputs[DENSE] = rng.normal(size=(rows, len(trainset.dense))).astype(np.float32)
    for vector in trainset.vectors:
        inputs[vector_column(vector.name)] = rng.normal(size=(rows, vector.dim)).astype(np.float32)
    for sequence in trainset.sequences:
        shape = (rows, sequence.length)
        for field in sequence.fields:
            events = np.full(shape, PADDING_ID) if empty else drawn(field.vocabulary, shape)
            inputs[sequence_column(sequence.name, field.name)] = events.astype(np.int64)
    return inputs


def export_graph(model: RankingModel, trainset: TrainSet, folder: Path) -> None:
    """Write `model.onnx`, and check it with one row, empty sequences and OOV ids.

    Raises:
        GateStoppedError: if the graph does not compute what the model does.
    """
    model = for_serving(model)
    example = probe(trainset, 3)
    graph = ServingGraph(model, trainset, tuple(example)).eval()
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    with _quiet_exporter():
        program = torch.onnx.export(
            graph,
            tuple(torch.from_numpy(value) for value in example.values()),
            input_names=list(example),
            output_names=[LOGITS, PROBABILITIES],
            dynamic_shapes=(tuple({0: torch.export.Dim.DYNAMIC} for _ in example),),
            dynamo=True,
            verbose=False,
        )
        if program is None:
            raise GateStoppedError(f"the exporter gave no graph of {type(model).__name__}")
        program.save(str(folder / GRAPH_FILE), external_data=weights > INLINE_LIMIT)
    _check_graph(model, trainset, folder)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter's own news: torchvision that we do not have, its own deprecated calls, merged axis names."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            warnings.filterwarnings("ignore", message=".*axis name.*will not be used.*", category=UserWarning)
            yield
    finally:
        registration.setLevel(level)


def _check_graph(model: RankingModel, trainset: TrainSet, folder: Path) -> None:
    session = open_graph(folder, threads=1)
    cases = {
        "one row": probe(trainset, 1, seed=1),
        "seven rows": probe(trainset, 7, seed=2),
        "empty sequences": probe(trainset, 5, empty=True, seed=3),
        "OOV ids": probe(trainset, 5, oov=True, seed=4),
        "one row of OOV ids and empty sequences": probe(trainset, 1, oov=True, empty=True, seed=5),
    }
    wrong = []
    for case, inputs in cases.items():
        wanted = torch_scores(model, trainset, inputs)
        seen = run_graph(session, inputs, len(inputs[IDS]), width=wanted[0].shape[1])
        for name, ours, theirs in zip((LOGITS, PROBABILITIES), wanted, seen, strict=True):
            difference = float(np.abs(theirs - ours).max())
            if not difference <= MAX_LOGIT_DIFFERENCE:  # NaN is wrong, too
                wrong.append(f"{case}: {name} differ by {difference:.3g}")
    if wrong:
        raise GateStoppedError("the exported graph does not compute what the model does: " + "; ".join(wrong))


def export_folder(
    model: RankingModel, trainset: TrainSet, root: str, samples: pa.Table, card: Mapping[str, Any], folder: Path
) -> Contents:
    """Write the published folder, whole or not at all.

    Args:
        model: as trained; it is left as it was.
        trainset, root: what it was trained on, and the folder (URL) that its paths are relative to.
        samples: unencoded rows, to take the examples and the schema from.
        card: what model.json says: name, settings, run.
        folder: where; an older export there is replaced.

    Raises:
        GateStoppedError: if the graph does not compute what the model does.
    """
    model = for_serving(model)
    draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.draft")
    draft.mkdir(parents=True)
    try:
        export_graph(model, trainset, draft)
        _copy_artefacts(trainset, root, draft)
        (draft / MODEL_FILE).write_text(json.dumps(dict(card), indent=1, sort_keys=True))
        _write_examples(model, trainset, samples, draft)
        outputs = tuple(_output(model, target) for target in model.targets_of)
        contents = seal(draft, str(card.get("name", type(model).__name__)), outputs)
        if folder.exists():
            shutil.rmtree(folder)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return contents


def _output(model: RankingModel, target: Target) -> Output:
    layer = model.calibration
    how = None if layer is None else layer.calibration.how(target.name)
    return Output(name=target.name, all_of=target.all_of, calibration=how)


def _copy_artefacts(trainset: TrainSet, root: str, folder: Path) -> None:
    (folder / TRAINSET_FILE).write_text(trainset.model_dump_json(indent=1))
    paths = [vocabulary.path for vocabulary in trainset.vocabularies if vocabulary.path is not None]
    paths += [trainset.leaves.path] if trainset.leaves else []
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(read_bytes(f"{root}/{path}"))


def _write_examples(model: RankingModel, trainset: TrainSet, samples: pa.Table, folder: Path) -> None:
    """The first rows, with what PyTorch says of them: the scorer is tested against another implementation."""
    encoder = Encoder.load(trainset, str(folder))
    columns = [name for name in samples.column_names if name in {*encoder.columns(), DAY_COLUMN}]
    rows = samples.select(columns).slice(0, EXAMPLES)
    _, probabilities = torch_scores(model, trainset, graph_inputs(encoder.encode(rows), trainset))
    lines = [
        json.dumps({"row": row, "expected": dict(zip(model.tasks, map(float, scores), strict=True))})
        for row, scores in zip(to_rows(rows), probabilities, strict=True)
    ]
    (folder / EXAMPLES_FILE).write_text("\n".join(lines) + "\n")
    (folder / SCHEMA_FILE).write_text(json.dumps(schema_of(rows), indent=1))
