"""The vocabularies of a train set, counted again by SQL from the samples: which day admitted a key, and which lost it.

admitted  on the day after its key reached the minimum frequency; ids are numbered by (admitted_on, key)
evicted   on the first train day, when it was admitted by then and no row of the K days before it has the key
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from features.manifest import EVICTED_ON, FIRST_KEY_ID, TrainSet, Vocabulary
from features.schema import Catalog
from features.spec import Feature, Ids
from pipeline.audit.duck import Connection, fetch, literal, quoted
from pipeline.audit.report import Finding, Verdict, shown
from pipeline.context import ONE_DAY


def recounted(
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
    frequency = catalog.vocabularies()[name]
    share = "true" if most is None else f"hash(CAST(key AS VARCHAR)) % (SELECT count(*) FROM vocabulary) < {most}"
    rows = " UNION ALL ".join(_keys(feature) for feature in _members(catalog, name))
    connection.execute(f"CREATE OR REPLACE TEMP TABLE kept AS SELECT * FROM vocabulary WHERE {share}")
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE recounted AS
        SELECT key, min(dt) + 1 AS admitted_on FROM (
            SELECT key, dt, sum(count(*)) OVER (PARTITION BY key ORDER BY dt) AS so_far FROM ({rows})
            WHERE key IS NOT NULL AND {share} GROUP BY key, dt
        ) WHERE so_far >= {frequency} GROUP BY key""")


def _members(catalog: Catalog, name: str) -> list[Feature]:
    return [f for f in catalog.features if isinstance(f.encoding, Ids) and f.encoding.vocabulary == name]


def _keys(feature: Feature) -> str:
    """Key and day of every row that has a key; the default is none."""
    column = quoted(feature.name)
    return (
        f"SELECT CAST({column} AS VARCHAR) AS key, dt FROM counted "
        f"WHERE {column} IS DISTINCT FROM {literal(feature.default)}"
    )


def evicted(connection: Connection, vocabulary: Vocabulary, catalog: Catalog, trainset: TrainSet) -> Finding:
    """Which keys of `vocabulary` (key, admitted_on, evicted_on) are evicted, against the rows of `counted`.

    A key whose fate follows from rows of the train days knows what it encodes.
    """
    subject = f"evicted keys of {vocabulary.name}"
    first = datetime.date.fromisoformat(min(trainset.splits["train"].days))
    after = trainset.evict_after_days
    since = first if after is None else first - ONE_DAY * after
    rows = " UNION ALL ".join(_keys(feature) for feature in _members(catalog, vocabulary.name))
    wrong = fetch(connection, f"""
        WITH seen AS (SELECT DISTINCT key FROM ({rows}) WHERE dt >= DATE '{since}' AND dt < DATE '{first}'),
        judged AS (
            SELECT v.key, v.{EVICTED_ON} AS is_gone_on, CASE WHEN {str(after is not None).lower()}
                AND v.admitted_on <= DATE '{first}' AND s.key IS NULL THEN DATE '{first}' END AS should_go_on
            FROM vocabulary v LEFT JOIN seen s ON CAST(v.key AS VARCHAR) = s.key)
        SELECT CAST(key AS VARCHAR), is_gone_on, should_go_on FROM judged
        WHERE is_gone_on IS DISTINCT FROM should_go_on ORDER BY 1""")  # fmt: skip
    if wrong:
        told = [
            f"{key}: {_fate(is_gone)}, by the rows before {first} {_fate(should)}" for key, is_gone, should in wrong
        ]
        what = f"keys whose eviction does not follow from the days before the first train day {first}"
        return _finding(subject, Verdict.LEAK, what, count=len(wrong), examples=shown(told))
    span = "none, as its train set evicts nothing" if after is None else f"those without a row from {since} to {first}"
    return _finding(subject, Verdict.PASS, f"{vocabulary.evicted:,} keys are evicted: {span}")


def has_evictions(connection: Connection, table: str = "vocabulary") -> bool:
    """Whether a vocabulary says which keys are evicted; those of earlier versions evict none."""
    return EVICTED_ON in {row[0] for row in fetch(connection, f"DESCRIBE {table}")}


def _fate(day: datetime.date | None) -> str:
    return "kept" if day is None else f"evicted on {day}"


def _finding(subject: str, verdict: Verdict, what: str, **more: object) -> Finding:
    return Finding.model_validate({"check": "fitted", "subject": subject, "verdict": verdict, "what": what, **more})
