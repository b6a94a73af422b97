"""The whole chain on little data, by the commands a user types: nothing in it is replaced by anything."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import pytest

from pipeline.tables import Warehouse
from pipeline.trainset import load
from tests.e2e.demo import LAST_DAY, MODELS, NEXT_RUN, SET, Demo
from tests.e2e.short_runs import limelight
from tests.e2e.standalone_cluster import Cluster, shown

pytestmark = [pytest.mark.horovod, pytest.mark.timeout(900)]


def test_the_summary_has_every_field(demo: Demo) -> None:
    summary = demo.summary()
    assert summary["source"] == "simulate"
    assert (len(summary["days"]), summary["days"][-1]) == (18, str(LAST_DAY))
    assert summary["world_size"] == 2
    stages = {stage["name"]: stage for stage in summary["stages"]}
    assert {"ingest simulate", "tiles", "profiles", "samples", "trainset"} <= set(stages)
    assert all(stage["rows"] > 0 and stage["seconds"] > 0 for stage in stages.values())
    assert summary["seconds_total"] >= sum(stage["seconds"] for stage in stages.values()) * 0.99
    assert set(summary["models"]) == set(MODELS)
    for tasks in summary["models"].values():
        assert set(tasks["enter"]) == {"auc", "gauc", "logloss", "pcoc", "auc_ceiling", "heat_auc"}
        assert 0.5 < tasks["enter"]["auc"] < tasks["enter"]["auc_ceiling"] < 1
        assert 0.5 < tasks["enter"]["heat_auc"] < tasks["enter"]["auc_ceiling"]


def test_every_trained_model_passed_by_a_named_rule_and_was_published(demo: Demo) -> None:
    summary = demo.summary()
    for model in MODELS:
        verdict = summary["gate"][model]
        assert (verdict["verdict"], verdict["rule"]) == ("pass", "first_model")
        assert verdict["reasons"]
    assert [(entry["name"], entry["version"]) for entry in summary["published"]] == [(model, "1") for model in MODELS]
    for entry in summary["published"]:
        folder = Path(entry["uri"].removeprefix("file://"))
        assert {"model.onnx", "trainset.json"} <= {path.name for path in folder.rglob("*")}
    assert 0 < summary["export_max_abs_diff"] <= 1e-5


def test_a_model_that_the_day_cannot_judge_is_left_out_by_name(demo: Demo) -> None:
    summary = demo.summary()
    assert "positives" in summary["left_out"]["gift"]
    (note,) = [note for note in summary["notes"] if note.startswith("esmm")]
    assert "needs the task gift, which was left out" in note


def test_the_report_fetches_nothing(demo: Demo) -> None:
    page = (demo.out / "report.html").read_text(encoding="utf-8")
    assert "deepfm" in page
    assert "<svg" in page
    fetched = re.findall(r"(?:\bsrc|\bhref)\s*=\s*[\"']?(?!#|data:)[^\"'\s>]+|url\(\s*[\"']?(?!#|data:)|@import", page)
    assert fetched == []


def test_the_next_day_starts_warm_and_may_be_taken_back(demo: Demo) -> None:
    ingest = ["ingest", "simulate", *demo.places, "--impressions", "36000", "--from-day", "18", "--to-day", "19"]
    limelight(demo.conf, ingest)
    only = ["--set", "training.models=[deepfm]", "--out", str(demo.out / "next")]
    limelight(demo.conf, ["incremental", *demo.places, "--date", str(NEXT_RUN), *SET, *only])
    summary = demo.summary("next")
    assert set(summary["models"]) == {"deepfm"}
    assert (summary["gate"]["deepfm"]["verdict"], summary["gate"]["deepfm"]["rule"]) == ("pass", "champion_comparison")
    assert sum(summary["ids_added"].values()) > 0
    assert any(f"{sum(summary['ids_added'].values()):,} ids added" in note for note in summary["notes"])
    assert [entry["version"] for entry in summary["published"]] == ["2"]

    warehouse = ["--warehouse", str(demo.out / "warehouse")]
    shown = limelight(demo.conf, ["status", *warehouse])
    for word in ("impressions", "samples", "trainsets", "champion", "2025-03-19"):
        assert word in shown
    told = limelight(demo.conf, ["rollback", "deepfm", "--why", "test", "--yes", *warehouse])
    assert "deepfm: version 1 is champion" in told


@pytest.mark.cluster
def test_a_train_set_and_a_verdict_made_on_a_cluster_are_those_made_locally(
    cluster: Cluster, archive: Path, demo: Demo
) -> None:
    places = ["--warehouse", str(demo.out / "warehouse"), "--conf-dir", str(demo.conf), "--place", "local", *SET]
    date = str(LAST_DAY + datetime.timedelta(days=1))
    built = cluster.submit("jobs/trainset.py", [*places, "--date", date, "--name", "submitted"], py_files=archive)
    assert built.returncode == 0, shown(built)
    warehouse = Warehouse(str(demo.out / "warehouse"))
    submitted, local = (load(warehouse, name)[0] for name in ("submitted", f"full-{date}"))
    same = {"name": "", "splits": {}}
    # The booster too: XGBoost fitted it on two executors here, and on two threads there.
    assert submitted.model_copy(update=same) == local.model_copy(update=same)
    for split, part in local.splits.items():
        assert submitted.splits[split].rows == part.rows
    for model in MODELS:
        assert f"/runs/submitted/{model}" in built.stdout, "it says how every model is trained"

    judged = cluster.submit("jobs/gate.py", [*places, "--trainset", f"full-{date}", "--model", "mmoe"])
    assert judged.returncode == 0, shown(judged)
    assert "champion_comparison" in judged.stdout
