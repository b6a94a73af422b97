"""Three ways to keep a model over consecutive mornings, on one warehouse, by the functions of the real chain.

full          a full retrain on every morning: the last M days, as `limelight daily` trains
incremental   warm from the model of the morning before; the first time from the first full one
never         the first full model for ever, as its published folder scores

Every arm of a morning is judged on the same day and rows: its gate day, which none of them has seen. The gate's verdict
is not asked for and nothing is published: an arm goes on from its own model, whatever the gate would say.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.incremental_gap import NEVER, ArmDay
from benchmarks.process_meter import Meter
from features.manifest import GROUP_COLUMN, ROW_ID_COLUMN, TrainSet, label_column, mask_column
from jobs.console import Steps
from jobs.open_run import Run
from jobs.release import read_gate_samples
from jobs.retrain_plan import RetrainPlan, incremental_plan, plan_retrain
from jobs.settings import Settings, train_conf
from jobs.train_model import train_model
from jobs.trainset import build
from pipeline.config import merge
from pipeline.trainset import load
from training.bootstrap import Judged, auc
from training.config import TrainConf
from training.evaluation import score_column
from training.export import export_folder
from training.gate_day import labels_and_weights
from training.published import MANIFEST_FILE
from training.result import MODEL_FILE, load_model
from training.scorer import Scorer

WARM_UP = "warm-up"
PREDICTIONS = "predictions-gate.parquet"


@dataclass(frozen=True, kw_only=True)
class Way:
    """How an arm retrains.

    Attributes:
        name: of the arm; its train sets and trainings are named after it.
        settings: conf of train set and training.
        train: keys of the training conf that this arm has instead, e.g. {"optim": {"clip_norm": 1.0}}.
    """

    name: str
    settings: Settings
    train: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Another one for other settings: figures of different settings are never mixed."""
        content = self.settings.model_dump_json(include={"pipeline", "training"}) + json.dumps(
            self.train, sort_keys=True
        )
        return hashlib.sha256(content.encode()).hexdigest()[:12]


class Mornings:
    """Retrains of one model in one open warehouse; its samples are there."""

    def __init__(self, run: Run, model: str, steps: Steps) -> None:
        self._run, self._model, self._steps = run, model, steps
        self._is_warm = False
        self._warehouse = run.context.warehouse
        self._runs = run.settings.runs_folder(self._warehouse.url)

    def full(self, way: Way, date: datetime.date) -> ArmDay:
        """A full retrain of a morning."""
        plan = plan_retrain("full", date, self._warehouse, way.settings)
        return self._retrain(way, date, replace(plan, name=f"{way.name}-{date}"))

    def incremental(self, way: Way, date: datetime.date, start: ArmDay) -> ArmDay:
        """An incremental retrain that goes on from another training."""
        folder = self._folder(start.trainset)
        card = json.loads((folder / MODEL_FILE).read_text(encoding="utf-8")) | {"run_folder": str(folder)}
        plan = incremental_plan(date, {self._model: card}, self._warehouse, way.settings)
        return self._retrain(way, date, replace(plan, name=f"{way.name}-{date}"))

    def never(self, way: Way, date: datetime.date, first: ArmDay, judged_as: ArmDay) -> ArmDay:
        """The first model on the rows that another arm of the morning is judged on."""
        trainset, _ = load(self._warehouse, judged_as.trainset)
        samples = read_gate_samples(trainset)
        scorer = Scorer.open(str(self._published(first)))
        labels, weights = labels_and_weights(samples, scorer.contents.outputs)
        task = way.settings.pipeline.tasks.main
        rows = pa.table(
            {
                ROW_ID_COLUMN: samples[trainset.row_id_from],
                GROUP_COLUMN: samples[trainset.group_from],
                "score": scorer.score(samples)[task],
                "label": labels[task],
                "weight": weights[task],
            }
        )
        return ArmDay(
            arm=NEVER,
            date=date,
            judged_on=judged_as.judged_on,
            model=self._model,
            fingerprint=way.fingerprint,
            trainset=first.trainset,
            auc=self._keep_scores(NEVER, date, rows),
            judged_rows=len(rows),
        )

    def _retrain(self, way: Way, date: datetime.date, plan: RetrainPlan) -> ArmDay:
        context = replace(self._run.context, conf=way.settings.pipeline)
        if not self._is_warm:  # the first train set of a JVM pays for loading and compiling its classes
            build(context, way.settings, replace(plan, name=WARM_UP), self._steps)
            self._is_warm = True
        making, training = Meter(), Meter()
        with making.running():
            trainset, root = build(context, way.settings, plan, self._steps)
        conf = self._conf(way, trainset, incremental=plan.warm)
        folder = self._folder(plan.name)
        with training.running(), self._steps.step(f"train {plan.name}", live=False) as step:
            start = plan.starts.get(self._model)
            settings = way.settings.training
            result = train_model(self._model, conf, trainset, root, folder, settings, start=start, resume=False)
            step.rows, step.note = result.steps * conf.batch_size, result.pace
        task = way.settings.pipeline.tasks.main
        rows = _predictions(folder / PREDICTIONS, task)
        return ArmDay(
            arm=way.name,
            date=date,
            judged_on=plan.days.gate,
            model=self._model,
            fingerprint=way.fingerprint,
            trainset=plan.name,
            auc=self._keep_scores(way.name, date, rows),
            judged_rows=len(rows),
            train_rows=trainset.splits["train"].rows,
            epochs=result.epochs,
            trainset_s=making.seconds,
            trainset_cpu_s=making.cpu_seconds,
            training_s=training.seconds,
            training_cpu_s=training.cpu_seconds,
            ids_added=dict(result.added),
        )

    def _conf(self, way: Way, trainset: TrainSet, *, incremental: bool) -> TrainConf:
        facts = self._run.facts
        pair = facts.tasks.esmm if facts else None
        conf = train_conf(self._model, way.settings, self._warehouse.url, trainset, pair, incremental=incremental)
        assert isinstance(conf, TrainConf), conf
        return TrainConf.of(merge(conf.model_dump(mode="json"), way.train)) if way.train else conf

    def _published(self, trained: ArmDay) -> Path:
        """The published folder of a training; exported once."""
        run, folder = self._folder(trained.trainset), self._folder(trained.trainset) / "published"
        if not (folder / MANIFEST_FILE).exists():
            model, trainset = load_model(str(run))
            _, root = load(self._warehouse, trained.trainset)
            card = json.loads((run / MODEL_FILE).read_text(encoding="utf-8"))
            export_folder(model, trainset, root, read_gate_samples(trainset), card, folder)
        return folder

    def _folder(self, trainset: str) -> Path:
        return self._runs / trainset / self._model

    def _keep_scores(self, arm: str, date: datetime.date, rows: pa.Table) -> float:
        """Write the judged rows; their AUC."""
        judged = rows.filter(pc.greater(rows["weight"], 0)).sort_by(ROW_ID_COLUMN)
        target = scores_file(self._runs, self._model, arm, date)
        target.parent.mkdir(parents=True, exist_ok=True)
        written = target.with_suffix(".tmp")
        pq.write_table(judged, written)
        written.replace(target)
        return auc(as_judged(judged))


def scores_file(runs: Path, model: str, arm: str, date: datetime.date) -> Path:
    """Scores of an arm on its gate day: row_id, group, score, label, weight, ascending by row_id.

    Args:
        runs: folder of the trainings.
    """
    return runs / "scores" / model / f"{arm}-{date}.parquet"


def as_judged(scores: pa.Table) -> Judged:
    """Rows as `scores_file` has them."""
    return Judged.of(*(scores[name].to_numpy() for name in ("score", "label", "weight", GROUP_COLUMN)))


def _predictions(path: Path, task: str) -> pa.Table:
    """What a training has written of its gate split."""
    rows = pq.read_table(path)
    return pa.table(
        {
            ROW_ID_COLUMN: rows[ROW_ID_COLUMN],
            GROUP_COLUMN: rows[GROUP_COLUMN],
            "score": rows[score_column(task)],
            "label": rows[label_column(task)],
            "weight": rows[mask_column(task)],
        }
    )
