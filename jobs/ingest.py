"""A source → raw tables: one function per source, called by `limelight ingest` and by the demo."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from features.errors import ConfError
from pipeline.sources import completejourney, kuailive, kuairand, simulate
from pipeline.sources.report import IngestReport, SourceFacts, SourceTasks, write_source_facts

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SIMULATED_TASKS = SourceTasks(
    main="enter", tasks=("enter", "watch", "gift", "follow", "comment", "like", "share"), esmm=("enter", "gift")
)


@dataclass(frozen=True, kw_only=True)
class IngestOptions:
    """What a user may say about an ingest; each source takes what it knows.

    Attributes:
        data: folder of a dataset.
        truth: folder for the simulator's true probabilities; outside the warehouse.
        impressions, users, anchors, days: size of the simulation; users and anchors follow from the others unless told.
        from_day, to_day: simulated days to write, counted from 0; the end is not written.
        anchor_growth, drift: how the simulated platform changes; see SimulationConf.
    """

    data: str | None = None
    truth: str | None = None
    impressions: int = 300_000
    users: int | None = None
    anchors: int | None = None
    days: int | None = None
    seed: int = 20250301
    from_day: int = 0
    to_day: int | None = None
    anchor_growth: float | None = None
    drift: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Ingested:
    """What an ingest wrote, and what it had to do without; see `pipeline.sources.report.IngestReport`.

    Attributes:
        rows: table → rows written.
        remarks: one sentence each: absent columns and what was done instead, rows left out, notes.
    """

    rows: Mapping[str, int]
    remarks: tuple[str, ...] = ()

    @classmethod
    def of(cls, report: IngestReport) -> Self:
        """Days added up, and everything the report says as sentences."""
        absent = [f"{column} is absent: {done}" for column, done in report.absent_columns.items()]
        dropped = [f"{count:,} input rows left out: {why}" for why, count in report.dropped.items() if count]
        rows = {table: sum(days.values()) for table, days in report.rows.items()}
        return cls(rows=rows, remarks=(*absent, *dropped, *report.notes))


def ingest_simulate(spark: SparkSession, options: IngestOptions, warehouse: str) -> Ingested:
    """Simulate days of the platform; the truth goes beside the warehouse unless told otherwise."""
    days = options.days or 18
    conf = simulate.SimulationConf(
        impressions=options.impressions,
        users=options.users,
        anchors=options.anchors,
        days=days,
        seed=options.seed,
        from_day=options.from_day,
        to_day=options.to_day,
        anchor_growth=options.anchor_growth,
        drift=options.drift,
    )
    rows = simulate.simulate(spark, conf, warehouse, options.truth or f"{warehouse.rstrip('/')}-truth")
    last = conf.start + datetime.timedelta(days=(options.to_day or days) - 1)
    facts = SourceFacts(source="simulate", zone=conf.zone, tasks=SIMULATED_TASKS, first_day=conf.start, last_day=last)
    write_source_facts(spark, warehouse, facts)
    return Ingested(rows=rows)


def ingest_kuairand(spark: SparkSession, options: IngestOptions, warehouse: str) -> Ingested:
    """Ingest a KuaiRand folder."""
    conf = kuairand.KuaiRandConf(folder=_folder(options, "kuairand"))
    return Ingested.of(kuairand.ingest(spark, conf, warehouse))


def ingest_kuailive(spark: SparkSession, options: IngestOptions, warehouse: str) -> Ingested:
    """Ingest a KuaiLive folder."""
    conf = kuailive.KuaiLiveConf(folder=_folder(options, "kuailive"))
    return Ingested.of(kuailive.ingest(spark, conf, warehouse))


def ingest_completejourney(spark: SparkSession, options: IngestOptions, warehouse: str) -> Ingested:
    """Ingest The Complete Journey from its package."""
    days = {"days": options.days} if options.days else {}
    conf = completejourney.CompleteJourneyConf(**days)
    return Ingested.of(completejourney.ingest(spark, conf, warehouse))


Ingest = Callable[["SparkSession", IngestOptions, str], Ingested]
SOURCES: dict[str, Ingest] = {
    "simulate": ingest_simulate,
    "kuairand": ingest_kuairand,
    "kuailive": ingest_kuailive,
    "completejourney": ingest_completejourney,
}


def find_source(name: str) -> Ingest:
    """A source by name.

    Raises:
        ConfError: names the sources there are.
    """
    if name not in SOURCES:
        raise ConfError(f"there is no source {name!r}; sources are {', '.join(SOURCES)}")
    return SOURCES[name]


def _folder(options: IngestOptions, source: str) -> str:
    if options.data is None:
        raise ConfError(f"source {source} reads a folder: give --data FOLDER (make demo DATA=FOLDER)")
    return options.data
