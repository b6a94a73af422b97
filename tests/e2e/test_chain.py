"""The whole chain on little data, by the commands a user types: nothing in it is replaced by anything."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from features.spec import TILED_ENTITIES, Entity
from jobs.status_checks import columns_table
from pipeline.context import ONE_DAY
from pipeline.manifests import DataFile, PartitionManifest, day_partition
from pipeline.stages.names import serving_table
from pipeline.tables import Warehouse
from pipeline.trainset import load
from tests.browser import MISSING, browser, chromium
from tests.e2e.demo import LAST_DAY, MODELS, NEXT_RUN, SET, Demo
from tests.e2e.housekeeping import Housekept, files, keep_house
from tests.e2e.short_runs import limelight
from tests.e2e.standalone_cluster import Cluster, shown
from tests.warehouse_files import files_with, manifests, rows_in_files

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


@pytest.fixture(scope="module")
def next_day(demo: Demo) -> Demo:
    """The demo, and a day later an incremental run of one of its models."""
    ingest = ["ingest", "simulate", *demo.places, "--impressions", "36000", "--from-day", "18", "--to-day", "19"]
    limelight(demo.conf, ingest)
    only = ["--set", "training.models=[deepfm]", "--set", "days.replay_share=0.25", "--set", "days.evict_after_days=1"]
    only += ["--out", str(demo.out / "next")]
    limelight(demo.conf, ["incremental", *demo.places, "--date", str(NEXT_RUN), *SET, *only])
    return demo


@pytest.fixture(scope="module")
def house(next_day: Demo, tmp_path_factory: pytest.TempPathFactory) -> Housekept:
    return keep_house(next_day, tmp_path_factory.mktemp("house"))


def test_the_next_day_starts_warm(next_day: Demo) -> None:
    summary = next_day.summary("next")
    assert set(summary["models"]) == {"deepfm"}
    assert (summary["gate"]["deepfm"]["verdict"], summary["gate"]["deepfm"]["rule"]) == ("pass", "champion_comparison")
    assert sum(summary["ids_added"].values()) > 0
    assert any(f"{sum(summary['ids_added'].values()):,} ids added" in note for note in summary["notes"])
    assert [entry["version"] for entry in summary["published"]] == ["2"]
    trainset, _ = load(Warehouse(str(next_day.out / "warehouse")), f"incremental-{NEXT_RUN}")
    assert summary["ids_evicted"] == trainset.evicted() != {}
    assert summary["rows_replayed"] == trainset.replayed
    assert sum(trainset.replayed.values()) > 0
    assert max(trainset.replayed) < min(trainset.splits["train"].days)

    shown = limelight(next_day.conf, ["status", "--warehouse", str(next_day.out / "warehouse")])
    for word in ("impressions", "samples", "trainsets", "champion", "2025-03-19"):
        assert word in shown


def test_both_runs_have_a_page_and_the_index_links_to_them(next_day: Demo) -> None:
    runs = next_day.out / "warehouse" / "runs"
    names = [f"incremental-{NEXT_RUN}", f"full-{LAST_DAY + ONE_DAY}"]
    assert re.findall(r'href="([^"]+)/page\.html"', (runs / "index.html").read_text(encoding="utf-8")) == names
    newest, first = ((runs / name / "page.html").read_text(encoding="utf-8") for name in names)
    assert "version 2" in newest
    assert "mmoe" in first
    shown = limelight(next_day.conf, ["status", "--warehouse", str(next_day.out / "warehouse")])
    assert "index.html" in shown


@pytest.mark.skipif(chromium() is None, reason=MISSING)
def test_a_browser_has_nothing_to_complain_of_in_the_pages(next_day: Demo, tmp_path: Path) -> None:
    with browser(tmp_path) as tab:
        for page in sorted((next_day.out / "warehouse" / "runs").rglob("*.html")):
            tab.open(page, width=390)
            assert tab.value("document.documentElement.scrollWidth") == 390, page
    assert tab.complaints == []
    assert all(url.startswith(("file:", "data:")) for url in tab.requests)


def test_gc_deletes_what_its_dry_run_said_and_keeps_what_champion_and_rollback_rest_on(
    house: Housekept, next_day: Demo
) -> None:
    assert house.planned == files(next_day.out / "warehouse")
    assert "nothing was deleted; --apply deletes " in house.dry
    (size,) = re.findall(r"--apply deletes (.+)", house.dry)
    assert f"{size} deleted" in house.sweep
    assert "deepfm version 2, champion" in house.dry
    assert "deepfm version 1, rollback 1" in house.dry
    left = manifests(house.swept)
    before = [name for name in manifests(next_day.out / "warehouse") if name.startswith("profiles_user/")]
    assert [name for name in left if name.startswith("profiles_user/")] == before[-3:]
    assert len(before) > 3
    assert all(rows_in_files(house.swept, manifest) == stored(manifest) for manifest in left.values())
    names = {name.removeprefix("trainsets/name=") for name in left if name.startswith("trainsets/")}
    assert names == {f"full-{LAST_DAY + ONE_DAY}", f"incremental-{NEXT_RUN}"}
    samples = {name for name in left if name.startswith("samples/")}
    for name in names:
        trainset, _ = load(Warehouse(str(house.swept)), name)
        assert samples >= {*trainset.lineage}
    assert "deepfm: version 1 is champion" in house.rollback


def test_serving_tables_of_a_swept_warehouse_say_how_fresh_they_are(house: Housekept) -> None:
    current = manifests(house.served)
    for entity in TILED_ENTITIES:
        manifest = current[f"{serving_table(entity)}/{day_partition(LAST_DAY)}"]
        rows = [row for file in manifest.files for row in rows_of(house.served, manifest, file)]
        keys = [tuple(row[key] for key in entity.keys) for row in rows]
        assert len({*keys}) == len(keys) == manifest.rows > 0
        assert {row["newest_arrival"] for row in rows} == {LAST_DAY - ONE_DAY}
        assert len(manifest.files) <= 2
    users = current[f"{serving_table(Entity.USER)}/{day_partition(LAST_DAY)}"]
    assert max(row["id_user_id"] for file in users.files for row in rows_of(house.served, users, file)) > 1


def test_the_status_of_checks_has_every_table(house: Housekept) -> None:
    said = " ".join(house.checks.split())
    for name in {name.split("/")[0] for name in manifests(house.served)}:
        assert re.search(rf"\b{name} (dt|name)=", said), name
    assert "compared with" in said
    carried = [manifest for manifest in manifests(house.served).values() if manifest.carried_from is not None]
    assert carried
    for manifest in carried:
        title = str(columns_table(manifest).title)
        assert re.search(r"keys touched, [\d,]+ new, [\d,]+ gone; distributions .* are judged at the next base", title)


def test_a_forgotten_user_is_in_no_derived_file_and_the_rest_is_readable(house: Housekept) -> None:
    assert files_with(house.served, house.user)
    assert files_with(house.forgotten, house.user) == []
    before, after = manifests(house.served), manifests(house.forgotten)
    gone = {*before} - {*after}
    assert gone == {name for name in before if name.startswith("trainsets/")}
    for name, manifest in after.items():
        assert rows_in_files(house.forgotten, manifest) == stored(manifest)
        inputs = {other: digest for other, digest in manifest.inputs.items() if other in after}
        assert inputs == {other: after[other].digest for other in inputs}, name
    said = " ".join(house.forget.split())
    assert f"user {house.user} is out" in said
    for name in gone:
        assert name in said
    for model, version in (("deepfm", "1"), ("deepfm", "2"), ("mmoe", "1")):
        assert re.search(rf"{model} │ {version} .*holds the user", said), (model, version)


def stored(manifest: PartitionManifest) -> int:
    return manifest.rows if manifest.stored_rows is None else manifest.stored_rows


def rows_of(warehouse: Path, manifest: PartitionManifest, file: DataFile) -> list[dict[str, Any]]:
    return list(pq.ParquetFile(warehouse / manifest.table / file.path).read().to_pylist())


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
