"""Retrains: one at a time, and which training that was cut off may go on. The whole of one runs in tests/e2e."""

from __future__ import annotations

import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from features.errors import HeldError
from features.manifest import TRAINSET_FILE, TrainSet
from jobs.console import Steps
from jobs.retrain import Retrainer
from jobs.settings import Settings
from jobs.train_model import is_same_trainset
from jobs.turn import turn
from pipeline.context import Context
from pipeline.tables import Warehouse
from tests.training.trainset_factory import DEFAULT_TASKS, write_trainset


@pytest.fixture(scope="module")
def trainset(tmp_path_factory: pytest.TempPathFactory) -> TrainSet:
    return write_trainset(tmp_path_factory.mktemp("trainset"), rows=256, valid_rows=64, gate_rows=64)


def run_on(folder: Path, trainset: TrainSet) -> Path:
    (folder / TRAINSET_FILE).write_text(trainset.model_dump_json(), encoding="utf-8")
    return folder


def test_without_an_earlier_training_there_is_nothing_to_go_on_with(tmp_path: Path, trainset: TrainSet) -> None:
    assert not is_same_trainset(tmp_path, trainset)


def test_the_same_rows_written_anew_are_the_same(tmp_path: Path, trainset: TrainSet) -> None:
    train = trainset.splits["train"]
    moved = [file.model_copy(update={"path": f"elsewhere/{file.path}"}) for file in train.files]
    rewritten = trainset.model_copy(
        update={"splits": dict(trainset.splits) | {"train": train.model_copy(update={"files": tuple(moved)})}}
    )
    assert is_same_trainset(run_on(tmp_path, rewritten), trainset)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"lineage": {"samples/dt=2026-01-02": "other digest"}}, id="other samples"),
        pytest.param({"catalog_fingerprint": "other"}, id="other features"),
        pytest.param({"seed": 12345}, id="other order"),
        pytest.param({"tasks": DEFAULT_TASKS[:1]}, id="other tasks"),
    ],
)
def test_other_rows_or_another_encoding_start_anew(
    tmp_path: Path, trainset: TrainSet, change: dict[str, object]
) -> None:
    assert not is_same_trainset(run_on(tmp_path, trainset.model_copy(update=change)), trainset)


@pytest.mark.parametrize("kind", ["full", "incremental"])
def test_there_is_one_retrain_at_a_time(tmp_path: Path, kind: str) -> None:
    context = cast(Context, SimpleNamespace(warehouse=Warehouse(str(tmp_path))))
    second = Retrainer(context, Settings.load("local"), None, Steps())
    retrain = {"full": second.full, "incremental": second.incremental}[kind]
    with turn(context.warehouse), pytest.raises(HeldError, match="retrains of-this-warehouse is held by run"):
        retrain(datetime.date(2026, 1, 12))
