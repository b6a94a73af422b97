"""Fitted artefacts against the days they encode: what vocabularies, normaliser and booster have seen.

days          fit < train < valid < gate, and the gate day later than everything that anything has seen
booster       the days it says it was fitted on lie before the first train day; the file is the one that was fitted
normaliser    mean and deviation computed again from the samples of exactly those days
vocabularies  ids numbered by (admitted_on, key); keys counted again: which day admitted each, who should be evicted?
encoded rows  no row of day d has an id that was admitted after d, or evicted by d
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterator, Sequence

import pyarrow.parquet as pq

from features import storage
from features.manifest import EVICTED_ON, TrainSet, categorical_column, sequence_column
from features.spark.normaliser import SCALE
from pipeline.artefacts import digest
from pipeline.audit.conf import AuditConf
from pipeline.audit.duck import Connection, connect, fetch, make_table, make_view, quoted
from pipeline.audit.report import Finding, Verdict, shown
from pipeline.audit.sample_set import Own
from pipeline.audit.vocabularies import evicted, has_evictions, recounted
from pipeline.manifests import day_partition
from pipeline.stages.names import SAMPLES

Report = Callable[[str], None]
TOLERANCE = 1e-6
"""Of means and deviations; values are rounded to 1 / SCALE before they are added up, by two programs."""


def fitted_artefacts(own: Own, conf: AuditConf, report: Report) -> list[Finding]:
    """Findings of the train set that was named."""
    if own.trainset is None:
        what = "no train set was named (--trainset): samples alone are encoded by nothing"
        return [_finding("artefacts", Verdict.NOT_CHECKABLE, what)]
    trainset, root = own.trainset
    findings = [_order(trainset), _booster(trainset, root)]
    with connect() as connection:
        report("fitting the normaliser again")
        findings.append(_normaliser(connection, own, trainset))
        counted = _days(trainset, own)
        _register(connection, own, "counted", counted)
        for vocabulary in trainset.vocabularies:
            if vocabulary.path is not None:
                report(f"counting the keys of {vocabulary.name} again")
                with storage.open_input(f"{root}/{vocabulary.path}") as source:
                    make_table(connection, "vocabulary", pq.read_table(source))
                catalog = own.context.catalog
                findings.append(recounted(connection, vocabulary, catalog, counted, conf.recount_keys))
                if has_evictions(connection):
                    findings.append(evicted(connection, vocabulary, catalog, trainset))
        report("looking at the ids of encoded rows")
        findings += _encoded(connection, own, trainset, root, conf.rows)
    return findings


def _finding(subject: str, verdict: Verdict, what: str, **more: object) -> Finding:
    return Finding.model_validate({"check": "fitted", "subject": subject, "verdict": verdict, "what": what, **more})


def _dates(days: Sequence[str]) -> list[datetime.date]:
    return [datetime.date.fromisoformat(day) for day in days]


def _days(trainset: TrainSet, own: Own) -> list[datetime.date]:
    """The days whose rows the vocabularies were counted over."""
    last = max(_dates(trainset.splits["train"].days))
    first = min(own.days) if trainset.vocabulary_from is None else datetime.date.fromisoformat(trainset.vocabulary_from)
    return [day for day in own.days if first <= day <= last]


def _register(connection: Connection, own: Own, name: str, days: Sequence[datetime.date]) -> None:
    warehouse = own.context.warehouse
    manifests = warehouse.require(SAMPLES, days).values()
    make_view(connection, name, [url for manifest in manifests for url in warehouse.file_urls(manifest)])


# --- Days ---------------------------------------------------------------------------------------------------


def _order(trainset: TrainSet) -> Finding:
    """The gate day is later than every day that candidate, vocabularies, booster or early stopping have seen."""
    train, valid, gate = (_dates(trainset.splits[split].days) for split in ("train", "valid", "gate"))
    breaches = []
    if valid and min(valid) <= max(train):
        breaches.append(f"validation day {min(valid)} is not after the last train day {max(train)}")
    seen = max(*train, *valid, *_dates([*trainset.replayed]), datetime.date.fromisoformat(trainset.seen_until))
    if trainset.leaves is not None:
        seen = max(seen, *_dates(trainset.leaves.fit_days))
    if min(gate) <= seen:
        breaches.append(f"gate day {min(gate)} is not after {seen}, which an artefact or a model has seen")
    if breaches:
        what = "; ".join(breaches)
        return _finding("days", Verdict.LEAK, what, count=len(breaches))
    return _finding("days", Verdict.PASS, f"the gate day {min(gate)} is later than {seen}, the newest day seen")


def _booster(trainset: TrainSet, root: str) -> Finding:
    leaves = trainset.leaves
    if leaves is None:
        return _finding("booster", Verdict.NOT_CHECKABLE, "the train set has no booster")
    first = min(_dates([*trainset.splits["train"].days, *trainset.replayed]))
    late = [str(day) for day in _dates(leaves.fit_days) if day >= first]
    if late:
        what = f"it was fitted on days that it encodes: the first train day is {first}"
        return _finding("booster", Verdict.LEAK, what, count=len(late), examples=shown(late))
    if digest(storage.read_bytes(f"{root}/{leaves.path}")) != leaves.digest:
        what = "the file is not the booster that was fitted: its digest differs, so nothing says what it has seen"
        return _finding("booster", Verdict.LEAK, what)
    what = f"fitted on {leaves.fit_days[0]} to {leaves.fit_days[-1]}, before the first train day {first}"
    return _finding("booster", Verdict.PASS, what)


# --- Normaliser -----------------------------------------------------------------------------------------------


def _normaliser(connection: Connection, own: Own, trainset: TrainSet) -> Finding:
    """Integer sums over the fit days, as `features/spark/normaliser.py` defines them, by SQL."""
    days = _dates(trainset.leaves.fit_days) if trainset.leaves else []
    gone = [str(day) for day in days if own.context.warehouse.manifest(SAMPLES, day_partition(day)) is None]
    if gone or not days:
        what = "samples of its fit days are gone" if gone else "the train set does not say on which days it was fitted"
        return _finding("normaliser", Verdict.NOT_CHECKABLE, what, examples=shown(gone))
    _register(connection, own, "fit", days)
    sums = []
    for field in trainset.dense:
        value = f"CAST({quoted(field.name)} AS DOUBLE)"
        value = f"ln(1 + greatest({value}, 0.0))" if field.transform == "log1p" else value
        scaled = f"CAST(round({value} * {SCALE}) AS HUGEINT)"
        sums += [f"sum({scaled})", f"sum({scaled} * {scaled})"]
    rows, *found = fetch(connection, f"SELECT {', '.join(['count(*)', *sums])} FROM fit")[0]
    if not rows:
        return _finding("normaliser", Verdict.NOT_CHECKABLE, "its fit days have no rows")
    wrong = []
    for number, field in enumerate(trainset.dense):
        total, squares = int(found[2 * number] or 0), int(found[2 * number + 1] or 0)
        mean = total / rows / SCALE
        variance = (squares * rows - total * total) / (rows * rows) / (SCALE * SCALE)
        std = math.sqrt(variance) if variance > 1e-8 else 1.0
        if not (_near(field.mean, mean) and _near(field.std, std)):
            wrong.append(
                f"{field.name}: mean {field.mean:.6g}, deviation {field.std:.6g}; fit days {mean:.6g}, {std:.6g}"
            )
    span = f"{days[0]} to {days[-1]}"
    if wrong:
        what = f"it is not what the {rows:,} rows of its fit days {span} give: it has seen other rows"
        return _finding("normaliser", Verdict.LEAK, what, count=len(wrong), examples=shown(wrong))
    what = f"{len(trainset.dense)} means and deviations are those of the {rows:,} rows of {span}"
    return _finding("normaliser", Verdict.PASS, what)


def _near(stored: float, now: float) -> bool:
    return abs(stored - now) <= TOLERANCE * max(1.0, abs(now))


# --- Encoded rows ---------------------------------------------------------------------------------------------


def _encoded(connection: Connection, own: Own, trainset: TrainSet, root: str, most: int) -> Iterator[Finding]:
    """Every id of every encoded row was admitted, and not evicted, by the row's day, which comes from the samples."""
    _register(connection, own, "every_day", own.days)
    connection.execute("CREATE TEMP TABLE row_days AS SELECT impression_id AS row_id, dt FROM every_day")
    paths = {v.name: v.path for v in trainset.vocabularies if v.path is not None}
    for split, part in trainset.splits.items():
        subject = f"ids of the {split} split"
        if not part.files:
            continue
        make_view(connection, "encoded", [f"{root}/{file.path}" for file in part.files])
        share = "true" if part.rows <= most else f"hash(row_id) % {part.rows} < {most}"
        early: list[str] = []
        rows, known = fetch(
            connection, f"SELECT count(*), count(d.dt) FROM encoded LEFT JOIN row_days d USING (row_id) WHERE {share}"
        )[0]
        for name, vocabulary, ids in _id_columns(trainset, paths):
            with storage.open_input(f"{root}/{paths[vocabulary]}") as source:
                make_table(connection, "admitted", pq.read_table(source))
            of_day = f"SELECT d.dt, {ids} AS id FROM encoded JOIN row_days d USING (row_id) WHERE {share}"
            gone = f"OR a.{EVICTED_ON} <= dt" if has_evictions(connection, "admitted") else ""
            late = f"FROM ({of_day}) JOIN admitted a USING (id) WHERE a.admitted_on > dt {gone}"
            count = fetch(connection, f"SELECT count(*) {late}")[0][0]
            early += [f"{name}: {count:,}"] if count else []
        if early:
            what = "rows have ids that were admitted after their day, or evicted by then"
            yield _finding(subject, Verdict.LEAK, what, count=len(early), examples=shown(early))
        elif known < rows:
            what = f"{rows - known:,} of {rows:,} rows are in no samples: their day is not known"
            yield _finding(subject, Verdict.NOT_CHECKABLE, what, count=rows - known)
        else:
            yield _finding(subject, Verdict.PASS, f"no id of {rows:,} rows was admitted after the row's day")


def _id_columns(trainset: TrainSet, paths: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """(column, vocabulary, SQL of its ids, one per row or per event)."""
    for field in trainset.categorical:
        if field.vocabulary in paths:
            column = categorical_column(field.name)
            yield column, field.vocabulary, quoted(column)
    for sequence in trainset.sequences:
        for event in sequence.fields:
            if event.vocabulary in paths:
                column = sequence_column(sequence.name, event.name)
                yield column, event.vocabulary, f"unnest({quoted(column)})"
