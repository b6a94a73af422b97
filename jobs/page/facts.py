"""What is known of a run, as files, manifests and the registry have it; None and empty are what is not known."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from features.evaluation import Evaluation
from features.manifest import TrainSet
from jobs.page.lineage import Lineage
from jobs.summary import Summary
from pipeline.decision import Record
from training.calibration_curve import Bin
from training.verdict import Verdict
from training.version_history import Version

if TYPE_CHECKING:
    from training.result import TrainResult  # brings torch

HISTORY = 14
NAME_PATTERN = re.compile(r"(full|incremental)-(\d{4}-\d{2}-\d{2})")
Kind = Literal["full", "incremental", "other"]


def kind_and_date(name: str) -> tuple[Kind, datetime.date | None]:
    """What a run's name says of it; a name that `limelight` does not give says nothing."""
    found = NAME_PATTERN.fullmatch(name)
    if found is None:
        return "other", None
    kind: Kind = "full" if found[1] == "full" else "incremental"
    try:
        return kind, datetime.date.fromisoformat(found[2])
    except ValueError:
        return "other", None


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """One run among others.

    Attributes:
        made_at: when its train set was committed.
        verdicts: model → what the gate said.
        digests: model → digest of its published folder.
    """

    name: str
    made_at: datetime.datetime | None = None
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """Full or incremental, by its name."""
        return kind_and_date(self.name)[0]

    @property
    def date(self) -> datetime.date | None:
        """It saw dt < date."""
        return kind_and_date(self.name)[1]

    @property
    def order(self) -> tuple[datetime.date, datetime.datetime, str]:
        """Of runs: by date, then as they were made."""
        never = datetime.datetime.min.replace(tzinfo=datetime.UTC)
        return self.date or datetime.date.min, self.made_at or never, self.name


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """One model in the run.

    Attributes:
        result: of the training; None where it did not end.
        calibration: task → bins on the gate day.
        versions: all of its name, newest first.
        evaluations: champions of its name on days up to the run's gate day, oldest first.
    """

    model: str
    result: TrainResult | None = None
    calibration: Mapping[str, tuple[Bin, ...]] = field(default_factory=dict)
    versions: tuple[Version, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that a page is made of.

    Attributes:
        run: the page's own.
        earlier: the runs before it, oldest first, at most HISTORY.
        summary: stage times, rows and notes of the run.
        decision: of the trigger, when it asked for this run.
        gate_days: digest of a published folder → the day that it was judged on, of every run that is still there.
        empty_share: what an empty bin counts for in a PSI; None without conf `trigger`.
        profiles: table → keys that had a profile on the gate day.
    """

    run: RunFacts
    models: tuple[ModelFacts, ...]
    main_task: str
    earlier: tuple[RunFacts, ...] = ()
    summary: Summary | None = None
    trainset: TrainSet | None = None
    decision: Record | None = None
    gate_days: Mapping[str, str] = field(default_factory=dict)
    empty_share: float | None = None
    profiles: Mapping[str, int | None] = field(default_factory=dict)
    lineage: Lineage = field(default_factory=Lineage)
