"""report.html: one page that shows how good the models are. Self-contained: it asks the network for nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from markupsafe import Markup

from features.errors import DataError, Problem
from features.manifest import GROUP_COLUMN, ROW_ID_COLUMN, label_column, mask_column
from jobs.report_charts import AucBar, auc_bars, lines, reliability
from jobs.summary import Summary, TaskSummary
from jobs.templates import environment_of
from training.bootstrap import BaselineComparison, Judged, baseline_comparison
from training.calibration_curve import Bin, calibration_curve
from training.verdict import VERDICT_FILE, TaskVerdict, Verdict, read_verdict

REPORT_FILE = "report.html"
PREDICTIONS_FILE = "predictions-gate.parquet"
CURVES_FILE = "curves.json"
TEMPLATE = "report_template.html.j2"
SCORE_PREFIX = "p__"
FLOW = (
    "raw logs",
    "tiles",
    "profiles · sequences · labels",
    "samples",
    "GBDT leaves",
    "export",
    "Petastorm feed",
    "Horovod training",
    "gate",
    "registry",
)


@dataclass(frozen=True, kw_only=True)
class ModelEvidence:
    """What the report shows of one model besides its summary.

    Attributes:
        verdict: None when the gate was not reached.
        curves: one record per epoch, as training writes them.
        calibration: task → bins on the gate day.
        baseline: the main task against the heat of the rooms; None when that is not known.
    """

    verdict: Verdict | None = None
    curves: Sequence[Mapping[str, Any]] = ()
    calibration: Mapping[str, tuple[Bin, ...]] = field(default_factory=dict)
    baseline: BaselineComparison | None = None


def read_evidence(run_folder: Path, main_task: str, heat: pa.Table | None = None) -> ModelEvidence:
    """What a training's out folder holds for the report; a file that is not there is not shown.

    Args:
        run_folder: with curves.json, predictions-gate.parquet and verdict.json.
        main_task: to compare with the baseline.
        heat: impression_id and heat of the gate day's rows, the baseline's score.
    """
    verdict, curves = run_folder / VERDICT_FILE, run_folder / CURVES_FILE
    predictions = _judged(run_folder / PREDICTIONS_FILE)
    baseline = None
    if heat is not None and main_task in predictions:
        rows, ids = predictions[main_task]
        baseline = baseline_comparison(main_task, rows, _heat_of(rows, ids, heat))
    return ModelEvidence(
        verdict=read_verdict(verdict.read_text(), str(verdict)) if verdict.is_file() else None,
        curves=json.loads(curves.read_text()) if curves.is_file() else (),
        calibration={task: calibration_curve(rows) for task, (rows, _) in predictions.items() if len(rows.label)},
        baseline=baseline,
    )


def _judged(path: Path) -> dict[str, tuple[Judged, pa.Array]]:
    """Task → its judged rows and their row ids."""
    if not path.is_file():
        return {}
    table = pq.read_table(path)
    tasks = [name.removeprefix(SCORE_PREFIX) for name in table.column_names if name.startswith(SCORE_PREFIX)]
    found = {}
    for task in tasks:
        kept = table.filter(pc.greater(table[mask_column(task)], 0))
        columns = (SCORE_PREFIX + task, label_column(task), mask_column(task), GROUP_COLUMN)
        found[task] = (Judged.of(*(kept[name].to_numpy() for name in columns)), kept[ROW_ID_COLUMN])
    return found


def _heat_of(rows: Judged, ids: pa.ChunkedArray, heat: pa.Table) -> Judged:
    """The same rows, scored by the heat of their room."""
    places = pc.index_in(ids, value_set=heat["impression_id"].combine_chunks())
    if places.null_count:
        remedy = "Pass the heat of every row of the gate day"
        raise DataError([Problem(what="judged rows without a heat", count=places.null_count, remedy=remedy)])
    score = np.nan_to_num(heat["heat"].cast(pa.float64()).take(places).to_numpy(), nan=0.0)
    return Judged(score=score, label=rows.label, weight=rows.weight, group=rows.group)


def write_report(summary: Summary, evidence: Mapping[str, ModelEvidence], out_html: Path) -> Path:
    """Write the page.

    Args:
        summary: of the run.
        evidence: model → what `read_evidence` found; a model without it is shown by its summary alone.
        out_html: the file to write.
    """
    environment = environment_of("jobs")
    environment.filters |= {"number": _number, "reached": _reached, "duration": _duration}
    models = [_model_view(name, tasks, evidence.get(name, ModelEvidence())) for name, tasks in summary.models.items()]
    longest = max((stage.seconds for stage in summary.stages), default=0.0) or 1.0
    page = environment.get_template(TEMPLATE).render(
        summary=summary,
        flow=FLOW,
        models=models,
        stages=[(stage, 100 * stage.seconds / longest) for stage in summary.stages],
        rows_total=sum(stage.rows for stage in summary.stages),
    )
    out_html.parent.mkdir(parents=True, exist_ok=True)
    out_html.write_text(page, encoding="utf-8")
    return out_html


def _model_view(name: str, tasks: Mapping[str, TaskSummary], found: ModelEvidence) -> dict[str, Any]:
    judged = {task.task: task for task in found.verdict.tasks} if found.verdict else {}
    bars = [_bar(task, figures, judged.get(task)) for task, figures in tasks.items()]
    return {
        "name": name,
        "tasks": [(task, figures, judged.get(task)) for task, figures in tasks.items()],
        "verdict": found.verdict,
        "baseline": found.baseline,
        "auc": auc_bars(bars),
        "calibration": [reliability(task, bins) for task, bins in found.calibration.items() if bins],
        "curves": _curves(found.curves),
    }


def _bar(task: str, figures: TaskSummary, judged: TaskVerdict | None) -> AucBar:
    interval = judged.auc_interval if judged else None
    return AucBar(label=task, auc=figures.auc, interval=interval, heat=figures.heat_auc, ceiling=figures.auc_ceiling)


def _curves(records: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """Training loss and validation AUC by epoch."""
    if not records:
        return []
    trained, judged = records[0]["train_loss"], records[0]["valid"]
    losses = {task: [record["train_loss"][task] for record in records] for task in trained}
    aucs = {task: [record["valid"][task]["auc"] for record in records] for task in judged}
    drawn = [lines(losses, "training loss, nats per judged row", 3)]
    return [*drawn, lines(aucs, "AUC on the validation day", 3)] if aucs else drawn


def _number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _reached(figures: TaskSummary) -> str:
    """How much of the way from chance to the ceiling."""
    if figures.auc is None or figures.auc_ceiling is None or figures.auc_ceiling <= 0.5:
        return "–"
    return f"{100 * (figures.auc - 0.5) / (figures.auc_ceiling - 0.5):.0f} %"


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"
