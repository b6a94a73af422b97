"""`limelight explain`: groups by what they cost, segments against scikit-learn, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import log_loss, roc_auc_score
from typer.testing import CliRunner

from features.errors import ConfError, DataError, ExitCode, NotReadyError
from jobs.cli import app
from jobs.console import Steps
from jobs.explain import EXPLAIN_FILE, PICTURE_FILE, ExplainOptions, by_segment, explain
from tests.jobs.own_models import compared


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("explain")
    compared(made)
    return made


def options_of(folder: Path, name: str = "lr", **changes: Any) -> ExplainOptions:
    model = folder / "out" / "models" / name
    options = ExplainOptions(model=model, split=None, repeats=3, seed=1, rows=10**6, by=(), out=folder / "explained")
    return replace(options, **changes)


@pytest.mark.parametrize(("name", "split"), [("lr", "test"), ("entire", "valid")])
def test_the_rows_are_those_that_were_judged(folder: Path, name: str, split: Any) -> None:
    """The calibrated model's valid rows, too, of which half were fitted on."""
    found = explain(options_of(folder, name, split=split, repeats=1), Steps())
    run = folder / "out" / "models" / name / "run"
    metrics = json.loads((run / "metrics.json").read_text())[split]
    one_pair = 2e-4  # batches of another size round differently, and two rows may change places
    assert found["auc"] == pytest.approx({task: metrics[task]["auc"] for task in metrics}, abs=one_pair)
    assert found["rows"] == pq.read_metadata(run / f"predictions-{split}.parquet").num_rows


def test_groups_by_what_they_cost(folder: Path) -> None:
    """Clicks follow the item and the price."""
    found = explain(options_of(folder), Steps())
    entries = found["loss_of_auc"]["click"]
    assert [entry["mean"] for entry in entries] == sorted((entry["mean"] for entry in entries), reverse=True)
    assert {"item", "all categorical"} == {entry["group"] for entry in entries[:2]}
    for entry in entries:
        assert entry["min"] <= entry["mean"] <= entry["max"]
        assert 0 <= entry["std"] <= entry["max"] - entry["min"] + 1e-12
    assert json.loads((folder / "explained" / EXPLAIN_FILE).read_text()) == found
    texts = [e.text for e in ET.parse(folder / "explained" / PICTURE_FILE).iter() if e.tag.endswith("text")]
    assert {"loss of AUC of click on test when permuted", *(entry["group"] for entry in entries)} <= set(texts)
    assert explain(options_of(folder), Steps()) == found
    assert explain(options_of(folder, seed=2), Steps()) != found
    assert explain(options_of(folder, rows=100), Steps())["rows"] == 100


def test_segments_are_those_of_the_files(folder: Path) -> None:
    found = explain(options_of(folder, by=("country", "note", "price"), repeats=1), Steps())["by"]
    samples = pa.concat_tables(pq.read_table(path) for path in sorted((folder / "own" / "test").iterdir()))
    predicted = pq.read_table(folder / "out" / "models" / "lr" / "run" / "predictions-test.parquet")
    score, label = predicted["p__click"].to_numpy(), predicted["y__click"].to_numpy()
    weight = samples["importance"].to_numpy()
    country = np.array([value or "(null)" for value in samples["country"].to_pylist()])
    assert sum(entry["rows"] for entry in found["country"]["click"]) == len(samples)
    assert [e["rows"] for e in found["country"]["click"]] == sorted(np.unique(country, return_counts=True)[1])[::-1]
    for entry in found["country"]["click"]:
        own = country == entry["value"]
        assert entry["rows"] == own.sum()
        assert entry["auc"] == pytest.approx(roc_auc_score(label[own], score[own], sample_weight=weight[own]))
        assert entry["logloss"] == pytest.approx(log_loss(label[own], score[own], sample_weight=weight[own]))
        assert entry["pcoc"] == pytest.approx((weight * score)[own].sum() / (weight * label)[own].sum())
    assert [entry["value"] for entry in found["note"]["click"]] == ["free text"]
    assert len(found["price"]["click"]) == 21
    assert found["price"]["click"][-1]["value"] == "(all others)"
    assert found["price"]["click"][-1]["rows"] == len(samples) - 20


def test_a_value_without_judged_rows_has_no_figures() -> None:
    rows = pa.table({"p__a": [0.2, 0.4, 0.6], "y__a": [0.0, 1.0, 0.0], "m__a": [1.0, 1.0, 0.0]})
    found = by_segment(rows, ["a"], pa.array(["x", "x", "y"]))["a"]
    assert found[0] == pytest.approx(
        {"value": "x", "auc": 1.0, "logloss": -(np.log(0.8) + np.log(0.4)) / 2, "pcoc": 0.6, "rows": 2, "positives": 1}
    )
    assert found[1] == {"value": "y", "auc": None, "logloss": None, "pcoc": None, "rows": 0, "positives": 0}


def test_what_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfError, match=r"--by colour: .* has no such column; it has item, country"):
        explain(options_of(folder, by=("colour",)), Steps())
    with pytest.raises(ConfError, match="--by bought: it holds list<"):
        explain(options_of(folder, by=("bought",)), Steps())
    with pytest.raises(ConfError, match="--split gate: the model was judged on test, valid, train"):
        explain(options_of(folder, split="gate"), Steps())
    with pytest.raises(NotReadyError, match="no complete training in"):
        explain(options_of(folder, model=tmp_path), Steps())
    shutil.copytree(folder / "out" / "models" / "lr" / "run", tmp_path / "alone" / "run")
    with pytest.raises(NotReadyError, match="no encoded samples in"):
        explain(options_of(folder, model=tmp_path / "alone"), Steps())


def test_files_that_changed_are_not_matched_by_row_number(folder: Path) -> None:
    path = folder / "own" / "valid" / "a.parquet"
    before = path.stat()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
    with pytest.raises(
        DataError, match=r"files have changed since the model was trained on them \(1\); e\.g\. .*a\.pa"
    ):
        explain(options_of(folder, split="valid", by=("country",)), Steps())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_the_command_shows_it(folder: Path) -> None:
    model = folder / "out" / "models" / "lr"
    told = CliRunner().invoke(app, ["explain", str(model), "--repeats", "1", "--by", "country"])
    assert told.exit_code == 0, told.output
    assert "click on test: AUC 0." in told.stdout
    assert "click on test by country" in told.stdout
    assert (model / "explain" / EXPLAIN_FILE).is_file()
    missing = CliRunner().invoke(app, ["explain", str(folder)])
    assert missing.exit_code == ExitCode.NOT_READY
