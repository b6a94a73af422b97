"""How a command opens its work: conf, a look at the disk, one Spark session, one context.

Nothing here needs torch: the data side runs on clusters that have none.
"""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from features.errors import DataError, Problem, ResourceError
from features.storage import refuse_secrets
from jobs.settings import Settings, is_remote
from jobs.spark_session import spark_session
from pipeline.context import Context
from pipeline.run import open_context
from pipeline.sources.report import SourceFacts, read_source_facts

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True, kw_only=True)
class Run:
    """An open command."""

    spark: SparkSession
    settings: Settings
    facts: SourceFacts | None
    context: Context


@contextmanager
def session(name: str, warehouse: str, place: str, overrides: Sequence[str] = ()) -> Iterator[SparkSession]:
    """A Spark session in the business time zone, after a look at conf and at the disk.

    Raises:
        ConfError: on any bad value, or a secret in the warehouse's URL; told before Spark starts.
        ResourceError: when the disk is too full.
    """
    settings = Settings.load(place, overrides)
    refuse_secrets(warehouse)
    require_disk(warehouse, settings.pipeline.raw.min_free_bytes)
    with spark_session(name, place, settings.pipeline.time.zone) as spark:
        yield spark


def require_disk(warehouse: str, needed: int) -> None:
    """Stop before work that would fill the disk.

    Raises:
        ResourceError: names free and needed bytes.
    """
    if is_remote(warehouse):
        return
    folder = Path(warehouse.removeprefix("file://")).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ResourceError(
            f"the disk of {warehouse} has {free / 1e9:.2f} GB free and {needed / 1e9:.2f} GB are needed: "
            "free some, or lower conf raw.min_free_bytes"
        )


def open_run(
    spark: SparkSession,
    warehouse: str,
    place: str,
    overrides: Sequence[str],
    *,
    last_day: datetime.date | None = None,
    force: bool = False,
) -> Run:
    """Settings that follow the source, and the context.

    Raises:
        ConfError: on any bad value.
        DataError: when the warehouse holds no raw tables.
    """
    facts = read_source_facts(spark, warehouse)
    settings = Settings.load(place, overrides, facts)
    source = facts.source if facts else "own logs"
    context = open_context(spark, warehouse, settings.pipeline, last_day=last_day, source=source, force=force)
    if not context.raw.listing.days.get("impressions"):
        remedy = "Write it with `limelight ingest SOURCE --warehouse URL`, or point --warehouse at your logs"
        raise DataError([Problem(table="raw/impressions", what=f"{warehouse} holds no raw day", remedy=remedy)])
    return Run(spark=spark, settings=settings, facts=facts, context=context)
