"""What one pass of a write sees: the same histograms as counting value by value."""

from __future__ import annotations

import datetime
import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.binning import COUNTS, RATIOS, Binning, Cut, Hashed, Judged, bin_count
from pipeline.check_plan import TablePlan
from pipeline.footers import Span
from pipeline.observed import KEY_ERROR, Watch
from tests.oracle.stability import histogram

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

DAYS = [datetime.date(2025, 3, day) for day in (1, 2, 5)]
DDL = (
    "key bigint, dt date, bucket bigint, count bigint, ratio double, name string, list array<bigint>, "
    "label_a int, mask_a int"
)
BINNINGS: dict[str, Binning] = {
    "bucket": Cut(boundaries=(0.0, 1.0, 5.0, 10.0)),
    "count": COUNTS,
    "ratio": RATIOS,
    "name": Hashed(),
    "list": Cut(boundaries=(1.0, 2.0, 5.0), length=True),
    "label_a": Judged(mask="mask_a"),
}
PLAN = TablePlan(table="t", keys=("key",), binnings=BINNINGS, required=frozenset(), bounds={})
COLUMNS = [part.split()[0] for part in DDL.split(", ")]


def unruly_rows(seed: int, rows: int) -> list[tuple[Any, ...]]:
    """Nulls, NaN, infinities, negative numbers, zeros, boundaries, and the largest of a type."""
    draw = random.Random(seed)
    return [
        (
            key,
            draw.choice(DAYS),
            draw.choice([None, -1, 0, 1, 4, 5, 9, 10, 11]),
            draw.choice([None, -7, 0, 1, 2, 6, 1000, 10**9, 2**62]),
            draw.choice([None, math.nan, math.inf, -math.inf, -0.5, 0.0, 0.001, 0.3, 0.7, 1.5, 1e9]),
            draw.choice([None, "", "a", "b", "日本"]),
            draw.choice([None, [], [1], [1, 2, 3], list(range(9))]),
            draw.choice([None, 0, 1]),
            draw.choice([None, 0, 1, 1]),
        )
        for key in range(rows)
    ]


def test_histograms_digests_and_keys_of_several_days_in_one_pass(spark: SparkSession) -> None:
    rows = unruly_rows(seed=3, rows=400)
    frame = spark.createDataFrame([*rows, *rows[:30]], DDL).repartition(7)  # partial histograms are merged
    watch = Watch(frame, DAYS, day_column="dt", plan=PLAN)
    assert watch.rows.columns == COLUMNS
    written = watch.rows.collect()
    seen = watch.seen({})
    for index, day in enumerate(DAYS):
        of_day = [row for row in written if row["dt"] == day]
        assert seen[day].rows == watch.row_count(index) == len(of_day) > 0
        for name, binning in BINNINGS.items():
            masks = [row["mask_a"] for row in of_day] if name == "label_a" else None
            expected = histogram([row[name] for row in of_day], binning, bin_count(binning), masks)
            assert list(seen[day].histograms[name]) == expected, name
        distinct = len({row["key"] for row in of_day})
        assert seen[day].distinct_keys == pytest.approx(distinct, rel=4 * KEY_ERROR)
    assert len({watch.digest(index) for index in range(len(DAYS))}) == len(DAYS)


def test_a_sample_of_values_and_every_null_and_label(spark: SparkSession) -> None:
    one_in = 3
    frame = spark.createDataFrame(unruly_rows(seed=5, rows=600), DDL)
    watch = Watch(frame, DAYS, day_column="dt", plan=replace(PLAN, one_in=one_in))
    written = watch.rows.collect()
    for day, seen in watch.seen({}).items():
        of_day = [row for row in written if row["dt"] == day]
        for name, binning in BINNINGS.items():
            masks = [row["mask_a"] for row in of_day] if name == "label_a" else None
            whole = histogram([row[name] for row in of_day], binning, bin_count(binning), masks)
            found = list(seen.histograms[name])
            assert found[:2] == whole[:2], name
            if name == "label_a":
                assert found == whole
                continue
            assert all(count % one_in == 0 for count in found[2:])
            assert 0 < sum(found[2:]) / one_in < sum(whole[2:])
            assert sum(found[2:]) == pytest.approx(sum(whole[2:]), rel=0.5)


def test_no_rows_are_empty_histograms(spark: SparkSession) -> None:
    watch = Watch(spark.createDataFrame([], DDL), DAYS[:1], day_column="dt", plan=PLAN)
    watch.rows.collect()
    (seen,) = watch.seen({DAYS[0]: {"bucket": Span(nulls=0)}}).values()
    assert (seen.rows, seen.distinct_keys) == (0, 0)
    assert {name: sum(counts) for name, counts in seen.histograms.items()} == dict.fromkeys(BINNINGS, 0)
