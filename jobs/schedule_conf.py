"""conf `scheduler`: when the DAGs run, how often a task is tried, and when somebody is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import Field, field_validator, model_validator

from pipeline.config import Section

CRON_FIELDS = 5


class SchedulerConf(Section):
    """What `limelight plan --json` hands to the DAGs (docs/airflow.md).

    Attributes:
        cron: of `limelight_daily`; None: it is only started by hand or by another DAG.
        pool: an Airflow pool of one slot.
        retry_minutes: before the first retry; doubled before each further one, up to `max_retry_minutes`.
        wait_minutes: between two looks of a task that waits for its input or its turn.
        give_up_hours: since the run began; then what waits fails.
        timeout_minutes: of one try; `stage_timeout_minutes` is for stages that need another.
        deadline_minutes: since the run was queued.
        alert: command that gets the text of an alert as its last argument.
        keep_hours: how long a run keeps its turn after its last task began.
        spark_submit: further options.
    """

    cron: str | None = "30 6 * * *"
    pool: str = Field(default="limelight", min_length=1)
    retries: int = Field(default=3, ge=0)
    retry_minutes: float = Field(default=5, gt=0)
    max_retry_minutes: float = Field(default=60, gt=0)
    wait_minutes: float = Field(default=15, gt=0)
    give_up_hours: float = Field(default=12, gt=0)
    timeout_minutes: float = Field(default=240, gt=0)
    stage_timeout_minutes: Mapping[str, float] = {"train": 720}
    deadline_minutes: float = Field(default=300, gt=0)
    alert: tuple[str, ...] = ()
    keep_hours: float = Field(default=24, gt=0)
    spark_submit: tuple[str, ...] = ()

    @field_validator("cron")
    @classmethod
    def _cron_has_five_fields(cls, cron: str | None) -> str | None:
        if cron is not None and len(cron.split()) != CRON_FIELDS:
            raise ValueError(f"{cron!r} is not minute, hour, day, month and weekday, such as '30 6 * * *'")
        return cron

    @field_validator("stage_timeout_minutes")
    @classmethod
    def _timeouts_are_positive(cls, minutes: Mapping[str, float]) -> Mapping[str, float]:
        if any(value <= 0 for value in minutes.values()):
            raise ValueError("a timeout is above 0")
        return minutes

    @model_validator(mode="after")
    def _a_turn_outlives_every_wait(self) -> Self:
        longest = max(self.timeout_minutes, *self.stage_timeout_minutes.values(), self.give_up_hours * 60)
        if self.keep_hours * 60 <= longest:
            raise ValueError(
                f"keep_hours {self.keep_hours:g} is not above the longest timeout and give_up_hours "
                f"({longest / 60:g} h): a run would lose its turn while it waits"
            )
        return self
