"""What the trigger decides from, and by which thresholds: conf `trigger`, and facts that are committed."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from pydantic import Field

from features.evaluation import Evaluation
from pipeline.border import Closed
from pipeline.config import Section


class Limits(Section):
    """What a figure above a threshold asks for; null asks for nothing. Neither has a default."""

    incremental: float | None = Field(ge=0)
    full: float | None = Field(ge=0)


class TriggerConf(Section):
    """conf `trigger`; no threshold has a default (docs/trigger.md).

    Attributes:
        every_seconds: between two rounds of `--watch`.
        max_attempts: of one retrain that fails or is killed, before it is given up.
        min_rows, min_positives: a day of fewer says nothing of drift, AUC or calibration.
        empty_share: what an empty bin counts for in psi.
    """

    every_seconds: int = Field(ge=1)
    max_attempts: int = Field(ge=1)
    min_rows: int = Field(ge=1)
    min_positives: int = Field(ge=1)
    empty_share: float = Field(gt=0, lt=0.1)
    new_rows: Limits
    hours: Limits
    auc_drop: Limits
    calibration: Limits
    score_psi: Limits
    feature_psi: Limits
    oov: Limits


class Making(Closed):
    """Fingerprints of what a model is made by: catalog, conf of the train set, settings of the model."""

    catalog: str
    trainset: str | None
    model: str


class Champion(Closed):
    """A version in use, and what is known of it.

    Attributes:
        digest: of the published folder.
        trained_until, seen_until: its newest train day, and the newest day that anything in it has seen.
        gate_day: the day that it was judged on.
        making: as it was made; `trainset` is None when the manifest of its train set is gone.
        reference: its evaluation on its gate day; None when there is none.
        newest: its evaluation on the newest day that has one.
    """

    version: str
    digest: str
    trainset: str
    trained_until: datetime.date
    seen_until: datetime.date
    gate_day: datetime.date
    making: Making
    reference: Evaluation | None
    newest: Evaluation | None


class ModelFacts(Closed):
    """A model of conf `training.models`: what it would be made by now, and its champion, if it has one."""

    model: str
    making: Making
    champion: Champion | None


class Committed(Closed):
    """A committed day of samples."""

    rows: int
    digest: str


class Facts(Closed):
    """Everything that a decision rests on.

    Attributes:
        mature: the newest day whose samples can be mature; they may be uncommitted still.
        main_task: whose AUC and calibration count.
        samples: committed days of samples that a champion has not seen, up to `mature`, ascending.
    """

    mature: datetime.date
    main_task: str
    samples: Mapping[datetime.date, Committed]
    models: tuple[ModelFacts, ...] = Field(min_length=1)
