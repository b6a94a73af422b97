"""What the gate asks for: thresholds of tasks and of segments, read from conf. docs/gate.md explains them.

None has a default: a threshold that nobody wrote down lets nothing through.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from features.manifest import Frozen

Bound = Literal["low", "point", "high"]
"""The end of an interval that a rule reads, where more is better: "low" asks for proof that all is well, "high" stops
only on proof of harm, "point" looks at the figure itself. Where less is better, the interval is turned around."""


class TaskRules(Frozen):
    """Thresholds of one task: how much evidence, floors of the model itself, and how it compares with the champion."""

    min_rows: int = Field(ge=1)
    min_positives: int = Field(ge=1)
    min_negatives: int = Field(ge=1)
    detectable_auc_drop: float = Field(gt=0, description="a drop that the day must be able to tell, at 90 % power")
    min_auc: float = Field(ge=0.5, le=1)
    max_auc: float = Field(ge=0.5, le=1, description="more is believed of no honest model")
    min_pcoc: float = Field(gt=0)
    max_pcoc: float = Field(gt=0)
    floor_bound: Bound = Field(description="of min_auc, max_auc and max_calibration_loss")
    max_calibration_loss: float = Field(gt=0, description="|ln PCOC| of the candidate − that of the champion")
    max_auc_drop: float = Field(ge=0, le=0.5)
    max_gauc_drop: float = Field(ge=0, le=0.5)
    max_logloss_rise: float = Field(ge=0, description="candidate's / champion's − 1")
    max_auc_gain: float = Field(gt=0, le=0.5, description="more than this over the champion looks like leaked labels")
    max_score_psi: float = Field(gt=0)
    bound: Bound = Field(description="of the drops, the rise and the gain")

    @model_validator(mode="after")
    def _ranges_are_not_empty(self) -> TaskRules:
        for what in ("pcoc", "auc"):
            low, high = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
            if low > high:
                raise ValueError(f"min_{what}={low} is above max_{what}={high}; swap them")
        return self


class SegmentRules(Frozen):
    """Which parts of the gate day are looked at apart, which of them are large enough to be judged, and how.

    Attributes:
        new_keys: fields of the train set; the rows whose key the champion's vocabulary does not know are a segment.
        heavy_user_share: the users with the most impressions on the day, at most this share of all users.
        columns: sample columns; each value is a segment.
        max_values: of a column: those with the most rows; the rest is one segment.
        level: confidence that no honest segment is stopped, over all tasks and segments together.
    """

    new_keys: tuple[str, ...]
    heavy_user_share: float = Field(gt=0, lt=1)
    columns: tuple[str, ...]
    max_values: int = Field(ge=1)
    min_rows: int = Field(ge=1)
    min_users: int = Field(ge=2)
    min_positives: int = Field(ge=1)
    min_negatives: int = Field(ge=1)
    level: float = Field(gt=0.5, lt=1)
    max_auc_drop: float = Field(ge=0, le=0.5)
    max_calibration_loss: float = Field(gt=0)


class GateConf(Frozen):
    """What a candidate must reach: the main task strictly, the others with more room (they are rarer)."""

    main_task: str
    main: TaskRules
    others: TaskRules
    segments: SegmentRules
    rounds: int = Field(ge=50, description="bootstrap resamples")
    seed: int
    level: float = Field(gt=0.5, lt=1, description="of the tasks' intervals, e.g. 0.95")
    min_parity_rows: int = Field(ge=1, description="fewer are allowed only when the gate day has fewer")
    max_logit_difference: float = Field(gt=0, le=1e-4)
    max_probability_difference: float = Field(gt=0, le=1e-5)

    def rules(self, task: str) -> TaskRules:
        """The thresholds of a task."""
        return self.main if task == self.main_task else self.others
