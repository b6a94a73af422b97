"""Train-time values against as-of-now values: sampled rows, computed again from raw by another path.

1. rows chosen by a hash of their impression_id                          stored
2. every feature by the oracle (SQL over raw rows)                       now
3. stored against now, column by column                                  rows that differ
4. these once more with later cutoffs: does that explain the value?      rows that match
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from features.spec import DType
from pipeline.audit.conf import AuditConf
from pipeline.audit.duck import Connection, connect, fetch, make_view, quoted
from pipeline.audit.lineage import Lineage
from pipeline.audit.oracle import Oracle
from pipeline.audit.oracle_raw import MICROS
from pipeline.audit.report import Finding, Verdict, shown
from pipeline.audit.sample_set import FeatureGroup, Own, SampleSet
from pipeline.stages.names import SAMPLES

Report = Callable[[str], None]
TOLERANCE = 1e-9
"""Relative: rates are quotients of the same integers, divided by two programs."""
KEYS = ("user_id", "anchor_id", "room_id")


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A column whose stored values are not what its cutoff allows; `explained`: rows that a later cutoff explains."""

    column: str
    rows: int
    days: tuple[datetime.date, ...]
    examples: tuple[str, ...]
    explained: int = 0


def recompute(samples: SampleSet, own: Own, conf: AuditConf, report: Report) -> list[Finding]:
    """A finding per group of features that is equal, per column that differs, per operation without an oracle."""
    with connect() as connection:
        report("choosing rows")
        make_view(connection, "samples", samples.urls)
        # DuckDB's hash is of 64 bits: a remainder by the number of rows is even enough.
        share = f"hash(impression_id) % {max(1, samples.rows)} < {conf.recompute_rows}"
        connection.execute(f"CREATE TEMP TABLE stored AS SELECT * FROM samples WHERE {share}")
        rows = int(fetch(connection, "SELECT count(*) FROM stored")[0][0])
        if not rows:
            return [_finding("all features", Verdict.NOT_CHECKABLE, "the sample set has no rows")]
        oracle = Oracle(connection, own.context)
        report(f"reading the raw rows behind {rows:,} impressions")
        absent = oracle.load()
        report(f"computing {rows:,} impressions again")
        columns = oracle.compute()
        differences = _differences(connection, {**dict.fromkeys(KEYS, DType.BIGINT), **columns})
        if differences:
            report("looking for what explains the differences")
            differences = _explained(connection, oracle, columns, differences)
    findings = [_no_oracle(feature.name, type(feature.op).__name__) for feature in oracle.uncovered]
    if absent:
        what = "impressions of the samples are not in the raw tables"
        findings.append(_finding("impression", Verdict.LEAK, what, count=len(absent), examples=shown(absent)))
    changed = _changed_since(own, {day for difference in differences for day in difference.days})
    findings += [_differs(difference, rows, changed) for difference in differences]
    differing = {difference.column for difference in differences}
    findings += [_equal(group, columns, differing, rows - len(absent)) for group in samples.groups]
    labels = FeatureGroup(name="labels", columns=oracle.labels())
    return [*findings, _equal(labels, columns, differing, rows - len(absent))]


def _finding(subject: str, verdict: Verdict, what: str, **more: object) -> Finding:
    return Finding.model_validate({"check": "recompute", "subject": subject, "verdict": verdict, "what": what, **more})


def _no_oracle(name: str, op: str) -> Finding:
    return _finding(name, Verdict.NOT_CHECKABLE, f"the oracle has no SQL for the operation {op}")


def _is_different(column: str, kind: DType | None) -> str:
    """SQL: the stored value `s` is not the one of now, `n`; null equals null."""
    stored, now = f"s.{quoted(column)}", f"n.{quoted(column)}"
    if kind is DType.DOUBLE:
        near = f"abs({stored} - {now}) <= {TOLERANCE} * greatest(1, abs({now}))"
        return f"NOT coalesce({near}, {stored} IS NULL AND {now} IS NULL)"
    return f"({stored} IS DISTINCT FROM {now})"


def _differences(connection: Connection, columns: Mapping[str, DType | None]) -> list[Difference]:
    both = "FROM stored s JOIN now n USING (impression_id)"
    counts = ", ".join(f"count(*) FILTER ({_is_different(name, kind)})" for name, kind in columns.items())
    found = zip(columns.items(), fetch(connection, f"SELECT {counts} {both}")[0], strict=True)
    return [_difference(connection, name, kind, both, count) for (name, kind), count in found if count]


def _difference(connection: Connection, name: str, kind: DType | None, both: str, count: int) -> Difference:
    differs = f"{both} WHERE {_is_different(name, kind)}"
    column = quoted(name)
    examples = fetch(
        connection, f"SELECT impression_id, s.{column}, n.{column} {differs} ORDER BY impression_id LIMIT 5"
    )
    days = tuple(row[0] for row in fetch(connection, f"SELECT DISTINCT s.dt {differs} ORDER BY 1"))
    told = tuple(f"impression {row[0]}: stored {_short(row[1])}, as of now {_short(row[2])}" for row in examples)
    return Difference(column=name, rows=count, days=days, examples=told)


def _short(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _explained(
    connection: Connection, oracle: Oracle, columns: Mapping[str, DType | None], differences: Sequence[Difference]
) -> list[Difference]:
    """Computes the rows that differ once more, with cutoffs a day and a minute later, and counts what then is equal."""
    kinds = {difference.column: columns.get(difference.column, DType.BIGINT) for difference in differences}
    anywhere = " OR ".join(_is_different(name, kind) for name, kind in kinds.items())
    connection.execute(f"""
        CREATE TEMP TABLE moved AS SELECT s.*, {
        ", ".join(f"{_is_different(n, k)} AS {quoted(f'is_moved_{n}')}" for n, k in kinds.items())
    }
        FROM stored s JOIN now n USING (impression_id) WHERE {anywhere}""")
    later = oracle.lag_micros + 60 * MICROS
    oracle.compute(later_days=1, later_micros=later, only="impression_id IN (SELECT impression_id FROM moved)")
    equal = ", ".join(
        f"count(*) FILTER ({quoted(f'is_moved_{name}')} AND NOT {_is_different(name, kind)})"
        for name, kind in kinds.items()
    )
    found = fetch(connection, f"SELECT {equal} FROM moved s JOIN now n USING (impression_id)")[0]
    return [
        Difference(column=d.column, rows=d.rows, days=d.days, examples=d.examples, explained=count)
        for d, count in zip(differences, found, strict=True)
    ]


def _changed_since(own: Own, days: set[datetime.date]) -> tuple[str, ...]:
    """What else may explain a difference: raw days, conf, catalog, code that changed after the samples."""
    context, lineage = own.context, Lineage(own.context.warehouse)
    reasons: set[str] = set()
    now = context.making(SAMPLES)
    for day, manifest in context.warehouse.require(SAMPLES, sorted(days)).items():
        for (table, arrived), digest in lineage.behind(manifest.inputs).raw.items():
            partition = context.raw.listing.partitions[table].get(arrived)
            if partition is None or partition.digest != digest:
                reasons.add(f"raw/{table}/dt={arrived} was replaced")
        if (manifest.conf, manifest.meanings) != (now.conf, now.meanings):
            reasons.add(f"samples of {day} were written with another conf or catalog")
        if manifest.code != now.code:
            reasons.add(f"samples of {day} were written by other code")
    return tuple(sorted(reasons))


def _differs(difference: Difference, rows: int, changed: Sequence[str]) -> Finding:
    """A leak, unless something else that changed since may be the reason, and a later cutoff explains few rows.

    Small counts may equal those of a later cutoff by coincidence.
    """
    what = f"{difference.rows:,} of {rows:,} rows are not what their cutoff allows"
    if difference.explained:
        what += f"; {difference.explained:,} of them are the values of a later cutoff (one day, or past the impression)"
    verdict = Verdict.SUSPECT if changed and 2 * difference.explained < difference.rows else Verdict.LEAK
    if changed:
        what += f"; changed since: {'; '.join(changed[:3])}"
    return _finding(difference.column, verdict, what, count=difference.rows, examples=shown(difference.examples))


def _equal(group: FeatureGroup, columns: Mapping[str, DType | None], differing: set[str], rows: int) -> Finding:
    names = [name for name in group.columns if name in columns]
    equal = [name for name in names if name not in differing]
    if not equal:
        return _finding(group.name, Verdict.NOT_CHECKABLE, "no column of the group is equal and has an oracle")
    what = f"{len(equal)} of {len(group.columns)} columns are equal in all {rows:,} rows"
    return _finding(group.name, Verdict.PASS, what, figures={"rows": rows, "columns": len(equal)})
