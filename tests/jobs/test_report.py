"""summary.json and report.html from files as a training leaves them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from features.errors import DataError
from jobs.drawing import Scale
from jobs.report import PREDICTIONS_FILE, ModelEvidence, read_evidence, write_report
from jobs.report_charts import AucBar, auc_bars, lines, reliability
from jobs.summary import GateSummary, PublishedVersion, StageTime, Summary, TaskSummary
from tests.html_tags import Html
from tests.training.test_gate import CONF, OLDER, N, World
from training.bootstrap import Judged
from training.calibration_curve import calibration_curve
from training.gate import judge
from training.verdict import VERDICT_FILE

TASKS = ("enter", "gift")


def summary() -> Summary:
    figures = {
        "enter": TaskSummary(auc=0.742, gauc=0.71, logloss=0.51, pcoc=1.02, auc_ceiling=0.781, heat_auc=0.58),
        "gift": TaskSummary(auc=0.66, gauc=None, logloss=0.09, pcoc=0.95, auc_ceiling=0.8, heat_auc=0.52),
    }
    return Summary(
        source="simulate",
        days=("2026-01-01", "2026-01-18"),
        world_size=2,
        stages=(StageTime(name="tiles", seconds=12.5, rows=100_000), StageTime(name="gate", seconds=75.2, rows=16_000)),
        models={"deepfm": figures, "mmoe": figures},
        gate={
            "deepfm": GateSummary(verdict="pass", rule="champion_comparison", reasons=("all is <well> & good",)),
            "mmoe": GateSummary(verdict="stop", rule="floors", reasons=("gift: AUC 0.5100 is below the floor",)),
        },
        published=(PublishedVersion(name="deepfm", version="3", uri="file:///warehouse/models/deepfm"),),
        export_max_abs_diff=3.1e-7,
        seconds_total=421.0,
        left_out={"share": "12 positives on the gate day"},
        ids_added={"user": 120, "anchor": 7},
        notes=("PCOC is on a sampled scale.",),
    )


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """verdict.json, curves.json and predictions of a model that knows the truth up to noise."""
    folder, world = tmp_path_factory.mktemp("run"), World()
    candidate = world.model("candidate", noise=0.4)
    verdict = judge(candidate, world.model("champion", noise=0.4, days=OLDER), world.evidence, CONF)
    (folder / VERDICT_FILE).write_text(verdict.model_dump_json())
    columns: dict[str, NDArray] = {"row_id": np.arange(N) + 10**12, "group": world.evidence.group}
    for task in TASKS:
        columns[f"p__{task}"] = candidate.scores[task]
        columns[f"y__{task}"] = world.evidence.labels[task]
        columns[f"m__{task}"] = world.evidence.weights[task]
    pq.write_table(pa.table(columns), folder / PREDICTIONS_FILE)
    record = {"train_loss": {"enter": 0.6, "gift": 0.1}, "valid": {task: {"auc": 0.7} for task in TASKS}}
    (folder / "curves.json").write_text(json.dumps([{"epoch": 0, **record}, {"epoch": 1, **record}]))
    return folder


def heat(seed: int = 0) -> pa.Table:
    """In another order than the predictions, and knowing nothing."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(N)
    return pa.table({"impression_id": (np.arange(N) + 10**12)[order], "heat": rng.gamma(2.0, 10.0, N)})


@pytest.fixture(scope="module")
def page(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    evidence = {"deepfm": read_evidence(run_folder, "enter", heat())}
    out = write_report(summary(), evidence, tmp_path_factory.mktemp("report") / "deep" / "report.html")
    return out.read_text(encoding="utf-8")


def test_the_page_asks_the_network_for_nothing(page: str) -> None:
    loading = {"script", "link", "img", "iframe", "object", "embed", "source", "use", "image"}
    tags = Html(page).tags
    assert not loading & {tag for tag, _ in tags}
    assert not [name for _, attributes in tags for name in attributes if name in {"src", "href", "xlink:href"}]
    assert not re.search(r"@import|url\(", page)


def test_the_page_shows_every_figure_and_verdict(page: str) -> None:
    text = Html(page).text
    for words in (
        "0.7420",
        "0.7810",
        "86 %",
        "1.020",
        "3.1e-07",
        "7 min 01 s",
        "champion_comparison",
        "floors",
        "127 ids",
    ):
        assert words in text, words
    assert "share was left out: 12 positives" in text
    assert "all is <well> & good" in text  # escaped in the source
    assert "<well>" not in page
    assert "beats the popularity baseline" in text
    assert page.count("Calibration of") == len(TASKS)


def test_axes_name_their_units(page: str) -> None:
    for label in ("AUC on the gate day", "predicted, %", "observed, %", "epoch", "nats", "AUC on the validation day"):
        assert label in page


def test_a_model_without_evidence_is_shown_by_its_summary(tmp_path: Path) -> None:
    out = write_report(summary(), {}, tmp_path / "report.html")
    text = Html(out.read_text(encoding="utf-8")).text
    assert "0.7420" in text
    assert read_evidence(tmp_path, "enter") == ModelEvidence()


def test_the_baseline_is_matched_by_impression(run_folder: Path) -> None:
    """The label itself as heat, rows shuffled: it can only win when every row finds its own heat."""
    table = pq.read_table(run_folder / PREDICTIONS_FILE)
    order = pa.array(np.random.default_rng(3).permutation(N))
    oracle = pa.table({"impression_id": table["row_id"].take(order), "heat": table["y__enter"].take(order)})
    found = read_evidence(run_folder, "enter", oracle).baseline
    assert found is not None
    assert found.baseline is not None
    assert found.baseline.point == 1.0
    assert not found.beats
    with pytest.raises(DataError, match=r"without a heat \(5,990\)"):
        read_evidence(run_folder, "enter", oracle.slice(0, 10))


def test_the_summary_has_the_agreed_keys_and_survives_its_file(tmp_path: Path) -> None:
    written = json.loads(summary().write(tmp_path).read_text())
    agreed = {"source", "days", "world_size", "stages", "models", "gate", "published", "export_max_abs_diff",
              "seconds_total"}  # fmt: skip
    assert agreed <= set(written)
    assert set(written["stages"][0]) == {"name", "seconds", "rows"}
    assert set(written["models"]["deepfm"]["enter"]) == {"auc", "gauc", "logloss", "pcoc", "auc_ceiling", "heat_auc"}
    assert set(written["gate"]["mmoe"]) == {"verdict", "rule", "reasons"}
    assert set(written["published"][0]) == {"name", "version", "uri"}
    assert Summary.read(tmp_path) == summary()
    with pytest.raises(ValidationError, match="surprise"):
        Summary.model_validate({**written, "surprise": 1})


def test_charts_take_undefined_and_extreme_figures() -> None:
    assert "undefined" in auc_bars([AucBar(label="gift", auc=None)])
    assert "0.312" in auc_bars([AucBar(label="a", auc=0.312, heat=0.5)])
    assert lines({"a": [None, None]}, "loss", 3) == ""
    assert "<path" in lines({"a": [0.5]}, "loss", 3)
    assert "&lt;b&gt;" in auc_bars([AucBar(label="<b>", auc=0.6)])


def test_ticks_are_round_and_inside() -> None:
    assert Scale(low=0.5, high=0.83, start=0, end=1).ticks() == [0.5, 0.6, 0.7, 0.8]
    assert Scale(low=0.0, high=0.012, start=0, end=1).ticks(3) == [0.0, 0.005, 0.01]


def test_calibration_bins_hold_every_row_once() -> None:
    world = World()
    truth = world.evidence.labels["enter"], np.ones(N), world.evidence.group
    enter = calibration_curve(Judged.of(world.model("m").scores["enter"], *truth), bins=10)
    assert [b.rows for b in enter] == [N // 10] * 10
    assert all(b.low <= b.observed <= b.high for b in enter)
    inside = sum(b.low <= b.predicted <= b.high for b in enter)
    assert inside >= 8  # the scores are the true probabilities: about 95 % of the intervals hold them
    assert "<circle" in reliability("enter", enter)
