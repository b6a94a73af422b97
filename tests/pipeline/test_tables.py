"""The commit protocol: exclusive, whole, replaced by day, readable after any crash."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from features.errors import DataError, HeldError, NotReadyError
from pipeline import leases
from pipeline.manifests import PartitionManifest, Provenance
from pipeline.observed import keys_of
from pipeline.tables import Warehouse

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.spark

FIRST = datetime.date(2025, 3, 1)
SECOND = datetime.date(2025, 3, 2)
NOTHING = Provenance(inputs={})


def frame(spark: SparkSession, rows: Sequence[tuple[int, datetime.date, int]]) -> DataFrame:
    return spark.createDataFrame(list(rows), "key bigint, dt date, late int")


def keys(warehouse: Warehouse, spark: SparkSession, days: Sequence[datetime.date]) -> list[int]:
    return sorted(row.key for row in warehouse.read_days(spark, "t", days).collect())


def test_a_commit_lists_files_rows_digest_and_counts(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path))
    rows = [(1, FIRST, 0), (2, FIRST, 1), (3, SECOND, 1)]
    written = warehouse.write_days(frame(spark, rows), "t", [FIRST, SECOND], NOTHING, counted=["late"])
    assert written[FIRST].rows == 2
    assert written[FIRST].counts == {"late": 1}
    assert [name for name, _ in written[FIRST].schema_] == ["key", "dt"]
    assert keys(warehouse, spark, [FIRST, SECOND]) == [1, 2, 3]
    assert warehouse.manifest("t", "dt=2025-03-01") == written[FIRST]


def test_the_digest_is_the_content_whatever_the_order_and_the_files(spark: SparkSession, tmp_path: Path) -> None:
    rows = [(key, FIRST, 0) for key in range(50)]
    one = Warehouse(str(tmp_path / "one")).write_days(frame(spark, rows).coalesce(1), "t", [FIRST], NOTHING)
    many = Warehouse(str(tmp_path / "many")).write_days(frame(spark, rows[::-1]).repartition(7), "t", [FIRST], NOTHING)
    other = Warehouse(str(tmp_path / "x")).write_days(frame(spark, [*rows[1:], (51, FIRST, 0)]), "t", [FIRST], NOTHING)
    assert one[FIRST].digest == many[FIRST].digest
    assert one[FIRST].digest != other[FIRST].digest


def test_a_rerun_replaces_exactly_its_day_also_when_empty(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path))
    warehouse.write_days(frame(spark, [(1, FIRST, 0), (2, SECOND, 0)]), "t", [FIRST, SECOND], NOTHING)
    untouched = warehouse.manifest("t", "dt=2025-03-02")
    warehouse.write_days(frame(spark, []), "t", [FIRST], NOTHING)
    assert keys(warehouse, spark, [FIRST, SECOND]) == [2]
    assert warehouse.manifest("t", "dt=2025-03-02") == untouched
    assert keys(warehouse, spark, [FIRST]) == []


def test_files_without_a_manifest_are_invisible(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path))
    frame(spark, [(1, FIRST, 0)]).write.parquet(f"{warehouse.table_url('t')}/data/dead/day=2025-03-01")
    with pytest.raises(NotReadyError, match=r"days were not computed yet \(1\); e.g. 2025-03-01"):
        warehouse.read_days(spark, "t", [FIRST])


def test_of_two_writers_of_one_generation_one_is_told(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path))
    first = warehouse.write_days(frame(spark, [(1, FIRST, 0)]), "t", [FIRST], NOTHING)[FIRST]
    with pytest.raises(HeldError, match="another run committed generation 1"):
        warehouse.commit([first.model_copy(update={"attempt": "late"})])
    assert warehouse.manifest("t", "dt=2025-03-01") == first


def test_a_manifest_whose_files_lack_rows_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path))
    whole = warehouse.write_days(frame(spark, [(1, FIRST, 0)]), "t", [FIRST], NOTHING)[FIRST]
    with pytest.raises(DataError, match="files hold 1 rows where 2 were written"):
        warehouse.commit([PartitionManifest.model_validate(whole.model_dump(by_alias=True) | {"rows": 2})])


def test_days_of_two_schemas_do_not_mix(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path))
    warehouse.write_days(frame(spark, [(1, FIRST, 0)]), "t", [FIRST], NOTHING)
    warehouse.write_days(frame(spark, [(1, SECOND, 0)]).drop("late"), "t", [SECOND], NOTHING)
    with pytest.raises(DataError, match=r"different columns; e\.g\. late"):
        warehouse.read_days(spark, "t", [FIRST, SECOND])


@pytest.mark.parametrize(
    ("came_out", "what"),
    [
        ((1, 2, 3, 3), "3 rows went in and 4 came out"),
        ((1, 2), "3 rows went in and 2 came out"),
        ((1, 1, 3), "of 3 keys that went in, some were lost and others came out more than once"),
    ],
)
def test_keys_that_were_lost_or_repeated_are_not_committed(
    spark: SparkSession, tmp_path: Path, came_out: tuple[int, ...], what: str
) -> None:
    warehouse = Warehouse(str(tmp_path))
    went_in = keys_of(frame(spark, [(key, FIRST, 0) for key in (3, 1, 2)]), "dt", ["key"])
    rows = frame(spark, [(key, FIRST, 1) for key in came_out])
    with pytest.raises(DataError, match=f"table=t day=2025-03-01: {what}"):
        warehouse.write_days(rows, "t", [FIRST, SECOND], NOTHING, key=["key"], expected=went_in)
    assert warehouse.tables() == []
    whole = frame(spark, [(key, FIRST, 1) for key in (1, 2, 3)])
    written = warehouse.write_days(whole, "t", [FIRST, SECOND], NOTHING, key=["key"], expected=went_in)
    assert [manifest.rows for manifest in written.values()] == [3, 0]


def test_a_live_lease_holds_and_a_released_one_does_not(tmp_path: Path) -> None:
    folder = str(tmp_path / "t" / "leases")
    with (
        leases.Lease(folder, ["dt=2025-03-01"], "first"),
        pytest.raises(HeldError, match="held by run first"),
        leases.Lease(folder, ["dt=2025-03-01"], "second"),
    ):
        pass
    with leases.Lease(folder, ["dt=2025-03-01"], "second"):
        pass


def test_a_lease_without_heartbeat_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(tmp_path / "t" / "leases")
    dead = leases.Lease(folder, ["p"], "dead")
    dead.__enter__()
    monkeypatch.setattr(leases, "EXPIRY_SECONDS", -1.0)
    with leases.Lease(folder, ["p"], "heir"):
        pass
    dead.__exit__(None, None, None)
