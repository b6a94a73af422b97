"""The platform that incremental retrains are judged on: interests drift and anchors come, day after day.

simulated days   index 0 … ;  day 0 has no profile before it and gives no samples
mornings         the first one on which K fit days, M train days, a validation and a gate day are mature, and as many
                 more as are asked for
samples          of every day that a retrain of a morning needs, at once: they are the same rows for every arm
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.ingest import IngestOptions, ingest_simulate
from jobs.open_run import open_run
from jobs.settings import Settings
from pipeline.config import PipelineConf, day_range, full_retrain_days
from pipeline.context import ONE_DAY
from pipeline.run import compute_samples
from pipeline.sources.simulation.conf import SimulationConf

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.console import Steps

FIRST_DAY: datetime.date = SimulationConf.model_fields["start"].default
PREPARED_FILE = "prepared.json"


@dataclass(frozen=True, kw_only=True)
class PlatformConf:
    """How large it is, and how fast it changes.

    Attributes:
        impressions: per day.
        anchors: before the first day.
        anchor_growth, drift: see SimulationConf.
        mornings: retrains after the first one.
    """

    impressions: int
    anchors: int
    anchor_growth: float
    drift: float
    mornings: int

    @property
    def name(self) -> str:
        """Folder of the data; another one where the raw rows are others."""
        return f"{self.impressions}-{self.anchors}-{self.anchor_growth:g}-{self.drift:g}"

    def dates(self, conf: PipelineConf) -> list[datetime.date]:
        """The first morning and those after it."""
        distance = FIRST_DAY - full_retrain_days(FIRST_DAY, conf).fit[0]
        first = FIRST_DAY + ONE_DAY + distance
        return day_range(first, first + ONE_DAY * self.mornings)

    def days(self, conf: PipelineConf) -> int:
        """Days to simulate: all that the last morning sees."""
        return (self.dates(conf)[-1] - FIRST_DAY).days

    def sampled_days(self, conf: PipelineConf) -> list[datetime.date]:
        """Days whose samples are needed on any of the mornings."""
        dates = self.dates(conf)
        return day_range(full_retrain_days(dates[0], conf).fit[0], full_retrain_days(dates[-1], conf).gate)


def prepared(root: Path, platform: PlatformConf, conf: PipelineConf) -> dict[str, float] | None:
    """What `prepare` has done below `root`, if it has."""
    kept = _kept_file(root, platform.days(conf))
    if not kept.is_file():
        return None
    found: dict[str, float] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def _kept_file(root: Path, days: int) -> Path:
    return root / f"{days}-{PREPARED_FILE}"


def prepare(
    spark: SparkSession, root: Path, platform: PlatformConf, overrides: Sequence[str], steps: Steps
) -> dict[str, float]:
    """Raw logs, their truth and the samples below `root`, unless they are there; seconds and rows of each part."""
    conf, warehouse = Settings.load("local", overrides).pipeline, str(root / "warehouse")
    if (done := prepared(root, platform, conf)) is not None:
        return done
    days = platform.days(conf)
    options = IngestOptions(
        truth=str(root / "truth"),
        impressions=platform.impressions * days,
        days=days,
        anchors=platform.anchors,
        anchor_growth=platform.anchor_growth,
        drift=platform.drift,
    )
    with steps.step("simulate") as step:
        started = time.monotonic()
        ingested = ingest_simulate(spark, options, warehouse)
        step.rows = ingested.rows["truth"]
        simulated = time.monotonic() - started
    with steps.step("samples") as step:
        started = time.monotonic()
        context = open_run(spark, warehouse, "local", overrides).context
        runs = compute_samples(context, platform.sampled_days(conf), step.say)
        step.rows = runs[-1].result.rows
        sampled = time.monotonic() - started
    found = {"days": days, "rows": ingested.rows["truth"], "simulate_s": simulated, "samples_s": sampled}
    _kept_file(root, days).write_text(json.dumps(found), encoding="utf-8")
    return found
