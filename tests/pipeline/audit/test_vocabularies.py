"""Evicted keys, by SQL: who had no row in the days before the train days. The rest is in test_fitted.py."""

from __future__ import annotations

import datetime

import pyarrow as pa
import pytest

from features.manifest import Split, Task, TrainSet, Vocabulary
from features.schema import Catalog
from features.spec import DType, Entity, Feature, Field, Ids
from pipeline.audit.duck import connect, make_table
from pipeline.audit.report import Finding, Verdict
from pipeline.audit.vocabularies import evicted, has_evictions
from pipeline.config import day_range

DAYS = day_range(datetime.date(2026, 1, 1), datetime.date(2026, 1, 8))
FIRST = DAYS[5]
CATALOG = Catalog(
    features=(
        Feature(
            name="user_id", entity=Entity.IMPRESSION, op=Field(column="user_id"), dtype=DType.BIGINT,
            encoding=Ids(vocabulary="user"), default=0, doc="",
        ),
    ),
    sequences=(),
    labels=(),
)  # fmt: skip
SEEN = {10: DAYS[:6], 20: DAYS[:2], 30: [*DAYS[:2], *DAYS[5:]], 40: DAYS[5:], 50: [DAYS[2]]}
"""Key → days with a row. Three days before FIRST: 20 and 30 have none, 50 has one on the first of them."""
HONEST = {10: None, 20: FIRST, 30: FIRST, 40: None, 50: None}


def checked(gone_on: dict[int, datetime.date | None], after: int | None = 3) -> Finding:
    rows = [(key, day) for key, its_days in SEEN.items() for day in its_days]
    counted = pa.table({"user_id": [key for key, _ in rows], "dt": [day for _, day in rows]})
    admitted = [SEEN[key][0] + datetime.timedelta(days=1) for key in gone_on]
    gone = pa.array(gone_on.values(), type=pa.date32())
    vocabulary = Vocabulary(
        name="user", num_ids=len(SEEN) + 2, path="user.parquet", evicted=len(gone) - gone.null_count
    )
    trainset = TrainSet(
        name="next", source="test", seed=1, logical_shards=1, catalog_fingerprint="", vocabularies=(vocabulary,),
        categorical=(), tasks=(Task(name="enter", space="impressions"),), seen_until=str(DAYS[7]),
        evict_after_days=after, splits={"train": Split(days=tuple(map(str, DAYS[5:])), files=(), rows=0)},
    )  # fmt: skip
    with connect() as connection:
        make_table(connection, "counted", counted)
        make_table(
            connection, "vocabulary", pa.table({"key": list(gone_on), "admitted_on": admitted, "evicted_on": gone})
        )
        assert has_evictions(connection)
        return evicted(connection, vocabulary, CATALOG, trainset)


def test_honest_evictions_pass() -> None:
    found = checked(HONEST)
    assert found.verdict is Verdict.PASS
    assert found.what.startswith("2 keys are evicted")


@pytest.mark.parametrize(
    ("key", "day"),
    [
        pytest.param(30, None, id="kept by the rows of the train days"),
        pytest.param(20, None, id="forgotten"),
        pytest.param(50, FIRST, id="seen in time"),
        pytest.param(40, FIRST, id="admitted after the first train day"),
        pytest.param(20, DAYS[6], id="on another day"),
    ],
)
def test_a_key_whose_fate_its_rows_do_not_explain_is_named(key: int, day: datetime.date | None) -> None:
    found = checked(HONEST | {key: day})
    assert (found.verdict, found.count) == (Verdict.LEAK, 1)
    assert found.examples[0].startswith(f"{key}: ")


def test_a_full_train_set_evicts_nobody() -> None:
    assert checked(dict.fromkeys(SEEN), after=None).verdict is Verdict.PASS
    assert checked(HONEST, after=None).verdict is Verdict.LEAK
