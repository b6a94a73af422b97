"""Border checks: what is found, what it stops, and that a stop commits nothing."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from features.errors import DataError
from features.schema import load_catalog
from features.spark.ops import ActiveBits
from features.spark.window_state import state_layout
from features.spec import DType, Entity
from pipeline.binning import Judged, binnings_of
from pipeline.border import BorderChecks, CarriedSeen, ColumnSeen, PastDay
from pipeline.check_plan import plan_of
from pipeline.checks import BorderRules, DaySeen, Impossible
from pipeline.config import ChecksConf, Limit
from pipeline.footers import Span
from pipeline.manifests import PartitionManifest, Provenance
from pipeline.tables import Warehouse

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

CATALOG = load_catalog()
CONF = ChecksConf(min_rows=10, one_in=1)
RULES = BorderRules(catalog=CATALOG, conf=CONF)
TABLE = "profiles_user"
DDL = "day date, user_id bigint, user_enters_7d bigint, user_enter_rate_7d double"
SCHEMA = tuple((part.split()[0], part.split()[1]) for part in DDL.split(", "))
DAYS = [datetime.date(2025, 3, day) for day in range(1, 10)]
JUDGED_SCHEMA = (("impression_id", "bigint"), ("label_enter", "int"), ("mask_enter", "int"))


def nothing_before(_: datetime.date) -> PastDay | None:
    return None


def day_seen(histogram: Sequence[int], low: float = 0, high: float = 9) -> DaySeen:
    counts = [0, 0, *histogram, *[0] * (42 - len(histogram))]
    return DaySeen(
        rows=sum(counts),
        spans={"user_id": Span(nulls=0), "user_enters_7d": Span(nulls=0, low=low, high=high)},
        histograms={"user_enters_7d": counts},
        distinct_keys=sum(counts),
    )


def judged(days: Mapping[datetime.date, DaySeen], conf: ChecksConf = CONF) -> dict[datetime.date, BorderChecks]:
    rules = BorderRules(catalog=CATALOG, conf=conf)
    return rules.judge(rules.plan(TABLE, SCHEMA), days, nothing_before)


def test_every_column_of_the_samples_is_binned_but_keys_masks_and_time() -> None:
    columns = [(column.name, column.sql_type) for column in CATALOG.sample_columns()]
    binned = set(binnings_of(columns, CATALOG, ("impression_id",)))
    masks = {name for name, _ in columns if name.startswith("mask_")}
    assert {name for name, _ in columns} - binned == {"impression_id", "ts", "dt"} | masks
    vectors = {feature.name for feature in CATALOG.features if feature.dtype is DType.VECTOR}
    required = plan_of("samples", columns, CATALOG).required
    assert required == {name for name, _ in columns} - vectors


def test_a_first_day_has_no_reference_and_later_ones_at_most_those_conf_names() -> None:
    found = judged({day: day_seen([5, 5, 5]) for day in DAYS})
    assert found[DAYS[0]].reference == ()
    assert found[DAYS[0]].columns["user_enters_7d"].psi is None
    assert found[DAYS[8]].reference == tuple(f"dt={day}" for day in DAYS[1:8])
    assert found[DAYS[8]].reference_rows == 7 * 15
    assert found[DAYS[8]].columns["user_enters_7d"].psi == 0
    assert found[DAYS[8]].findings == ()


def test_a_distribution_that_moves_is_told_and_by_conf_stops() -> None:
    days = {DAYS[0]: day_seen([20, 10, 0]), DAYS[1]: day_seen([10, 20, 0])}
    expected = 2 * (1 / 3) * math.log(2)
    (finding,) = judged(days)[DAYS[1]].findings
    assert (finding.kind, finding.severity, finding.column) == ("psi", "warn", "user_enters_7d")
    assert finding.figure == pytest.approx(expected)
    strict = CONF.model_copy(update={"psi": Limit(warn=0.1, stop=0.3)})
    message = r"table=profiles_user day=2025-03-02 column=user_enters_7d: .* psi is 0.4621, above 0.3 \(stop\)"
    with pytest.raises(DataError, match=message):
        judged(days, strict)


def test_few_rows_are_noise() -> None:
    few = CONF.model_copy(update={"min_rows": 31})
    found = judged({DAYS[0]: day_seen([20, 10, 0]), DAYS[1]: day_seen([10, 20, 0])}, few)[DAYS[1]]
    assert found.columns["user_enters_7d"].psi == pytest.approx(0.4621, abs=1e-4)
    assert found.findings == ()


def test_a_day_with_a_third_of_the_rows_is_told() -> None:
    found = judged({DAYS[0]: day_seen([30, 30]), DAYS[1]: day_seen([10, 10])})[DAYS[1]]
    (finding,) = found.findings
    assert finding.kind == "rows"
    assert finding.figure == pytest.approx(2 / 3)


def test_a_label_whose_rate_halves_is_told() -> None:
    def seen(negative: int, positive: int) -> DaySeen:
        counts = [0, 0, 50, negative, positive]
        return DaySeen(rows=sum(counts), spans={}, histograms={"label_enter": counts})

    plan = RULES.plan("samples", JUDGED_SCHEMA)
    assert plan.binnings == {"label_enter": Judged(mask="mask_enter")}
    days = {DAYS[0]: seen(60, 40), DAYS[1]: seen(85, 15)}
    found = RULES.judge(plan, days, nothing_before)[DAYS[1]]
    assert found.columns["label_enter"].rate == 0.15
    figures = {finding.kind: finding.figure for finding in found.findings}
    assert figures["label_rate"] == pytest.approx(0.625)


def test_a_carried_day_is_judged_by_its_rows_its_state_and_by_conf_its_touched_keys() -> None:
    odd = Impossible(column="_sum_enters_7", keys=2, examples=("user_id=4", "user_id=9"))
    seen = DaySeen(
        rows=90,
        spans={"_sum_enters_7": Span(nulls=0)},
        histograms={},
        carried=CarriedSeen(touched=50, born=5, died=10),
        impossible=[odd],
    )
    lax = CONF.model_copy(update={"state": Limit(warn=0), "touched": Limit(warn=0.4), "rows": Limit(warn=0.1)})
    found = judged({DAYS[0]: day_seen([40, 40]), DAYS[1]: seen}, lax)[DAYS[1]]
    figures = {finding.kind: finding.figure for finding in found.findings}
    assert figures == {"rows": pytest.approx(1 / 8), "touched": 0.5, "state": 0.04}
    assert (found.carried, found.distinct_keys) == (seen.carried, None)
    assert found.columns["_sum_enters_7"] == ColumnSeen(nulls=0)
    with pytest.raises(DataError) as caught:
        judged({DAYS[1]: seen})
    (problem,) = caught.value.problems
    assert (problem.table, problem.day, problem.column) == (TABLE, "2025-03-02", "_sum_enters_7")
    assert "2 of 50 touched keys hold what no tiles can have made" in problem.what
    assert problem.examples == odd.examples


def test_a_carried_day_lends_its_rows_but_no_distribution_to_the_days_after() -> None:
    carried = DaySeen(rows=20, spans={}, histograms={}, carried=CarriedSeen(touched=9, born=0, died=0))
    days = {DAYS[0]: day_seen([10, 10]), DAYS[1]: carried, DAYS[2]: day_seen([10, 10])}
    found = judged(days)[DAYS[2]]
    assert found.reference == ("dt=2025-03-01", "dt=2025-03-02")
    assert found.columns["user_enters_7d"].psi == 0
    assert found.findings == ()


def test_window_state_is_never_null_nor_negative_and_bits_of_days_have_no_distribution() -> None:
    layout = state_layout(Entity.USER, CATALOG)
    schema = [("day", "date"), *((name, "bigint") for name in (*layout.keys, *layout.columns))]
    plan = plan_of(TABLE, schema, CATALOG)
    bits = {column.name for column in layout.sums if isinstance(column, ActiveBits)}
    sums = {column.name for column in layout.sums}
    assert bits
    assert plan.required == {*layout.keys, *sums}
    assert plan.bounds == dict.fromkeys(sums - bits, (0, None))
    assert not bits & {*plan.binnings}


def test_another_cut_is_not_compared() -> None:
    past = PastDay(
        partition="dt=2025-02-28",
        rows=30,
        columns={"user_enters_7d": ColumnSeen(nulls=0, bins="other", histogram=(1,))},
    )
    plan = RULES.plan(TABLE, SCHEMA)
    found = RULES.judge(plan, {DAYS[0]: day_seen([15, 15])}, lambda day: past if day < DAYS[0] else None)
    assert found[DAYS[0]].columns["user_enters_7d"].psi is None


def frame(spark: SparkSession, rows: Sequence[tuple[datetime.date, int | None, int, float | None]]) -> DataFrame:
    return spark.createDataFrame(list(rows), DDL).coalesce(1)


def write(
    warehouse: Warehouse, rows: DataFrame, days: Sequence[datetime.date]
) -> dict[datetime.date, PartitionManifest]:
    return warehouse.write_days(rows, TABLE, days, Provenance(inputs={}, border=RULES), day_column="day")


@pytest.mark.spark
def test_checks_are_in_the_manifest_and_the_next_write_compares_with_them(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path))
    rows = [(day, user, user % 4, 0.25) for day in DAYS[:2] for user in range(20)]
    write(warehouse, frame(spark, rows), DAYS[:2])
    kept = warehouse.manifest(TABLE, "dt=2025-03-02")
    assert kept is not None
    assert kept.checks is not None
    enters = kept.checks.columns["user_enters_7d"]
    assert (enters.nulls, enters.low, enters.high, enters.psi) == (0, 0, 3, 0)
    assert kept.checks.columns["user_enter_rate_7d"].low == 0.25
    assert kept.checks.distinct_keys == pytest.approx(20, abs=1)
    moved = [(DAYS[2], user, 900, 0.25) for user in range(20)]
    checks = write(warehouse, frame(spark, moved), DAYS[2:3])[DAYS[2]].checks
    assert checks is not None
    assert checks.reference == ("dt=2025-03-01", "dt=2025-03-02")
    assert [finding.column for finding in checks.findings] == ["user_enters_7d"]


@pytest.mark.spark
def test_a_stop_names_everything_and_commits_nothing(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path))
    fine = [(DAYS[0], user, 1, 0.5) for user in range(20)]
    wrong = [(DAYS[1], user, -5, math.nan) for user in range(10)] + [(DAYS[1], None, 1, 0.5)] * 10
    with pytest.raises(DataError) as caught:
        write(warehouse, frame(spark, [*fine, *wrong]), DAYS[:2])
    found = {(problem.day, problem.column) for problem in caught.value.problems}
    day = "2025-03-02"
    assert found == {(day, None), (day, "user_id"), (day, "user_enters_7d"), (day, "user_enter_rate_7d")}
    said = str(caught.value)
    assert "10 nulls where none may be: nulls is 0.5, above 0 (stop)" in said
    assert "10 values are NaN or infinite" in said
    assert "its smallest value is -5, and may be 0" in said
    assert "about 11 distinct keys in 20 rows" in said
    assert warehouse.tables() == []
    assert warehouse.partitions(TABLE) == []


def test_a_manifest_from_before_the_checks_stays_readable() -> None:
    old = {
        "table": "t", "partition": "dt=2025-03-01", "generation": 1, "attempt": "a", "files": [], "rows": 0,
        "digest": "0-0-0", "schema": [], "created_at": "2025-03-02T00:00:00Z",
    }  # fmt: skip
    assert PartitionManifest.model_validate(old).checks is None
