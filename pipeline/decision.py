"""A decision of the trigger with all that it rests on, and what became of it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Literal

from pipeline.border import Closed
from pipeline.trigger_facts import Limits

Action = Literal["nothing", "incremental", "full"]
Reason = Literal[
    "champion", "catalog", "conf", "settings", "new_rows", "hours", "auc_drop", "calibration", "score_psi",
    "feature_psi", "oov",
]  # fmt: skip
STRENGTH: Mapping[Action, int] = {"nothing": 0, "incremental": 1, "full": 2}
State = Literal["decided", "started", "waiting", "interrupted", "finished", "failed", "superseded"]
OPEN: frozenset[State] = frozenset(("decided", "started", "waiting", "interrupted"))


class Finding(Closed):
    """One reason of one model.

    Attributes:
        figure: None where the reason is not a number, or its fact is missing.
        limits: the thresholds; None where any change asks for a full retrain.
        asks: for this action.
        missing: the fact that is not there, in words; None otherwise.
        why: what was seen.
    """

    model: str
    reason: Reason
    figure: float | None = None
    limits: Limits | None = None
    asks: Action
    missing: str | None = None
    why: str


class Decision(Closed):
    """What to do, and all that was looked at; `notes` are what changed the action that the reasons ask for."""

    action: Action
    key: str
    mature: datetime.date
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def reasons(self) -> tuple[Finding, ...]:
        """Those that ask for something, the strongest first."""
        asking = (found for found in self.findings if found.asks != "nothing")
        return tuple(sorted(asking, key=lambda found: -STRENGTH[found.asks]))


class Record(Closed):
    """A decision in the ledger.

    Attributes:
        date: the retrain is that of `--date`: it sees dt < date.
        state: decided; started, and perhaps killed since; waiting, for input or for another run; interrupted by an
            error; finished; failed, when it was given up; superseded by later days.
        attempt: how often the retrain was started, waiting aside.
        why: how it ended, or what it waits for.
    """

    decision: Decision
    date: datetime.date
    state: State
    attempt: int = 0
    why: str = ""

    @property
    def is_open(self) -> bool:
        """Whether its retrain is still to come, or to be gone on with."""
        return self.state in OPEN
