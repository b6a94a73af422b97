"""`limelight compare`: what is trained, what is taken over, what the table says."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from features.errors import ConfError, DataError, LimelightError
from jobs import fit
from jobs.choice_charts import BEST, comparison_picture
from jobs.compare import compare, parse_models
from jobs.comparison import COLUMNS, COMPARE_FILE, ComparedModel, Comparison
from jobs.console import Steps
from tests.jobs.own_models import CONFS, Launched, compared, options_in, write_conf
from training.calibration import CALIBRATION_FILE
from training.result import load_model


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison]:
    folder = tmp_path_factory.mktemp("compare")
    return folder, compared(folder)


def test_the_figures_are_those_of_the_trainings(world: tuple[Path, Comparison]) -> None:
    folder, comparison = world
    written = json.loads((folder / "out" / COMPARE_FILE).read_text())
    assert list(written["models"]) == ["lr", "entire"]
    for name, model in written["models"].items():
        run = folder / "out" / "models" / name / "run"
        assert model["metrics"] == json.loads((run / "metrics.json").read_text())
        trained, _ = load_model(str(run))
        assert model["parameters"] == sum(p.numel() for p in trained.parameters())
        assert model["embedding_parameters"] == trained.table.weight.numel()
        assert model["rows_per_second"] > 0
    assert (folder / "out" / "models" / "entire" / "run" / CALIBRATION_FILE).is_file()
    assert written["best"]["test"]["click"]["parameters"] == ["lr"]
    assert written["best"]["test"]["buy"]["auc"] == []
    assert Comparison.model_validate({k: v for k, v in written.items() if k != "best"}) == comparison


def test_models_that_saw_different_rows_are_not_ranked(world: tuple[Path, Comparison]) -> None:
    """One of them is calibrated: of valid it is judged on half."""
    _, comparison = world
    assert comparison.best("valid", "click", "auc") == set()
    assert len(comparison.best("test", "click", "auc")) == 1
    assert [note.split(":")[0] for note in comparison.notes()] == ["valid click"]


def test_what_is_trained_is_not_trained_again(world: tuple[Path, Comparison], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, comparison = world
    launched = Launched(monkeypatch)
    assert compare(options_in(folder), Steps()) == comparison
    assert launched.runs == []
    shutil.rmtree(folder / "out" / "models" / "lr" / "run")
    again = compare(options_in(folder), Steps())
    assert (launched.runs, launched.resumed) == (["lr"], ["lr"])
    assert again.models["lr"].metrics == comparison.models["lr"].metrics


def test_another_conf_is_another_training(world: tuple[Path, Comparison], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, comparison = world
    launched = Launched(monkeypatch)
    write_conf(folder / "confs", "lr", CONFS["lr"] | {"seed": 9})
    other = compare(options_in(folder), Steps())
    assert (launched.runs, launched.resumed) == (["lr"], [])
    assert other.models["lr"].metrics != comparison.models["lr"].metrics
    write_conf(folder / "confs", "lr", CONFS["lr"])
    assert compare(options_in(folder), Steps()).models["lr"].metrics == comparison.models["lr"].metrics


def test_what_does_not_fit_is_left_out_or_refused(
    world: tuple[Path, Comparison], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = world
    launched = Launched(monkeypatch)
    write_conf(folder / "confs", "trees", {"model": {"name": "gbdt_lr", "hidden": 3}})
    with pytest.raises(DataError, match=r"table=trees: (?s:.*)Take it out of --models"):
        compare(options_in(folder, models=("lr", "trees")), Steps())
    comparison = compare(options_in(folder, models=("all-that-fit",)), Steps())
    assert (list(comparison.models), list(comparison.left_out)) == (["entire", "lr"], ["trees"])
    assert comparison.notes()[0].startswith("trees was left out: ")
    (folder / "confs" / "trees.yaml").unlink()
    with pytest.raises(ConfError, match=r"there is no din.yaml, lr is named twice; .* has entire, lr, or all-that-fit"):
        compare(options_in(folder, models=("lr", "din", "lr")), Steps())
    assert launched.runs == []


def test_models_of_one_task_can_be_given_another(
    world: tuple[Path, Comparison], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = world
    Launched(monkeypatch)
    comparison = compare(options_in(folder, models=("lr",), task="buy", out=tmp_path / "out"), Steps())
    assert comparison.places() == [("train", "buy"), ("valid", "buy"), ("test", "buy")]


def test_one_that_fails_does_not_stop_the_others(
    world: tuple[Path, Comparison], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = world
    train_here = Launched(monkeypatch)

    def launch(settings: Any, arguments: list[str]) -> None:
        if "entire" in arguments[arguments.index("--out") + 1]:
            raise LimelightError("training ended with exit code 4")
        train_here(settings, arguments)

    monkeypatch.setattr(fit, "launch", launch)
    comparison = compare(options_in(folder, models=("entire", "lr"), out=tmp_path / "out"), Steps())
    assert (list(comparison.models), comparison.failed) == (["lr"], {"entire": "training ended with exit code 4"})
    with pytest.raises(LimelightError, match="no model could be trained"):
        compare(options_in(folder, models=("entire",), out=tmp_path / "out"), Steps())


def model_of(auc: float | None, pcoc: float | None, parameters: int = 10, speed: float | None = 5.0) -> ComparedModel:
    figures = {"auc": auc, "logloss": auc, "pcoc": pcoc, "rows": 7}
    return ComparedModel(
        model="lr", parameters=parameters, embedding_parameters=1, rows_per_second=speed, ranks=1, epochs=1,
        best_epoch=0, calibration=None, metrics={"test": {"<click>": figures}},
    )  # fmt: skip


SOME = Comparison(
    models={
        "a": model_of(0.7, 0.5),
        "b": model_of(0.8, 1.9, parameters=3),
        "c": model_of(0.8, None, speed=None),
        "d": model_of(None, 0.0, parameters=3),
    }
)


def test_the_best_of_each_column() -> None:
    wanted = {
        "auc": {"b", "c"}, "gauc": set(), "logloss": {"a"}, "pcoc": {"b"}, "parameters": {"b", "d"},
        "rows_per_second": {"a", "b", "d"},
    }  # fmt: skip
    assert {column: SOME.best("test", "<click>", column) for column in wanted} == wanted


def test_the_table_marks_them() -> None:
    lines = SOME.markdown().splitlines()
    assert lines[2] == "| test | <click> | b | **0.8000** | – | 0.8000 | **1.9000** | **3** | **5** | 7 |"
    assert [re.split(r" \| ", line)[2] for line in lines[2:]] == ["b", "c", "a", "d"]
    console = Console(width=80, no_color=True)
    with console.capture() as captured:
        console.print(SOME.table())
    told = captured.get()
    assert "test · <click>" in told
    assert re.search(r"^b +0\.8000\* +– +0\.8000 +1\.9000\* +3\* +5\* +7 *$", told, re.MULTILINE)


def test_the_picture_is_svg_with_all_figures() -> None:
    split, task = "test", "<click>"
    figures = {name: {c: model.figure(split, task, c) for c in COLUMNS} for name, model in SOME.models.items()}
    best = {column: SOME.best(split, task, column) for column in COLUMNS}
    elements = list(ET.fromstring(comparison_picture(split, {task: figures}, {task: best})).iter())
    texts = {e.text: e.get("font-weight") for e in elements if e.tag.endswith("text")}
    assert {"<click> on test", "AUC", "logloss", "PCOC", "parameters", "rows/s", *"abcd", "undefined"} <= set(texts)
    assert (texts["0.5000"], texts["1.9000"], texts["3"]) == ("400", "700", "700")
    assert "GAUC" not in texts
    dots = [element.get("fill") for element in elements if element.tag.endswith("circle")]
    assert (len(dots), dots.count(BEST)) == (3 + 3 + 3 + 4 + 3, sum(map(len, best.values())))


def test_names_come_by_commas() -> None:
    assert parse_models("lr, deepfm,,din ") == ("lr", "deepfm", "din")
