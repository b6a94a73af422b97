"""What a retrain works on: days, the train set to build, and what its models start from. Decided before it runs."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from features.errors import DataError, NotReadyError, Problem
from features.manifest import TrainSet
from features.schema import load_catalog
from jobs.settings import Settings
from pipeline.config import PipelineConf, TrainDays, TrainDaysConf, day_range, full_retrain_days
from pipeline.context import ONE_DAY
from pipeline.stages.names import TRAINSETS
from pipeline.tables import Warehouse
from pipeline.train_rows import replay_days
from pipeline.trainset import load

if TYPE_CHECKING:
    from training.registry import Registry

Kind = Literal["full", "incremental"]
Card = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class RetrainPlan:
    """One retrain.

    Attributes:
        name: of its train set.
        samples: days whose samples it needs.
        previous: train set whose booster is kept; None fits one.
        starts: model → folder of the training that it starts warm from; empty for a full retrain.
    """

    name: str
    days: TrainDays
    samples: tuple[datetime.date, ...]
    previous: str | None
    starts: Mapping[str, str] = field(default_factory=dict)

    @property
    def warm(self) -> bool:
        """Whether models go on from champions."""
        return bool(self.starts)


def trainset_name(kind: Kind, date: datetime.date) -> str:
    """Of the retrain of a morning."""
    return f"{kind}-{date}"


def plan_retrain(kind: Kind, date: datetime.date, warehouse: Warehouse, settings: Settings) -> RetrainPlan:
    """What a retrain on the morning of `date` works on. It asks the registry only for an incremental one.

    Raises:
        NotReadyError: incremental: when there is no champion, or no new mature day beside the gate day.
        DataError: incremental: when the champions were trained on different train sets.
    """
    if kind == "full":
        days = full_retrain_days(date, settings.pipeline)
        booster = _young_booster(days, warehouse, settings.pipeline.days)
        return RetrainPlan(name=trainset_name(kind, date), days=days, samples=days.all, previous=booster)
    from training.registry import Registry  # brings MLflow, which the data side of a full retrain does without

    cards = champion_cards(Registry.open(*settings.tracking(warehouse.url)), settings.training.models)
    return incremental_plan(date, cards, warehouse, settings)


def incremental_plan(
    date: datetime.date, cards: Mapping[str, Card], warehouse: Warehouse, settings: Settings
) -> RetrainPlan:
    """An incremental retrain that starts from models with these cards.

    Args:
        cards: model → model.json of its start.

    Raises:
        NotReadyError: no new mature day is left beside the gate day.
        DataError: the models were trained on different train sets.
    """
    previous, champion = _champion_trainset(cards, warehouse)
    days = incremental_days(date, champion, settings.pipeline)
    return RetrainPlan(
        name=trainset_name("incremental", date),
        days=days,
        samples=(*days.train, days.gate),
        previous=previous,
        starts={model: card["run_folder"] for model, card in cards.items()},
    )


def champion_cards(registry: Registry, models: Iterable[str]) -> dict[str, Card]:
    """Model → model.json of its champion, for those that have one.

    Raises:
        NotReadyError: when none has.
    """
    from training.published import MODEL_FILE

    cards = {}
    for model in models:
        champion = registry.champion(model)
        if champion is not None:
            cards[model] = json.loads((champion[1] / MODEL_FILE).read_text(encoding="utf-8"))
    if not cards:
        remedy = "Run `limelight daily` first: an incremental retrain starts from a champion"
        raise NotReadyError([Problem(table="registry", what="there is no champion", remedy=remedy)])
    return cards


def _young_booster(days: TrainDays, warehouse: Warehouse, conf: TrainDaysConf) -> str | None:
    """A full train set whose booster is younger than R days and has seen none of the train days."""
    limit = ONE_DAY * conf.refit_booster_days
    fingerprint = load_catalog().fingerprint()
    newest: tuple[str, str] | None = None
    for partition in warehouse.partitions(TRAINSETS):
        name = partition.removeprefix("name=")
        trainset, _ = load(warehouse, name)
        if trainset.leaves is None or trainset.catalog_fingerprint != fingerprint:
            continue
        fitted = trainset.leaves.fit_days[-1]
        age = days.train[0] - datetime.date.fromisoformat(fitted)
        if ONE_DAY < age <= limit and (newest is None or fitted > newest[0]):
            newest = (fitted, name)
    return newest[1] if newest else None


def _champion_trainset(cards: Mapping[str, Card], warehouse: Warehouse) -> tuple[str, TrainSet]:
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
    return name, load(warehouse, name)[0]


def incremental_days(date: datetime.date, champion: TrainSet, conf: PipelineConf) -> TrainDays:
    """The mature days that the champion was not trained on; the newest judges, older rows are replayed by conf.

    Raises:
        NotReadyError: when none is left beside the gate day.
    """
    gate = full_retrain_days(date, conf).gate
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
    replay = replay_days(train[0], datetime.date.fromisoformat(champion.first_trained), conf.days)
    return TrainDays(fit=tuple(day_range(first, trained)), train=tuple(train), valid=(), gate=gate, replay=replay)
