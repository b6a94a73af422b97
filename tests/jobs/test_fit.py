"""`limelight fit` from files to an exported model: one run alone, one on two ranks, and what stops it beforehand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner, Result

from features import manifest as m
from features.errors import ConfError, ExitCode
from jobs.cli import app
from jobs.console import Steps
from jobs.fit import conf_for, encoded, judged_splits
from jobs.settings import model_values
from tests.training.samples.own_files import SCHEMA, rows, write
from training.samples.build import sample_rows
from training.samples.files import SplitFiles
from training.samples.schema import SampleSchema
from training.scorer import Scorer

Files = tuple[Path, dict[m.SplitName, str]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("own")
    return folder, write(folder)


def fit(files: Files, *arguments: str) -> Result:
    folder, splits = files
    of_files = ["--train", splits["train"], "--valid", splits["valid"], "--schema", f"{folder}/schema.yaml"]
    return CliRunner().invoke(app, ["fit", *of_files, *arguments])


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def quick_conf(folder: Path, name: str) -> str:
    """Of a model, two epochs of small batches."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(model_values(name) | {"epochs": 2, "batch_size": 64}))
    return str(path)


def test_fit_writes_metrics_curves_checkpoint_and_an_export_that_scores_the_same(files: Files) -> None:
    folder, splits = files
    out = folder / "esmm-out"
    options = ["--test", splits["test"], "--model", "esmm", "--out", str(out)]
    told = fit(files, *options, "--conf", quick_conf(folder, "esmm"), "--profile")
    assert told.exit_code == 0, told.output
    judge_pace(out, told.stdout)
    metrics = read(out / "metrics.json")
    assert set(metrics) == {"train", "valid", "test"}
    for split, tasks in metrics.items():
        whole = pq.read_table(splits[split]).to_pandas()
        assert set(tasks) == {"click", "buy", "click_and_buy"}
        assert tasks["click"]["rows"] == len(whole)
        assert tasks["buy"]["rows"] == ((whole["click"] == 1) & (whole["buy_known"] == 1)).sum()
        assert {"auc", "gauc", "logloss", "pcoc"} <= set(tasks["click"])
        assert tasks["click"]["auc"] > 0.6
    assert [curve["epoch"] for curve in read(out / "curves.json")] == [0, 1]
    assert (out / "run" / "model.safetensors").exists()
    judge_export(out, folder)


def judge_pace(out: Path, told: str) -> None:
    """The closing table has the training's pace, and the profile's is printed as it was saved."""
    result = read(out / "run" / "result.json")
    shown = (f"{result['rows_per_second']:,.0f}", f"{result['waiting_share']:.1%}", f"{result['steps']:,}")
    assert any(all(figure in line for figure in shown) for line in told.splitlines() if "│" in line)
    assert (out / "profile" / "profile.txt").read_text() in told
    assert read(out / "profile" / "profile.json")["model"] == "esmm"
    assert not (out / "run" / "profile").exists()


def judge_export(out: Path, folder: Path) -> None:
    """The exported graph says of raw rows what the training side predicted for them."""
    predicted = pq.read_table(out / "run" / "predictions-valid.parquet").sort_by("row_id").to_pandas()
    schema = SampleSchema.load(folder / "schema.yaml")
    first = next(SplitFiles.below("valid", str(folder / "valid")).batches(schema.read))
    scored = Scorer.open(str(out / "export")).score(sample_rows(first, schema, 0))
    assert len(scored["click"]) > 100
    for task, found in scored.items():
        np.testing.assert_allclose(found, predicted[f"p__{task}"][: len(found)], atol=1e-5)


def test_samples_are_encoded_again_only_when_they_have_changed(tmp_path: Path) -> None:
    splits = write(tmp_path, train=200, valid=100, test=50)
    schema, root = SampleSchema.load(tmp_path / "schema.yaml"), tmp_path / "trainset"

    def made() -> dict[str, int]:
        encoded(schema, splits, root, "own", Steps())
        return {path.name: path.stat().st_mtime_ns for path in (root / "train").glob("*.parquet")}

    first = made()
    assert first == made()
    pq.write_table(rows(100, 9), f"{splits['valid']}/b.parquet")
    assert first != made()


def test_two_ranks(files: Files) -> None:
    folder, _ = files
    out = folder / "two"
    told = fit(files, "--model", "lr", "--np", "2", "--out", str(out), "--conf", quick_conf(folder, "lr"))
    assert told.exit_code == 0, told.output
    assert set(read(out / "metrics.json")) == {"train", "valid"}
    assert read(out / "run" / "result.json")["world_size"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--model", "gbdt_lr"], ExitCode.BAD_DATA, "no column of leaves"),
        (["--model", "deepfn"], ExitCode.BAD_CONF, "deepfn"),
        (["--model", "deepfm", "--conf", "nowhere.yaml"], ExitCode.BAD_CONF, "no training conf at nowhere.yaml"),
    ],
)
def test_what_a_model_cannot_read_is_said_before_ranks_start(
    files: Files, arguments: list[str], code: ExitCode, told: str, tmp_path: Path
) -> None:
    done = fit(files, *arguments, "--out", str(tmp_path / "out"))
    assert done.exit_code == code, done.output
    assert told in done.stderr
    assert not (tmp_path / "out" / "run").exists()


def test_names_of_tasks_give_way_to_those_of_the_samples(tmp_path: Path) -> None:
    splits = write(tmp_path, train=200, valid=100, test=50)
    trainset = encoded(SampleSchema.load(tmp_path / "schema.yaml"), splits, tmp_path / "trainset", "own", Steps())
    conf = conf_for(model_values("esmm"), trainset)
    assert (conf.model.conf["parent"], conf.model.conf["child"]) == ("click", "buy")
    assert conf.early_stopping.task is None
    assert conf_for(model_values("deepfm"), trainset).model.conf["task"] == "click"
    alone = trainset.model_copy(update={"tasks": trainset.tasks[:1]})
    with pytest.raises(ConfError, match="esmm wants a label that is given another one"):
        conf_for(model_values("esmm"), alone)


def test_gauc_is_of_groups(files: Files) -> None:
    metrics = {"valid": {"click": {"auc": 0.7, "gauc": 0.6}}}
    assert judged_splits(metrics, has_group=False) == {"valid": {"click": {"auc": 0.7}}}
    assert judged_splits(metrics, has_group=True) == metrics
    assert SampleSchema.model_validate(yaml.safe_load(SCHEMA)).plain("group") == "person"
