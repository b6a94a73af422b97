"""What a training leaves, and how it is read again.

Below `out_url`, written by rank 0:

    trainset.json               what the model was trained on
    checkpoints/                see training.checkpoint
    best/                       weights and optimiser of the best epoch so far
    model.safetensors           weights of the best epoch, and optimiser.safetensors its state
    model.json                  name, settings, tasks and what each predicts, best epoch
    predictions-<split>.parquet see training.evaluation, for every split that is judged
    calibration.json            the curves of calibrated probabilities, if conf asks for them
    metrics.json                split → task → figures
    curves.json                 one record per epoch: train loss, figures of valid, rates, pace (training.clock)
    run.json                    its MLflow run
    profile/                    see training.profiler, where one was asked for and no other folder named
    result.json                 last of all: the training is complete
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from pydantic import Field
from safetensors.torch import load as load_tensors

from features.errors import DataError, Problem
from features.manifest import TRAINSET_FILE, Frozen, TrainSet
from training import models
from training.calibration import CALIBRATION_FILE, Calibration, CalibrationLayer
from training.config import TrainConf
from training.storage import Folder

CHECKPOINTS, BEST, PROFILE = "checkpoints", "best", "profile"
MODEL_FILE, WEIGHTS_FILE, OPTIMISER_FILE = "model.json", "model.safetensors", "optimiser.safetensors"
METRICS_FILE, CURVES_FILE, RESULT_FILE, RUN_FILE = "metrics.json", "curves.json", "result.json", "run.json"
TABLE_WEIGHT = "table.weight"
WRITTEN = (
    CHECKPOINTS,
    BEST,
    PROFILE,
    MODEL_FILE,
    WEIGHTS_FILE,
    OPTIMISER_FILE,
    CALIBRATION_FILE,
    METRICS_FILE,
    CURVES_FILE,
    RESULT_FILE,
)
"""What a training that begins anew removes; it writes the others again at once."""


class TrainResult(Frozen):
    """What a training came to; the same on every rank.

    Attributes:
        interrupted: a request to stop ended it before its end; a checkpoint was saved.
        given_up: it was ended after an epoch because it promised too little; only curves.json was written.
        metrics: split → task → figures; empty when interrupted or given up.
        rows_per_second, waiting_share, exchange_ms_per_step, bytes_sent_per_step, table_bytes_sent_per_step: of this
            process's steps; see training.clock.Pace.
        added: vocabulary → ids that a warm start added.
        run_id: of MLflow; None without tracking.
    """

    model: str
    tasks: tuple[str, ...]
    interrupted: bool
    given_up: bool = False
    epochs: int
    best_epoch: int | None
    world_size: int
    steps: int
    dropped_per_epoch: int
    rows_per_second: float | None = None
    waiting_share: float | None = None
    exchange_ms_per_step: float | None = None
    bytes_sent_per_step: float | None = None
    table_bytes_sent_per_step: float | None = None
    metrics: Mapping[str, Mapping[str, Mapping[str, float | int | None]]] = Field(default_factory=dict)
    added: Mapping[str, int] = Field(default_factory=dict)
    run_id: str | None = None

    @property
    def pace(self) -> str:
        """Rows per second, and what is lost to the feed, for people."""
        if self.rows_per_second is None:
            return "no step in this process"
        return f"{self.rows_per_second:,.0f} rows/s, waiting for data {self.waiting_share or 0:.1%}"


def read_trainset(url: str) -> TrainSet:
    """The manifest in a train set's folder.

    Raises:
        DataError: there is none.
    """
    try:
        return TrainSet.model_validate_json(Folder(url).read(TRAINSET_FILE))
    except FileNotFoundError as error:
        raise DataError([Problem(what=f"no {TRAINSET_FILE} in {url}", remedy="Export the train set first.")]) from error


def read_result(out: Folder) -> TrainResult | None:
    """The result of a complete training, None before that."""
    return TrainResult.model_validate_json(out.read(RESULT_FILE)) if RESULT_FILE in out.names() else None


def load_model(out_url: str) -> tuple[models.RankingModel, TrainSet]:
    """The trained model of a complete training, on CPU and in evaluation mode, and what it was trained on."""
    folder = Folder(out_url)
    conf = TrainConf.of(json.loads(folder.read(MODEL_FILE))["conf"])
    trainset = TrainSet.model_validate_json(folder.read(TRAINSET_FILE))
    model = models.build(conf.model.name, trainset, conf.model.conf, conf.seed)
    model.to(getattr(torch, conf.precision)).load_state_dict(load_tensors(folder.read(WEIGHTS_FILE)))
    if CALIBRATION_FILE in folder.names():
        model.calibration = CalibrationLayer(Calibration.model_validate_json(folder.read(CALIBRATION_FILE)))
    return model.eval(), trainset
