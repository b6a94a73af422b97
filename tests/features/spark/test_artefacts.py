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
from features.spark.vocabulary import admissions, number
from features.spec import Dense, Ids
from tests.features.random_samples import days, sample_frame, sample_rows

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.spark

CATALOG = load_catalog()
NAMES = [column.name for column in CATALOG.sample_columns()]
DAYS = days(4)
ONE_DAY = datetime.timedelta(days=1)
PARAMS = BoosterParams(trees=3, depth=3, learning_rate=0.3, min_child_weight=1.0, workers=2, seed=1)


@pytest.fixture(scope="module")
def rows() -> list[tuple[Any, ...]]:
    return sample_rows(CATALOG, DAYS, per_day=60)


@pytest.fixture(scope="module")
def frame(spark: SparkSession, rows: list[tuple[Any, ...]]) -> DataFrame:
    return sample_frame(spark, CATALOG, rows).cache()


def as_arrow(frame: DataFrame) -> pa.Table:
    found = frame.toPandas()
    kinds = {"vocabulary": pa.string(), "key": pa.string(), "admitted_on": pa.date32()}
    return pa.table({name: pa.array(found[name], type=kind) for name, kind in kinds.items()})


def oracle(rows: list[tuple[Any, ...]], catalog: Catalog) -> dict[str, list[tuple[Any, datetime.date]]]:
    """Vocabulary → (key, admitted_on), ordered as ids are numbered."""
    found: dict[str, list[tuple[Any, datetime.date]]] = {}
    for vocabulary, minimum in catalog.vocabularies().items():
        columns = [f for f in catalog.features if isinstance(f.encoding, Ids) and f.encoding.vocabulary == vocabulary]
        seen: Counter[Any] = Counter()
        admitted: dict[Any, datetime.date] = {}
        for day in DAYS:
            for row in rows:
                values = dict(zip(NAMES, row, strict=True))
                if values["dt"] == day:
                    seen.update(values[f.name] for f in columns if values[f.name] not in (None, f.default))
            for key, count in seen.items():
                if count >= minimum:
                    admitted.setdefault(key, day + ONE_DAY)
        found[vocabulary] = sorted(admitted.items(), key=lambda item: (item[1], item[0]))
    return found


def test_ids_are_admitted_the_day_after_they_earned_it(frame: DataFrame, rows: list[tuple[Any, ...]]) -> None:
    tables = number(as_arrow(admissions(frame, CATALOG)), CATALOG)
    for vocabulary, expected in oracle(rows, CATALOG).items():
        table = tables[vocabulary]
        assert list(zip(table["key"].to_pylist(), table["admitted_on"].to_pylist(), strict=True)) == expected
        assert table["id"].to_pylist() == list(range(FIRST_KEY_ID, FIRST_KEY_ID + len(expected)))


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
