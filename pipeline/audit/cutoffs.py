"""The newest event and the newest arrival behind every group of features, against the group's own cutoff.

group               cutoff of day D                   looked up in
profiles            e < D and a < D                   manifests back to raw days; footers of raw days and of tiles;
                                                      every row against the profile of its day
snapshots           dt < D, not too old               manifests
sequences           before ts − event_lag, a ≤ D      the age of every event in every row
room state          before ts − event_lag, a ≤ D      manifests; the room's age in every row
somebody's Parquet  before the row's time             the time column that was named for the group
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from zoneinfo import ZoneInfo

from features.schema import Catalog, sequence_name
from features.spark.snapshots import SNAPSHOT_TABLES
from features.spec import TILED_ENTITIES, Entity, RoomAge, SequenceFeature
from pipeline.audit.conf import AuditConf
from pipeline.audit.duck import Connection, connect, fetch, largest, make_view, quoted
from pipeline.audit.lineage import Behind, Lineage, partition_day, split_input
from pipeline.audit.report import Finding, Verdict, shown
from pipeline.audit.sample_set import (
    ROOM_GROUP,
    SHOWN_GROUP,
    Own,
    SampleSet,
    profile_group,
    sequence_group,
    snapshot_group,
)
from pipeline.context import ONE_DAY, Context
from pipeline.manifests import PartitionManifest
from pipeline.sources.raw_layout import RAW_TABLES
from pipeline.stages.names import SAMPLES, profile_table

Report = Callable[[str], None]
HAPPENED, ARRIVED = "e", "a"


def own_cutoffs(samples: SampleSet, own: Own, conf: AuditConf, report: Report) -> list[Finding]:
    """Findings of a sample set of ours."""
    manifests = own.context.warehouse.require(SAMPLES, own.days)
    sources = _Sources(context=own.context, manifests=manifests)
    report("following manifests back to raw days")
    findings = [*_profiles(sources), *_snapshots(sources), *_room_arrivals(sources), *_own_row(sources)]
    with connect() as connection:
        make_view(connection, "every_sample", samples.urls)
        limit = "" if samples.rows <= conf.rows else f"WHERE hash(impression_id) % {samples.rows} < {conf.rows}"
        connection.execute(f"CREATE VIEW samples AS SELECT * FROM every_sample {limit}")
        report("comparing samples with the profiles of their day")
        findings += [_as_profiled(connection, entity, sources) for entity in sources.profiled]
        report("looking at the age of every event")
        lag = own.context.conf.time.event_lag_seconds
        findings += [_sequence(connection, sequence, lag) for sequence in own.context.catalog.sequences]
        findings += _room_ages(connection, own.context.catalog, lag)
    return findings


def foreign_cutoffs(samples: SampleSet) -> list[Finding]:
    """Findings of somebody's Parquet: only what a time column shows."""
    findings = []
    with connect() as connection:
        make_view(connection, "samples", samples.urls, samples.folders)
        for group in samples.groups:
            if group.happened is None:
                what = "no lineage, and no time column for the group: name one, --group name=column,column@time_column"
                findings.append(_finding(group.name, Verdict.NOT_CHECKABLE, what))
            else:
                findings.append(_named_time(connection, samples, group.name, group.happened))
            findings += _later_values(connection, samples, group.columns)
    return findings


def _finding(subject: str, verdict: Verdict, what: str, **more: object) -> Finding:
    return Finding.model_validate({"check": "cutoffs", "subject": subject, "verdict": verdict, "what": what, **more})


# --- From manifests and footers ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sources:
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


def _profiles(sources: _Sources) -> Iterator[Finding]:
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

    def look(self, sources: _Sources, found: Behind, day: datetime.date) -> list[str]:
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
        return _finding(
            subject, Verdict.LEAK, what, count=len(breaches), examples=shown(sorted(breaches)), figures=figures
        )
    if unknown:
        what = "the manifests of some inputs are gone or were replaced since"
        return _finding(
            subject, Verdict.NOT_CHECKABLE, what, count=len(unknown), examples=shown(sorted(unknown)), figures=figures
        )
    if newest.arrival is None:
        return _finding(subject, Verdict.PASS, "no raw row is behind any of its values", figures=figures)
    what = f"newest event {newest.event} and newest arrival {newest.arrival} days before D, over {days} days"
    return _finding(subject, Verdict.PASS, what, figures=figures)


def _snapshots(sources: _Sources) -> Iterator[Finding]:
    limit = sources.context.conf.time.max_snapshot_age_days
    groups = {group: table for entity, table in SNAPSHOT_TABLES.items() if (group := snapshot_group(entity))}
    for group, table in groups.items():
        ages = {}
        for day in sources.manifests:
            read = [partition_day(split_input(key)[1]) for key in sources.inputs(day, f"raw/{table}")]
            ages |= {(day, at): (day - at).days for at in read if at is not None}
        wrong = [f"{day}: raw/{table}/dt={at}" for (day, at), age in ages.items() if not 1 <= age <= limit]
        if wrong:
            what = f"snapshots must have arrived before D and be at most {limit} days old"
            yield _finding(group, Verdict.LEAK, what, count=len(wrong), examples=shown(sorted(wrong)))
        elif ages:
            what = f"snapshots {min(ages.values())} to {max(ages.values())} days older than D"
            yield _finding(group, Verdict.PASS, what, figures={"days": len(sources.manifests)})


def _room_arrivals(sources: _Sources) -> Iterator[Finding]:
    read = [
        (day, at)
        for day in sources.manifests
        for key in sources.inputs(day, "raw/room_stats")
        if (at := partition_day(split_input(key)[1])) is not None
    ]
    late = [f"{day}: raw/room_stats/dt={at}" for day, at in read if at > day]
    if late:
        what = "read minutes that arrived after D"
        yield _finding(f"{ROOM_GROUP}: arrival", Verdict.LEAK, what, count=len(late), examples=shown(late))
    elif read:
        newest = min((day - at).days for day, at in read)
        yield _finding(f"{ROOM_GROUP}: arrival", Verdict.PASS, f"newest minutes arrived {newest} days before D ends")


def _own_row(sources: _Sources) -> Iterator[Finding]:
    delay = sources.context.conf.time.label_delay_days
    wrong = [
        f"{day}: {key}"
        for day in sources.manifests
        for key in sources.inputs(day, "raw/impressions")
        if (at := partition_day(split_input(key)[1])) is None or not day <= at <= day + ONE_DAY * delay
    ]
    verdict = Verdict.LEAK if wrong else Verdict.PASS
    what = f"rows shown on D that arrived by D + {delay}"
    yield _finding(SHOWN_GROUP, verdict, what, count=len(wrong) or None, examples=shown(wrong))


# --- From the rows ----------------------------------------------------------------------------------------


def _as_profiled(connection: Connection, entity: Entity, sources: _Sources) -> Finding:
    """Every sample's profile columns are those that the profiles of its day have for its keys."""
    subject = f"{profile_group(entity)}: every row"
    table, catalog = profile_table(entity), sources.context.catalog
    manifests = [
        found
        for day in sources.manifests
        for key, digest in sources.inputs(day, table).items()
        if (found := sources.lineage.committed(key, digest)) is not None
    ]
    names = [feature.name for feature in catalog.windows(entity)]
    urls = [url for manifest in manifests for url in sources.context.warehouse.file_urls(manifest)]
    if not urls:
        return _finding(subject, Verdict.NOT_CHECKABLE, f"{table} of these days is gone")
    make_view(connection, "profiles", urls)
    defaults = {feature.name: feature.default for feature in catalog.windows(entity)}
    columns = ", ".join(
        f"count(*) FILTER (s.{quoted(n)} IS DISTINCT FROM coalesce(p.{quoted(n)}, ${number + 1})) AS {quoted(n)}"
        for number, n in enumerate(names)
    )
    keys = " AND ".join(f"s.{quoted(key)} = p.{quoted(key)}" for key in entity.keys)
    sql = f"SELECT count(*), {columns} FROM samples s LEFT JOIN profiles p ON s.dt = p.day AND {keys}"
    rows, *differing = connection.execute(sql, [defaults[name] for name in names]).fetchall()[0]
    moved = {name: count for name, count in zip(names, differing, strict=True) if count}
    if moved:
        what = "values are not those of the profiles of D that the samples' manifests name"
        examples = [f"{name}: {count:,} rows" for name, count in sorted(moved.items(), key=lambda item: -item[1])]
        return _finding(subject, Verdict.LEAK, what, count=max(moved.values()), examples=shown(examples))
    return _finding(subject, Verdict.PASS, f"{rows:,} rows have the values of {table} of their day")


def _sequence(connection: Connection, sequence: SequenceFeature, lag: int) -> Finding:
    """Ages are whole seconds from event to impression: an event before ts − lag has an age of at least lag."""
    subject = sequence_group(sequence.name)
    field_name = next((field.name for field in sequence.fields if field.source == "age_s"), None)
    if field_name is None:
        what = "it has no field with the age of its events; see the check `recompute`"
        return _finding(subject, Verdict.NOT_CHECKABLE, what)
    column = quoted(sequence_name(sequence.name, field_name))
    least, most, events = fetch(
        connection, f"SELECT min(age), max(age), count(*) FROM (SELECT unnest({column}) AS age FROM samples)"
    )[0]
    if not events:
        return _finding(subject, Verdict.PASS, "no row has an event")
    limit = sequence.max_age_days * 86_400
    bad = f"len(list_filter({column}, lambda age: age < {lag} OR age > {limit})) > 0"
    wrong = fetch(connection, f"SELECT count(*), min(impression_id) FROM samples WHERE {bad}")[0]
    figures = {"newest event, seconds before ts": least, "oldest event, seconds before ts": most, "events": events}
    if wrong[0]:
        what = f"events must be at least {lag} s and at most {limit} s older than their impression"
        examples = shown([f"impression {wrong[1]}"])
        return _finding(subject, Verdict.LEAK, what, count=wrong[0], examples=examples, figures=figures)
    what = f"newest of {events:,} events {least} s before its impression, the cutoff is {lag} s"
    return _finding(subject, Verdict.PASS, what, figures=figures)


def _room_ages(connection: Connection, catalog: Catalog, lag: int) -> Iterator[Finding]:
    subject = f"{ROOM_GROUP}: event time"
    ages = [feature for feature in catalog.of_entity(Entity.ROOM) if isinstance(feature.op, RoomAge)]
    for feature in ages:
        column = quoted(feature.name)
        is_known = f"{column} <> {feature.default}"
        least, wrong = fetch(
            connection,
            f"SELECT min({column}) FILTER ({is_known}), count(*) FILTER ({is_known} AND {column} < {lag // 60}) "
            "FROM samples",
        )[0]
        if wrong:
            what = f"rooms that started within {lag} s before the impression, or after it, are known"
            yield _finding(f"{subject}: {feature.name}", Verdict.LEAK, what, count=wrong)
        else:
            yield _finding(f"{subject}: {feature.name}", Verdict.PASS, f"youngest room {least} min before ts")
    rest = [feature.name for feature in catalog.of_entity(Entity.ROOM) if feature not in ages]
    what = "values carry no time; the checks `recompute` and `mutation` decide"
    yield _finding(subject, Verdict.NOT_CHECKABLE, what, count=len(rest), examples=shown(rest))


def _named_time(connection: Connection, samples: SampleSet, group: str, happened: str) -> Finding:
    """The newest event behind each row must lie before the row; days must lie before the row's day."""
    time, event = _comparable(samples, samples.time, happened)
    late = f"{event} >= {time}"
    rows, count = fetch(connection, f"SELECT count({event}), count(*) FILTER ({late}) FROM samples")[0]
    if not count:
        return _finding(group, Verdict.PASS, f"{happened} lies before {samples.time} in all {rows:,} rows that have it")
    key = quoted(samples.key)
    examples = fetch(connection, f"SELECT {key}, {event}, {time} FROM samples WHERE {late} ORDER BY {key} LIMIT 5")
    what = f"{happened} is not before {samples.time}"
    named = shown(f"{samples.key} {row[0]}: {row[1]} against {row[2]}" for row in examples)
    return _finding(group, Verdict.LEAK, what, count=count, examples=named)


def _later_values(connection: Connection, samples: SampleSet, columns: tuple[str, ...]) -> Iterator[Finding]:
    """A feature that is itself a time, and lies after the row's, may be a plan or a leak."""
    kinds = {item[0]: item[1] for item in connection.execute("SELECT * FROM samples LIMIT 0").description or ()}
    for name in columns:
        if not str(kinds[name]).startswith(("TIMESTAMP", "DATE")):
            continue
        time, value = _comparable(samples, samples.time, name)
        count = fetch(connection, f"SELECT count(*) FILTER ({value} > {time}) FROM samples")[0][0]
        if count:
            what = f"a time that lies after {samples.time}: a plan, or known only afterwards"
            yield _finding(name, Verdict.SUSPECT, what, count=count)


def _comparable(samples: SampleSet, time: str, event: str) -> tuple[str, str]:
    """Both columns as SQL of one type: as days when either is a day, else as they are."""
    import pyarrow as pa

    kinds = [samples.dataset.schema.field(name).type for name in (time, event)]
    if any(pa.types.is_date(kind) for kind in kinds):
        return f"CAST({quoted(time)} AS DATE)", f"CAST({quoted(event)} AS DATE)"
    if all(pa.types.is_timestamp(kind) for kind in kinds):
        return f"CAST({quoted(time)} AS TIMESTAMPTZ)", f"CAST({quoted(event)} AS TIMESTAMPTZ)"
    return quoted(time), quoted(event)
