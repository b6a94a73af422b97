"""Cutoffs by lineage: manifests from the samples back to raw days, and the footers of what lies on the way."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from zoneinfo import ZoneInfo

from features.spark.snapshots import SNAPSHOT_TABLES
from features.spec import TILED_ENTITIES, Entity
from pipeline.audit.duck import largest
from pipeline.audit.lineage import RAW, Behind, Lineage, partition_day, split_input
from pipeline.audit.report import Finding, Verdict, shown
from pipeline.audit.sample_set import ROOM_GROUP, SHOWN_GROUP, profile_group, snapshot_group
from pipeline.context import ONE_DAY, Context
from pipeline.manifests import PartitionManifest
from pipeline.sources.raw_layout import RAW_TABLES
from pipeline.stages.names import ON_AIR_TILES, profile_table

HAPPENED, ARRIVED = "e", "a"
"""Columns of tiles and of other derived tables that say when rows happened and arrived."""


def cutoff_finding(subject: str, verdict: Verdict, what: str, **more: object) -> Finding:
    """A finding of the check `cutoffs`."""
    return Finding.model_validate({"check": "cutoffs", "subject": subject, "verdict": verdict, "what": what, **more})


@dataclass(frozen=True)
class Sources:
    """The manifests of the samples, and what lies behind them."""

    context: Context
    manifests: Mapping[datetime.date, PartitionManifest]
    _newest: dict[str, datetime.date | None] = field(default_factory=dict)

    @cached_property
    def lineage(self) -> Lineage:
        return Lineage(self.context.warehouse)

    @property
    def profiled(self) -> list[Entity]:
        return [entity for entity in TILED_ENTITIES if self.context.catalog.windows(entity)]

    def inputs(self, day: datetime.date, table: str) -> dict[str, str]:
        """Inputs of a day's samples that are partitions of one table."""
        return {key: digest for key, digest in self.manifests[day].inputs.items() if split_input(key)[0] == table}

    def newest_event(self, table: str, day: datetime.date) -> datetime.date | None:
        """The last day on which a row of a raw partition happened, by its footers; None without rows."""
        partition = self.context.raw.listing.partitions[table].get(day)
        if partition is None:
            return None
        times = RAW_TABLES[table].event_time
        found = [self._newest_in(url, time) for url in partition.file_urls() for time in times]
        return max((found_day for found_day in found if found_day is not None), default=None)

    def newest_in_tiles(self, manifest: PartitionManifest) -> dict[str, datetime.date]:
        """Largest e and a of a derived partition that has such columns, by its footers."""
        named = [name for name, kind in manifest.schema_ if name in (HAPPENED, ARRIVED) and kind == "date"]
        if manifest.table == ON_AIR_TILES:
            named.remove(HAPPENED)  # an open session counts ahead, on days that only later profiles read
        urls = self.context.warehouse.file_urls(manifest)
        found = {name: [day for url in urls if (day := self._newest_in(url, name))] for name in named}
        return {name: max(days) for name, days in found.items() if days}

    def _newest_in(self, url: str, column: str) -> datetime.date | None:
        key = f"{url} {column}"
        if key not in self._newest:
            value = largest(url, column)
            if isinstance(value, datetime.datetime):
                zoned = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
                value = zoned.astimezone(ZoneInfo(self.context.conf.time.zone)).date()
            self._newest[key] = value
        return self._newest[key]


def profile_lineage(sources: Sources) -> Iterator[Finding]:
    """As-of groups: nothing behind the profiles of D may have arrived or happened on D or later."""
    for entity in sources.profiled:
        table = profile_table(entity)
        breaches: list[str] = []
        unknown: set[str] = set()
        newest = _Newest()
        for day in sources.manifests:
            inputs = sources.inputs(day, table)
            found = sources.lineage.behind(inputs)
            unknown |= found.unknown or (set() if inputs else {f"{table}/dt={day}"})
            breaches += _too_new(found, day) + newest.look(sources, found, day)
        yield _lineage_finding(profile_group(entity), breaches, unknown, newest, days=len(sources.manifests))


@dataclass
class _Newest:
    """The closest that anything came to its cutoff, in days before it."""

    event: int | None = None
    arrival: int | None = None

    def look(self, sources: Sources, found: Behind, day: datetime.date) -> list[str]:
        """Takes down the newest event and arrival behind day D; returns what is not before D."""
        breaches = []
        for table, arrived in found.raw:
            happened = sources.newest_event(table, arrived)
            if happened is not None and happened >= day:
                breaches.append(f"{day}: raw/{table}/dt={arrived} holds rows of {happened}")
            self.arrival = _least(self.arrival, (day - arrived).days)
            self.event = _least(self.event, (day - happened).days if happened is not None else None)
        for manifest in found.derived:
            late = {name: at for name, at in sources.newest_in_tiles(manifest).items() if at >= day}
            breaches += [f"{day}: {manifest.table}/{manifest.partition} holds {n} = {at}" for n, at in late.items()]
        return breaches


def _least(first: int | None, second: int | None) -> int | None:
    known = [value for value in (first, second) if value is not None]
    return min(known, default=None)


def _too_new(found: Behind, day: datetime.date) -> list[str]:
    """Raw partitions of D or later; derived ones too, save the profiles of D themselves."""
    breaches = [f"{day}: raw/{table}/dt={arrived}" for table, arrived in found.raw if arrived >= day]
    for manifest in found.derived:
        its_day, name = partition_day(manifest.partition), f"{manifest.table}/{manifest.partition}"
        if its_day is not None and its_day > day:
            breaches.append(f"{day}: {name}")
    return breaches


def _lineage_finding(subject: str, breaches: list[str], unknown: set[str], newest: _Newest, *, days: int) -> Finding:
    figures = {"days": days}
    if newest.event is not None and newest.arrival is not None:
        figures |= {"newest event, days before D": newest.event, "newest arrival, days before D": newest.arrival}
    if breaches:
        what = "read rows that happened or arrived on D or later"
        return cutoff_finding(
            subject, Verdict.LEAK, what, count=len(breaches), examples=shown(sorted(breaches)), figures=figures
        )
    if unknown:
        what = "the manifests of some inputs are gone or were replaced since"
        return cutoff_finding(
            subject, Verdict.NOT_CHECKABLE, what, count=len(unknown), examples=shown(sorted(unknown)), figures=figures
        )
    if newest.arrival is None:
        return cutoff_finding(subject, Verdict.PASS, "no raw row is behind any of its values", figures=figures)
    what = f"newest event {newest.event} and newest arrival {newest.arrival} days before D, over {days} days"
    return cutoff_finding(subject, Verdict.PASS, what, figures=figures)


def state_lineage(sources: Sources) -> Iterator[Finding]:
    """Carried states that event-time features begin with: nothing behind them may have arrived after D."""
    profiled = {profile_table(entity) for entity in sources.profiled}
    named = {split_input(key)[0] for manifest in sources.manifests.values() for key in manifest.inputs}
    for table in sorted(name for name in named - profiled if not name.startswith(RAW)):
        late: list[str] = []
        unknown: set[str] = set()
        newest: int | None = None
        for day in sources.manifests:
            found = sources.lineage.behind(sources.inputs(day, table))
            unknown |= found.unknown
            late += [f"{day}: raw/{raw}/dt={arrived}" for raw, arrived in found.raw if arrived > day]
            newest = _least(newest, min(((day - arrived).days for _, arrived in found.raw), default=None))
        subject = f"state {table}: arrival"
        if late:
            what = "rows that arrived after D are behind it"
            yield cutoff_finding(subject, Verdict.LEAK, what, count=len(late), examples=shown(sorted(late)))
        elif unknown:
            what = "the manifests of some inputs are gone or were replaced since"
            yield cutoff_finding(
                subject, Verdict.NOT_CHECKABLE, what, count=len(unknown), examples=shown(sorted(unknown))
            )
        else:
            yield cutoff_finding(subject, Verdict.PASS, f"newest arrival {newest} days before D")


def snapshot_lineage(sources: Sources) -> Iterator[Finding]:
    limit = sources.context.conf.time.max_snapshot_age_days
    groups = {group: table for entity, table in SNAPSHOT_TABLES.items() if (group := snapshot_group(entity))}
    for group, table in groups.items():
        ages: dict[tuple[datetime.date, datetime.date], int] = {}
        for day in sources.manifests:
            read = [partition_day(split_input(key)[1]) for key in sources.inputs(day, f"raw/{table}")]
            ages |= {(day, at): (day - at).days for at in read if at is not None}
        wrong = [f"{day}: raw/{table}/dt={at}" for (day, at), age in ages.items() if not 1 <= age <= limit]
        if wrong:
            what = f"snapshots must have arrived before D and be at most {limit} days old"
            yield cutoff_finding(group, Verdict.LEAK, what, count=len(wrong), examples=shown(sorted(wrong)))
        elif ages:
            what = f"snapshots {min(ages.values())} to {max(ages.values())} days older than D"
            yield cutoff_finding(group, Verdict.PASS, what, figures={"days": len(sources.manifests)})


def room_arrivals(sources: Sources) -> Iterator[Finding]:
    read = [
        (day, at)
        for day in sources.manifests
        for key in sources.inputs(day, "raw/room_stats")
        if (at := partition_day(split_input(key)[1])) is not None
    ]
    late = [f"{day}: raw/room_stats/dt={at}" for day, at in read if at > day]
    if late:
        what = "read minutes that arrived after D"
        yield cutoff_finding(f"{ROOM_GROUP}: arrival", Verdict.LEAK, what, count=len(late), examples=shown(late))
    elif read:
        newest = min((day - at).days for day, at in read)
        yield cutoff_finding(
            f"{ROOM_GROUP}: arrival", Verdict.PASS, f"newest minutes arrived {newest} days before D ends"
        )


def own_rows(sources: Sources) -> Iterator[Finding]:
    delay = sources.context.conf.time.label_delay_days
    wrong = [
        f"{day}: {key}"
        for day in sources.manifests
        for key in sources.inputs(day, "raw/impressions")
        if (at := partition_day(split_input(key)[1])) is None or not day <= at <= day + ONE_DAY * delay
    ]
    verdict = Verdict.LEAK if wrong else Verdict.PASS
    what = f"rows shown on D that arrived by D + {delay}"
    yield cutoff_finding(SHOWN_GROUP, verdict, what, count=len(wrong) or None, examples=shown(wrong))
