"""The champions of a registry with what their published folders say of them; a folder is fetched once per version."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.errors import DataError, Problem
from features.manifest import TRAINSET_FILE, TrainSet
from pipeline.evaluations import InUse
from training.published import MODEL_FILE
from training.registry import Registry
from training.verdict import Days


@dataclass(frozen=True, kw_only=True)
class Published:
    """A champion: its version and days, its folder, its train set, and its model.json."""

    in_use: InUse
    folder: Path
    trainset: TrainSet
    card: Mapping[str, Any]

    @property
    def trained_until(self) -> datetime.date:
        """Its newest train day."""
        return datetime.date.fromisoformat(self.trainset.splits["train"].days[-1])

    @property
    def gate_day(self) -> datetime.date:
        """The day that it was judged on."""
        return datetime.date.fromisoformat(self.trainset.splits["gate"].days[0])


class Champions:
    """Asks the registry which versions are in use, every time, and keeps what their folders say."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[tuple[str, str, str], Published] = {}

    def of(self, models: Iterable[str]) -> dict[str, Published | None]:
        """Model → champion; None where nothing is published.

        Raises:
            DataError: when a folder is not what was published, or names no train days or gate day.
        """
        return {model: self._of(model) for model in models}

    def _of(self, model: str) -> Published | None:
        found = [version for version in self._registry.history(model) if version.state == "champion"]
        if not found:
            return None
        key = (model, found[0].version, found[0].digest)
        if key not in self._known:
            self._known[key] = read_published(*key, self._registry.fetch(model, found[0].version))
        return self._known[key]


def read_published(model: str, version: str, digest: str, folder: Path) -> Published:
    """What a published folder says.

    Raises:
        DataError: when it names no train days or not one gate day.
    """
    trainset = TrainSet.model_validate_json((folder / TRAINSET_FILE).read_text(encoding="utf-8"))
    days = {name: split.days for name, split in trainset.splits.items()}
    if not days.get("train") or len(days.get("gate", ())) != 1:
        what = f"version {version} of {model} does not name its train days and one gate day"
        raise DataError([Problem(table="registry", what=what, remedy="Publish the model again: `limelight daily`")])
    seen = datetime.date.fromisoformat(Days.of(trainset).seen_until)
    return Published(
        in_use=InUse(model=model, version=version, digest=digest, seen_until=seen),
        folder=folder,
        trainset=trainset,
        card=json.loads((folder / MODEL_FILE).read_text(encoding="utf-8")),
    )
