"""Worlds whose true probabilities are known: written down, models trained on them, predictions beside the truth.

<root>/<split>.parquet, schema.yaml   what models see
<root>/trainset/                      the same, encoded once for all models
<root>/runs/<name>/                   one training, as training/result.py lists it
The truth stays in memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from sklearn.metrics import roc_auc_score

from features.errors import DataError, Problem
from features.manifest import ROW_ID_COLUMN, SplitName, TrainSet
from jobs.console import Steps
from jobs.fit import conf_for, encoded, train_below
from jobs.settings import model_values
from training.evaluation import score_column
from training.result import METRICS_FILE
from training.samples.schema import SampleSchema

AT_ONCE = 2  # trainings, one core each
SCHEMA_FILE = "schema.yaml"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Training:
    """A model of conf/models with other settings; `layers` are keys below `model`."""

    name: str
    model: str
    layers: Mapping[str, Any]
    settings: Mapping[str, Any]
    seed: int

    @property
    def values(self) -> dict[str, Any]:
        """As a file of conf/models holds them."""
        values = model_values(self.model) | dict(self.settings) | {"seed": self.seed}
        return values | {"model": values["model"] | dict(self.layers)}


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training left.

    Attributes:
        scores: column p__<task> → probability of every row of test, in the order of the file.
        metrics: split → task → figures, as the run has judged itself.
    """

    scores: Mapping[str, Floats]
    metrics: Mapping[str, Mapping[str, Mapping[str, Any]]]

    def score(self, task: str) -> Floats:
        """[rows of test] probabilities of a task, judged there or not."""
        return self.scores[score_column(task)]


def write(root: Path, splits: Mapping[SplitName, pa.Table], columns: Mapping[str, Mapping[str, Any]]) -> None:
    """Splits and schema, in place of what was there."""
    root.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        pq.write_table(rows, root / f"{split}.parquet")
    (root / SCHEMA_FILE).write_text(yaml.safe_dump({"columns": dict(columns)}, sort_keys=False), encoding="utf-8")


def train(root: Path, trainings: Sequence[Training], steps: Steps) -> dict[str, Trained]:
    """Encode once, train each as `limelight fit` does, without its export; name → what it left.

    Raises:
        LimelightError: a training failed.
        DataError: predictions are not of all rows of test.
    """
    schema = SampleSchema.load(root / SCHEMA_FILE)
    names: tuple[SplitName, ...] = ("train", "valid", "test")
    splits = {split: str(root / f"{split}.parquet") for split in names}
    trainset = encoded(schema, splits, root.absolute() / "trainset", root.name, steps)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda training: _one(root.absolute(), training, trainset, steps), trainings)
        return dict(zip((training.name for training in trainings), found, strict=True))


def _one(root: Path, training: Training, trainset: TrainSet, steps: Steps) -> Trained:
    run = root / "runs" / training.name
    with steps.step(f"{root.name} {training.name}", live=False) as step:
        train_below(run, conf_for(training.values, trainset), root / "trainset", 1, step, resume=False)
    predicted = pq.read_table(run / "predictions-test.parquet")
    if predicted[ROW_ID_COLUMN].to_pylist() != list(range(trainset.splits["test"].rows)):
        what = "predictions are not of every row of test, in order"
        raise DataError([Problem(table=str(run), what=what, remedy="Run the benchmark again into an empty --out.")])
    tasks = [name for name in predicted.column_names if name.startswith(score_column(""))]
    return Trained(
        scores={name: predicted[name].to_numpy() for name in tasks},
        metrics=json.loads((run / METRICS_FILE).read_text(encoding="utf-8")),
    )


def sigmoid(logit: Floats) -> Floats:
    """Log-odds → probability."""
    return 1.0 / (1.0 + np.exp(-logit))


def auc(label: npt.NDArray[Any], score: Floats) -> float:
    """Of drawn labels, 0 or 1."""
    return float(roc_auc_score(label, score))


def auc_of_truth(probability: Floats, score: Floats) -> float:
    """AUC over all labels that could have been drawn: a row is positive with weight p and negative with 1 − p.

    Of a drawn label it differs by the noise of drawing alone, and by the pairs of a row with itself, 1/n of all.
    """
    label = np.repeat([1, 0], len(probability))
    weight = np.concatenate([probability, 1.0 - probability])
    return float(roc_auc_score(label, np.tile(score, 2), sample_weight=weight))
