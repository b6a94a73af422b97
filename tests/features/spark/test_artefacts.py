"""Vocabulary, normaliser and booster: against plain Python, and blind to what they must not see."""

from __future__ import annotations

import datetime
import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from features.encoding import load_booster
from features.errors import DataError
from features.manifest import FIRST_KEY_ID
from features.schema import Catalog, load_catalog
from features.spark.leaves import BoosterParams, fit_booster, leaf_id_count
from features.spark.normaliser import normalisers
from features.spark.vocabulary import Eviction, admissions, ids_in_use, number
from features.spec import Dense, Ids
from tests.features.random_samples import days, sample_frame, sample_rows

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.spark

CATALOG = load_catalog()
NAMES = [column.name for column in CATALOG.sample_columns()]
DAYS = days(4)
ONE_DAY = datetime.timedelta(days=1)
USER_SCHEMA = "key bigint, id int, admitted_on date, evicted_on date"
PARAMS = BoosterParams(trees=3, depth=3, learning_rate=0.3, min_child_weight=1.0, workers=2, seed=1)


@pytest.fixture(scope="module")
def rows() -> list[tuple[Any, ...]]:
    return sample_rows(CATALOG, DAYS, per_day=60)


@pytest.fixture(scope="module")
def frame(spark: SparkSession, rows: list[tuple[Any, ...]]) -> DataFrame:
    return sample_frame(spark, CATALOG, rows).cache()


def as_arrow(frame: DataFrame) -> pa.Table:
    found = frame.toPandas()
    kinds = {"vocabulary": pa.string(), "key": pa.string(), "admitted_on": pa.date32(), "evicted_on": pa.date32()}
    return pa.table({name: pa.array(found[name], type=kind) for name, kind in kinds.items()})


def oracle(
    rows: list[tuple[Any, ...]], catalog: Catalog, eviction: Eviction | None = None
) -> dict[str, list[tuple[Any, datetime.date, datetime.date | None]]]:
    """Vocabulary → (key, admitted_on, evicted_on), ordered as ids are numbered."""
    found: dict[str, list[tuple[Any, datetime.date, datetime.date | None]]] = {}
    for vocabulary, minimum in catalog.vocabularies().items():
        columns = [f for f in catalog.features if isinstance(f.encoding, Ids) and f.encoding.vocabulary == vocabulary]
        seen: Counter[Any] = Counter()
        admitted: dict[Any, datetime.date] = {}
        of_key: dict[Any, set[datetime.date]] = {}
        for day in DAYS:
            for row in rows:
                values = dict(zip(NAMES, row, strict=True))
                if values["dt"] == day:
                    keys = [values[f.name] for f in columns if values[f.name] not in (None, f.default)]
                    seen.update(keys)
                    for key in keys:
                        of_key.setdefault(key, set()).add(day)
            for key, count in seen.items():
                if count >= minimum:
                    admitted.setdefault(key, day + ONE_DAY)
        numbered = sorted(admitted.items(), key=lambda item: (item[1], item[0]))
        found[vocabulary] = [(key, on, evicted_on(on, of_key[key], eviction)) for key, on in numbered]
    return found


def evicted_on(admitted: datetime.date, seen: set[datetime.date], eviction: Eviction | None) -> datetime.date | None:
    if eviction is None or admitted > eviction.on:
        return None
    window = [eviction.on - ONE_DAY * back for back in range(1, eviction.after_days + 1)]
    return None if seen & set(window) else eviction.on


def test_ids_are_admitted_the_day_after_they_earned_it(frame: DataFrame, rows: list[tuple[Any, ...]]) -> None:
    tables = number(as_arrow(admissions(frame, CATALOG)), CATALOG)
    for vocabulary, expected in oracle(rows, CATALOG).items():
        table = tables[vocabulary]
        assert triples(table) == expected
        assert table["id"].to_pylist() == list(range(FIRST_KEY_ID, FIRST_KEY_ID + len(expected)))


def triples(table: pa.Table) -> list[tuple[Any, ...]]:
    columns = ("key", "admitted_on", "evicted_on")
    return list(zip(*(table[name].to_pylist() for name in columns), strict=True))


@pytest.fixture(scope="module")
def sparse() -> list[tuple[Any, ...]]:
    """Users and anchors that are away on one day or on two in a row, by their number."""
    columns = [(NAMES.index("user_id"), 55), (NAMES.index("anchor_id"), 54)]

    def is_there(row: tuple[Any, ...]) -> bool:
        numbers = [row[column] >> bits for column, bits in columns]
        today = DAYS.index(row[NAMES.index("dt")])
        return not any(today in (n % 4, (n + n % 2) % 4) for n in numbers)

    return [row for row in sample_rows(CATALOG, DAYS, per_day=200) if is_there(row)]


@pytest.mark.parametrize(("on", "after_days"), [(2, 1), (3, 2), (3, 9)])
def test_keys_that_no_row_of_the_days_before_had_are_evicted(
    spark: SparkSession, sparse: list[tuple[Any, ...]], on: int, after_days: int
) -> None:
    eviction = Eviction(on=DAYS[on], after_days=after_days)
    frame = sample_frame(spark, CATALOG, sparse)
    tables = number(as_arrow(admissions(frame, CATALOG, eviction)), CATALOG)
    for vocabulary, expected in oracle(sparse, CATALOG, eviction).items():
        assert triples(tables[vocabulary]) == expected
        assert tables[vocabulary]["id"].to_pylist() == list(range(FIRST_KEY_ID, FIRST_KEY_ID + len(expected)))
    evicted = pa.compute.drop_null(tables["user"]["evicted_on"])
    assert (len(evicted) > 0) == (after_days < 9)
    in_use = ids_in_use(spark.createDataFrame(tables["user"].to_pylist(), USER_SCHEMA)).collect()
    assert {row["key"]: row["id"] for row in in_use} == {
        row["key"]: row["id"] for row in tables["user"].to_pylist() if row["evicted_on"] is None
    }


def test_rows_of_the_train_days_have_no_say_in_who_is_evicted(
    spark: SparkSession, sparse: list[tuple[Any, ...]]
) -> None:
    """Also a key that is there again on the train days stays evicted until a later train set."""
    eviction = Eviction(on=DAYS[2], after_days=1)
    day, user = NAMES.index("dt"), NAMES.index("user_id")
    before = [row for row in sparse if row[day] < eviction.on]
    tables = [
        number(as_arrow(admissions(sample_frame(spark, CATALOG, rows), CATALOG, eviction)), CATALOG)["user"]
        for rows in (before, sparse)
    ]
    assert triples(tables[1])[: len(tables[0])] == triples(tables[0])
    evicted = {row["key"] for row in tables[1].to_pylist() if row["evicted_on"] is not None}
    assert evicted & {row[user] for row in sparse if row[day] >= eviction.on}


def test_more_days_only_append_ids(frame: DataFrame) -> None:
    earlier = number(as_arrow(admissions(frame.where(frame["dt"] < DAYS[-1]), CATALOG)), CATALOG)
    later = number(as_arrow(admissions(frame.repartition(7), CATALOG)), CATALOG)
    for vocabulary, table in earlier.items():
        assert later[vocabulary].slice(0, len(table)).equals(table)


def test_normalisers_are_the_mean_and_deviation_whatever_the_partitions(
    frame: DataFrame, rows: list[tuple[Any, ...]]
) -> None:
    fields = normalisers(frame, CATALOG)
    assert fields == normalisers(frame.repartition(7), CATALOG)
    dense = {f.name: f.encoding for f in CATALOG.features if isinstance(f.encoding, Dense)}
    assert [field.name for field in fields] == list(dense)
    for field in fields:
        raw = [float(row[NAMES.index(field.name)]) for row in rows]
        values = [float(np.log1p(max(x, 0.0))) for x in raw] if field.transform == "log1p" else raw
        assert field.mean == pytest.approx(statistics.fmean(values), abs=1e-4)
        assert field.std == pytest.approx(statistics.pstdev(values), abs=1e-3)


def test_the_booster_does_not_depend_on_partitions(frame: DataFrame) -> None:
    one = fit_booster(frame.coalesce(1), CATALOG, "enter", PARAMS)
    many = fit_booster(frame.repartition(5), CATALOG, "enter", PARAMS)
    assert load_booster(one).get_dump() == load_booster(many).get_dump()
    assert len(load_booster(one).get_dump()) == PARAMS.trees
    assert FIRST_KEY_ID < leaf_id_count(load_booster(one)) <= FIRST_KEY_ID + 2 ** (PARAMS.depth + 1)


def test_a_booster_without_two_classes_is_refused(frame: DataFrame) -> None:
    with pytest.raises(DataError, match=r"fit days hold only the classes \[1\]"):
        fit_booster(frame.where(frame["label_enter"] == 1), CATALOG, "enter", PARAMS)
