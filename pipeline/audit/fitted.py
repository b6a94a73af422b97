"""Fitted artefacts against the days they encode: what vocabularies, normaliser and booster have seen.

days          fit < train < valid < gate, and the gate day later than everything that anything has seen
booster       the days it says it was fitted on lie before the first train day; the file is the one that was fitted
normaliser    mean and deviation computed again from the samples of exactly those days
vocabularies  ids numbered by (admitted_on, key); keys counted again: on which day did each reach its frequency?
encoded rows  no row of day d has an id that was admitted after d
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterator, Sequence

import pyarrow.parquet as pq

from features import storage
from features.manifest import FIRST_KEY_ID, TrainSet, Vocabulary, categorical_column, sequence_column
from features.schema import Catalog
from features.spark.normaliser import SCALE
from features.spec import Feature, Ids
from pipeline.artefacts import digest
from pipeline.audit.conf import AuditConf
from pipeline.audit.duck import Connection, connect, fetch, literal, make_table, make_view, quoted
from pipeline.audit.report import Finding, Verdict, shown
from pipeline.audit.sample_set import Own
from pipeline.context import ONE_DAY
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
                findings.append(_vocabulary(connection, vocabulary, catalog, counted, conf.recount_keys))
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
    seen = max(*train, *valid, datetime.date.fromisoformat(trainset.seen_until))
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
    first = min(_dates(trainset.splits["train"].days))
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


# --- Vocabularies ---------------------------------------------------------------------------------------------


def _vocabulary(
    connection: Connection, vocabulary: Vocabulary, catalog: Catalog, counted: Sequence[datetime.date], most: int
) -> Finding:
    """`vocabulary` (key, id, admitted_on) against a recount of `counted`, the samples of the counted days.

    An id is admitted on the day after its key reached the minimum frequency in rows before that day.
    """
    subject = f"vocabulary {vocabulary.name}"
    misnumbered, ids = fetch(connection, f"""
        SELECT count(*) FILTER (id <> place), count(*) FROM (
            SELECT id, row_number() OVER (ORDER BY admitted_on, key) + {FIRST_KEY_ID - 1} AS place FROM vocabulary)
        """)[0]  # fmt: skip
    first, last = min(counted) + ONE_DAY, max(counted) + ONE_DAY
    outside = fetch(connection, f"""
        SELECT key, admitted_on FROM vocabulary WHERE admitted_on NOT BETWEEN DATE '{first}' AND DATE '{last}'
        ORDER BY admitted_on, key""")  # fmt: skip
    _recount(connection, vocabulary.name, catalog, most if ids > most else None)
    wrong = fetch(connection, """
        SELECT coalesce(CAST(v.key AS VARCHAR), r.key), v.admitted_on, r.admitted_on,
            v.admitted_on IS NOT NULL AND (r.admitted_on IS NULL OR v.admitted_on < r.admitted_on) AS is_early
        FROM kept v FULL JOIN recounted r ON CAST(v.key AS VARCHAR) = r.key
        WHERE v.admitted_on IS DISTINCT FROM r.admitted_on ORDER BY 4 DESC, 1""")  # fmt: skip
    early = [row for row in wrong if row[3]]
    if outside or early or misnumbered:
        told = [f"{key}: admitted on {at}, outside {first} to {last}" for key, at in outside]
        told += [f"{key}: admitted on {at}, by its rows {by or 'never'}" for key, at, by, _ in early]
        what = (
            f"{len({row[0] for row in [*outside, *early]}):,} ids admitted before rows of earlier days had earned them"
        )
        if misnumbered:
            what += f"; {misnumbered:,} ids not in the order of (admitted_on, key)"
        return _finding(subject, Verdict.LEAK, what, count=len(early) or len(told) or misnumbered, examples=shown(told))
    if wrong:
        told = [f"{key}: admitted on {at or 'no day'}, by its rows {by}" for key, at, by, _ in wrong]
        what = "ids that rows had earned were admitted later, or never: another count, though no leak"
        return _finding(subject, Verdict.SUSPECT, what, count=len(wrong), examples=shown(told))
    checked = fetch(connection, "SELECT count(*) FROM kept")[0][0]
    what = f"{checked:,} of {ids:,} ids counted again: each was admitted the day after its rows had earned it"
    return _finding(subject, Verdict.PASS, what)


def _recount(connection: Connection, name: str, catalog: Catalog, most: int | None) -> None:
    """Makes `kept`, the ids to check, and `recounted` (key text, admitted_on); `most` keys by hash, None all."""
    members = [f for f in catalog.features if isinstance(f.encoding, Ids) and f.encoding.vocabulary == name]
    frequency = catalog.vocabularies()[name]
    share = "true" if most is None else f"hash(CAST(key AS VARCHAR)) % (SELECT count(*) FROM vocabulary) < {most}"
    rows = " UNION ALL ".join(_keys(feature) for feature in members)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE kept AS SELECT * FROM vocabulary WHERE {share}")
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE recounted AS
        SELECT key, min(dt) + 1 AS admitted_on FROM (
            SELECT key, dt, sum(count(*)) OVER (PARTITION BY key ORDER BY dt) AS so_far FROM ({rows})
            WHERE key IS NOT NULL AND {share} GROUP BY key, dt
        ) WHERE so_far >= {frequency} GROUP BY key""")


def _keys(feature: Feature) -> str:
    """Key and day of every row that has a key; the default is none."""
    column = quoted(feature.name)
    return (
        f"SELECT CAST({column} AS VARCHAR) AS key, dt FROM counted "
        f"WHERE {column} IS DISTINCT FROM {literal(feature.default)}"
    )


# --- Encoded rows ---------------------------------------------------------------------------------------------


def _encoded(connection: Connection, own: Own, trainset: TrainSet, root: str, most: int) -> Iterator[Finding]:
    """Every id of every encoded row was admitted by the row's day, which comes from the samples."""
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
            late = f"FROM ({of_day}) JOIN admitted a USING (id) WHERE a.admitted_on > dt"
            count = fetch(connection, f"SELECT count(*) {late}")[0][0]
            early += [f"{name}: {count:,}"] if count else []
        if early:
            what = "rows have ids that were admitted after their day"
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
