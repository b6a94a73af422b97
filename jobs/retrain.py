"""Full and incremental retrain: samples → train set → trained → judged → published.

A full retrain trains every model on the last M mature days. An incremental one starts warm from the champion
and trains on the mature days that the champion has not been trained on, but the last, which is its gate day.
"""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from features.errors import DataError, NotReadyError, Problem
from features.manifest import TRAINSET_FILE, TrainSet
from jobs.console import Steps
from jobs.launch import launch, training_arguments
from jobs.release import Release, release
from jobs.settings import Settings, train_conf
from jobs.stage_lines import tell_stages
from pipeline.config import TrainDays, day_range, full_retrain_days
from pipeline.context import ONE_DAY, Context
from pipeline.leases import Lease
from pipeline.run import compute_samples
from pipeline.stages.names import RETRAINS, TRAINSETS
from pipeline.tables import Warehouse
from pipeline.trainset import TrainSetBuilder, load
from training.published import MODEL_FILE
from training.registry import Registry
from training.result import read_result
from training.storage import Folder

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
        with self._alone():
            return self._full(date)

    def _full(self, date: datetime.date) -> Retrained:
        days = full_retrain_days(date, self._settings.pipeline)
        self.samples(days.all)
        trainset, root = self._build(f"full-{date}", days, self._young_booster(days))
        return self._train_and_release(trainset, root, {})

    def incremental(self, date: datetime.date) -> Retrained:
        """Start warm from the champions and train on what is newly mature.

        Raises:
            NotReadyError: when there is no champion, or no new mature day beside the gate day.
            DataError: when the champions were trained on different train sets.
            HeldError: when another retrain of this warehouse is under way.
        """
        with self._alone():
            return self._incremental(date)

    def _incremental(self, date: datetime.date) -> Retrained:
        cards = self._champion_cards()
        previous, champion = self._champion_trainset(cards)
        days = self._new_days(date, champion)
        self.samples([*days.train, days.gate])
        trainset, root = self._build(f"incremental-{date}", days, previous, warm=True)
        starts = {model: str(card["run_folder"]) for model, card in cards.items()}
        return self._train_and_release(trainset, root, starts)

    def _alone(self) -> Lease:
        """Held by a retrain: two of one warehouse would publish over each other."""
        return self._warehouse.lease(RETRAINS, ["of-this-warehouse"], uuid.uuid4().hex[:12])

    def samples(self, days: list[datetime.date] | tuple[datetime.date, ...]) -> None:
        """Compute what is missing or stale of the samples of these days."""
        with self._steps.watch("samples and before") as step:
            runs = compute_samples(self._context, list(days), step.say)
        tell_stages(self._steps, runs, self._context)

    def _build(self, name: str, days: TrainDays, previous: str | None, *, warm: bool = False) -> tuple[TrainSet, str]:
        conf = self._settings.pipeline
        context = self._context
        with self._steps.step("trainset") as step:
            builder = TrainSetBuilder(context.spark, self._warehouse, context.catalog, conf, context.source)
            trainset, root = builder.build(name, days, previous, warm=warm, report=step.say)
            step.rows = sum(split.rows for split in trainset.splits.values())
            step.note = f"{name}: {trainset.table_rows():,} embedding rows"
        return trainset, root

    def _young_booster(self, days: TrainDays) -> str | None:
        """A full train set whose booster is younger than R days and has seen none of the train days."""
        limit = ONE_DAY * self._settings.pipeline.days.refit_booster_days
        newest: tuple[str, str] | None = None
        for partition in self._warehouse.partitions(TRAINSETS):
            name = partition.removeprefix("name=")
            trainset, _ = load(self._warehouse, name)
            if trainset.leaves is None or trainset.catalog_fingerprint != self._context.catalog.fingerprint():
                continue
            fitted = trainset.leaves.fit_days[-1]
            age = days.train[0] - datetime.date.fromisoformat(fitted)
            if ONE_DAY < age <= limit and (newest is None or fitted > newest[0]):
                newest = (fitted, name)
        return newest[1] if newest else None

    def _champion_cards(self) -> dict[str, dict[str, str]]:
        cards = {}
        for model in self._settings.training.models:
            champion = self.registry.champion(model)
            if champion is not None:
                cards[model] = json.loads((champion[1] / MODEL_FILE).read_text(encoding="utf-8"))
        if not cards:
            remedy = "Run `limelight daily` first: an incremental retrain starts from a champion"
            raise NotReadyError([Problem(table="registry", what="there is no champion", remedy=remedy)])
        return cards

    def _champion_trainset(self, cards: Mapping[str, Mapping[str, str]]) -> tuple[str, TrainSet]:
        used = {model: card["trainset"] for model, card in cards.items()}
        if len(set(used.values())) > 1:
            raise DataError(
                [
                    Problem(
                        table="registry",
                        what="champions were trained on different train sets",
                        count=len(set(used.values())),
                        examples=[f"{model}: {name}" for model, name in used.items()],
                        remedy="Run `limelight daily`: one train set has one booster and one vocabulary",
                    )
                ]
            )
        name = next(iter(used.values()))
        return name, load(self._warehouse, name)[0]

    def _new_days(self, date: datetime.date, champion: TrainSet) -> TrainDays:
        gate = full_retrain_days(date, self._settings.pipeline).gate
        trained = datetime.date.fromisoformat(champion.splits["train"].days[-1])
        first = datetime.date.fromisoformat(champion.vocabulary_from or champion.splits["train"].days[0])
        seen = datetime.date.fromisoformat(champion.seen_until)
        train = day_range(trained + ONE_DAY, gate - ONE_DAY)
        if not train or gate <= seen:
            raise NotReadyError(
                [
                    Problem(
                        table="samples",
                        day=gate.isoformat(),
                        what=f"the champion was trained up to {trained} and has seen {seen}: no new mature day "
                        "is left beside the gate day",
                        remedy=f"Wait for the raw day {date}, or give a later --date",
                    )
                ]
            )
        return TrainDays(fit=tuple(day_range(first, trained)), train=tuple(train), valid=(), gate=gate)

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
                resume = self._resume and is_same_trainset(folder, trainset)
                arguments = training_arguments(conf, root, str(folder), resume=resume, init_from=starts.get(model))
                launch(self._settings.training, arguments)
                result = read_result(Folder(str(folder)))
                if result is None:
                    raise NotReadyError(
                        [Problem(table="runs", what=f"{model} was interrupted", remedy="Run the command again")]
                    )
                step.rows = result.steps * conf.batch_size
                step.note = f"{result.pace}, on {result.world_size} ranks"
                added = dict(result.added) or added
            with self._steps.step(f"gate {model}") as step:
                releases[model] = release(model, folder, root, self.registry, self._settings.gate)
                step.rows = releases[model].verdict.rows
                step.note = f"{releases[model].verdict.verdict} by rule {releases[model].verdict.rule}"
            folders[model] = folder
        return Retrained(trainset=trainset, releases=releases, run_folders=folders, skipped=skipped, ids_added=added)


def is_same_trainset(run_folder: Path, trainset: TrainSet) -> bool:
    """Whether a training that was cut off read the same rows, encoded alike: only then may it go on."""
    path = run_folder / TRAINSET_FILE
    if not path.exists():
        return False
    earlier = TrainSet.model_validate_json(path.read_text(encoding="utf-8"))
    return earlier.model_dump(exclude={"splits"}) == trainset.model_dump(exclude={"splits"})
