"""Cutoffs by the rows: what the stored values, or a column of times, say of the newest event behind them."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping

import pandas as pd
import pyarrow as pa

from features.schema import Catalog, sequence_name
from features.spark.ops import DAY
from features.spark.window_state import as_features
from features.spec import Entity, RoomAge, SequenceFeature
from pipeline.audit.cutoffs_lineage import Sources, cutoff_finding
from pipeline.audit.duck import Connection, fetch, quoted
from pipeline.audit.report import Finding, Verdict, shown
from pipeline.audit.sample_set import ROOM_GROUP, SampleSet, profile_group, sequence_group
from pipeline.manifests import PartitionManifest
from pipeline.profile_state import state_of
from pipeline.stages.names import profile_table


def as_profiled(connection: Connection, entity: Entity, sources: Sources) -> Finding:
    """Every sample's profile columns are those that the profiles of its day have for its keys."""
    subject = f"{profile_group(entity)}: every row"
    table, catalog = profile_table(entity), sources.context.catalog
    manifests = {
        day: found
        for day in sources.manifests
        for key, digest in sources.inputs(day, table).items()
        if (found := sources.lineage.committed(key, digest)) is not None
    }
    names = [feature.name for feature in catalog.windows(entity)]
    if not manifests:
        return cutoff_finding(subject, Verdict.NOT_CHECKABLE, f"{table} of these days is gone")
    connection.register("profiles", _profiles_of(connection, entity, sources, manifests))
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
        return cutoff_finding(subject, Verdict.LEAK, what, count=max(moved.values()), examples=shown(examples))
    return cutoff_finding(subject, Verdict.PASS, f"{rows:,} rows have the values of {table} of their day")


def _profiles_of(
    connection: Connection, entity: Entity, sources: Sources, manifests: Mapping[datetime.date, PartitionManifest]
) -> pd.DataFrame:
    """day, keys..., features of the keys that occur in samples: what is stored is state, features are read from it."""
    context, keys = sources.context, (DAY, *entity.keys)
    asked = fetch(connection, f"SELECT DISTINCT dt, {', '.join(map(quoted, entity.keys))} FROM samples")
    features = as_features(entity, context.catalog, state_of(context, entity, manifests))
    types = dict(features.dtypes)
    wanted = context.spark.createDataFrame(list(asked), ", ".join(f"`{name}` {types[name]}" for name in keys))
    return features.join(wanted, on=list(keys), how="left_semi").toPandas()


def sequence_ages(connection: Connection, sequence: SequenceFeature, lag: int) -> Finding:
    """Ages are whole seconds from event to impression: an event before ts − lag has an age of at least lag."""
    subject = sequence_group(sequence.name)
    field_name = next((field.name for field in sequence.fields if field.source == "age_s"), None)
    if field_name is None:
        what = "it has no field with the age of its events; see the check `recompute`"
        return cutoff_finding(subject, Verdict.NOT_CHECKABLE, what)
    column = quoted(sequence_name(sequence.name, field_name))
    least, most, events = fetch(
        connection, f"SELECT min(age), max(age), count(*) FROM (SELECT unnest({column}) AS age FROM samples)"
    )[0]
    if not events:
        return cutoff_finding(subject, Verdict.PASS, "no row has an event")
    limit = sequence.max_age_days * 86_400
    bad = f"len(list_filter({column}, lambda age: age < {lag} OR age > {limit})) > 0"
    wrong = fetch(connection, f"SELECT count(*), min(impression_id) FROM samples WHERE {bad}")[0]
    figures = {"newest event, seconds before ts": least, "oldest event, seconds before ts": most, "events": events}
    if wrong[0]:
        what = f"events must be at least {lag} s and at most {limit} s older than their impression"
        examples = shown([f"impression {wrong[1]}"])
        return cutoff_finding(subject, Verdict.LEAK, what, count=wrong[0], examples=examples, figures=figures)
    what = f"newest of {events:,} events {least} s before its impression, the cutoff is {lag} s"
    return cutoff_finding(subject, Verdict.PASS, what, figures=figures)


def room_ages(connection: Connection, catalog: Catalog, lag: int) -> Iterator[Finding]:
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
            yield cutoff_finding(f"{subject}: {feature.name}", Verdict.LEAK, what, count=wrong)
        else:
            yield cutoff_finding(f"{subject}: {feature.name}", Verdict.PASS, f"youngest room {least} min before ts")
    rest = [feature.name for feature in catalog.of_entity(Entity.ROOM) if feature not in ages]
    what = "values carry no time; the checks `recompute` and `mutation` decide"
    yield cutoff_finding(subject, Verdict.NOT_CHECKABLE, what, count=len(rest), examples=shown(rest))


def named_time(connection: Connection, samples: SampleSet, group: str, happened: str) -> Finding:
    """The newest event behind each row must lie before the row; days must lie before the row's day."""
    time, event = _comparable(samples, samples.time, happened)
    late = f"{event} >= {time}"
    rows, count = fetch(connection, f"SELECT count({event}), count(*) FILTER ({late}) FROM samples")[0]
    if not count:
        return cutoff_finding(
            group, Verdict.PASS, f"{happened} lies before {samples.time} in all {rows:,} rows that have it"
        )
    key = quoted(samples.key)
    examples = fetch(connection, f"SELECT {key}, {event}, {time} FROM samples WHERE {late} ORDER BY {key} LIMIT 5")
    what = f"{happened} is not before {samples.time}"
    named = shown(f"{samples.key} {row[0]}: {row[1]} against {row[2]}" for row in examples)
    return cutoff_finding(group, Verdict.LEAK, what, count=count, examples=named)


def later_values(connection: Connection, samples: SampleSet, columns: tuple[str, ...]) -> Iterator[Finding]:
    """A feature that is itself a time, and lies after the row's, may be a plan or a leak."""
    kinds = {item[0]: item[1] for item in connection.execute("SELECT * FROM samples LIMIT 0").description or ()}
    for name in columns:
        if not str(kinds[name]).startswith(("TIMESTAMP", "DATE")):
            continue
        time, value = _comparable(samples, samples.time, name)
        count = fetch(connection, f"SELECT count(*) FILTER ({value} > {time}) FROM samples")[0][0]
        if count:
            what = f"a time that lies after {samples.time}: a plan, or known only afterwards"
            yield cutoff_finding(name, Verdict.SUSPECT, what, count=count)


def _comparable(samples: SampleSet, time: str, event: str) -> tuple[str, str]:
    """Both columns as SQL of one type: as days when either is a day, else as they are."""
    kinds = [samples.dataset.schema.field(name).type for name in (time, event)]
    if any(pa.types.is_date(kind) for kind in kinds):
        return f"CAST({quoted(time)} AS DATE)", f"CAST({quoted(event)} AS DATE)"
    if all(pa.types.is_timestamp(kind) for kind in kinds):
        return f"CAST({quoted(time)} AS TIMESTAMPTZ)", f"CAST({quoted(event)} AS TIMESTAMPTZ)"
    return quoted(time), quoted(event)
