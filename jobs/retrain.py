"""Full and incremental retrain: samples → train set → trained → judged → published.

A full retrain trains every model on the last M mature days. An incremental one starts warm from the champion
and trains on the mature days that the champion has not been trained on, but the last, which is its gate day.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from features.manifest import TrainSet
from jobs.console import Steps
from jobs.release import Release, release
from jobs.retrain_plan import Kind, plan_retrain
from jobs.settings import Settings, train_conf
from jobs.stage_lines import tell_stages
from jobs.train_model import train_model
from jobs.trainset import build
from jobs.turn import turn
from pipeline.context import Context
from pipeline.run import compute_samples
from pipeline.tables import Warehouse
from training.registry import Registry

if TYPE_CHECKING:
    from pipeline.sources.report import SourceFacts


@dataclass(frozen=True, kw_only=True)
class Retrained:
    """What one retrain did.

    Attributes:
        releases: model → what became of it.
        skipped: model → why it could not be trained.
        ids_added: vocabulary → ids that growth added (incremental).
    """

    trainset: TrainSet
    releases: Mapping[str, Release]
    run_folders: Mapping[str, Path]
    skipped: Mapping[str, str] = field(default_factory=dict)
    ids_added: Mapping[str, int] = field(default_factory=dict)

    @property
    def stopped(self) -> list[str]:
        """Models that the gate stopped."""
        return [name for name, found in self.releases.items() if not found.verdict.passed]


class Retrainer:
    """Runs retrains of one warehouse."""

    def __init__(
        self,
        context: Context,
        settings: Settings,
        facts: SourceFacts | None,
        steps: Steps,
        *,
        resume: bool = False,
    ) -> None:
        self._context = context
        self._resume = resume
        self._settings = settings
        self._pair = facts.tasks.esmm if facts else None
        self._steps = steps
        self._warehouse: Warehouse = context.warehouse
        uri, artifacts = settings.tracking(self._warehouse.url)
        self.registry = Registry.open(uri, artifacts)

    def full(self, date: datetime.date) -> Retrained:
        """Train on the last M days that are mature on the morning of `date`.

        Raises:
            HeldError: when another retrain of this warehouse is under way.
        """
        return self._retrain("full", date)

    def incremental(self, date: datetime.date) -> Retrained:
        """Start warm from the champions and train on what is newly mature.

        Raises:
            NotReadyError: when there is no champion, or no new mature day beside the gate day.
            DataError: when the champions were trained on different train sets.
            HeldError: when another retrain of this warehouse is under way.
        """
        return self._retrain("incremental", date)

    def _retrain(self, kind: Kind, date: datetime.date) -> Retrained:
        with turn(self._warehouse):
            plan = plan_retrain(kind, date, self._warehouse, self._settings)
            self.samples(plan.samples)
            trainset, root = build(self._context, self._settings, plan, self._steps)
            return self._train_and_release(trainset, root, plan.starts)

    def samples(self, days: list[datetime.date] | tuple[datetime.date, ...]) -> None:
        """Compute what is missing or stale of the samples of these days."""
        with self._steps.watch("samples and before") as step:
            runs = compute_samples(self._context, list(days), step.say)
        tell_stages(self._steps, runs, self._context)

    def _train_and_release(self, trainset: TrainSet, root: str, starts: Mapping[str, str]) -> Retrained:
        root_of_runs = self._settings.runs_folder(self._warehouse.url)
        releases: dict[str, Release] = {}
        folders: dict[str, Path] = {}
        skipped: dict[str, str] = {}
        added: dict[str, int] = {}
        for model in self._settings.training.models:
            if starts and model not in starts:
                skipped[model] = "it has no champion to start from"
                continue
            conf = train_conf(
                model, self._settings, self._warehouse.url, trainset, self._pair, incremental=bool(starts)
            )
            if isinstance(conf, str):
                skipped[model] = conf
                continue
            folder = root_of_runs / trainset.name / model
            with self._steps.step(f"train {model}", live=False) as step:
                result = train_model(
                    model, conf, trainset, root, folder, self._settings.training,
                    start=starts.get(model), resume=self._resume,
                )  # fmt: skip
                step.rows = result.steps * conf.batch_size
                step.note = f"{result.pace}, on {result.world_size} ranks"
                added = dict(result.added) or added
            with self._steps.step(f"gate {model}") as step:
                releases[model] = release(model, folder, root, self.registry, self._settings.gate)
                step.rows = releases[model].verdict.rows
                step.note = f"{releases[model].verdict.verdict} by rule {releases[model].verdict.rule}"
            folders[model] = folder
        return Retrained(trainset=trainset, releases=releases, run_folders=folders, skipped=skipped, ids_added=added)
