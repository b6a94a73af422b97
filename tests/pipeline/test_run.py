"""Many days through all stages: the same content whatever the partitions, and what each fault of the input does."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from features.errors import DataError, ExitCode, NotReadyError
from pipeline.manifests import PartitionManifest, day_partition
from pipeline.plan import stage
from pipeline.stages import tiles
from pipeline.tables import Warehouse
from tests.small_world import SAMPLE_DAYS, TILE_DAYS, compute, context_of, digests, raw_folder

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

FIRST, SECOND = SAMPLE_DAYS
TILE_DAY = datetime.date(2025, 3, 3)
OTHER_PARTITIONS = 3  # the session's own number is 4, which adaptive execution makes one or two


@pytest.fixture
def copy(world: Path, tmp_path: Path) -> Path:
    """The computed world, to be spoilt; modification marks of the raw files are kept."""
    return Path(shutil.copytree(world, tmp_path / "copy"))


def current(warehouse: Path, table: str, day: datetime.date) -> PartitionManifest:
    found = Warehouse(str(warehouse)).manifest(table, day_partition(day))
    assert found is not None
    return found


@contextmanager
def shuffle_partitions(spark: SparkSession, number: int) -> Iterator[None]:
    """Exactly so many: adaptive execution would coalesce them."""
    changed = {"spark.sql.shuffle.partitions": str(number), "spark.sql.adaptive.enabled": "false"}
    before = {key: spark.conf.get(key) for key in changed}
    for key, value in changed.items():
        spark.conf.set(key, value)
    yield
    for key, was in before.items():
        assert was is not None
        spark.conf.set(key, was)


def change_actions(warehouse: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Replace the actions that arrived on TILE_DAY."""
    file = raw_folder(warehouse, "actions", TILE_DAY) / "part-0.parquet"
    pq.write_table(change(pq.read_table(file, partitioning=None)), file)


def test_what_is_up_to_date_is_left_alone(spark: SparkSession, world: Path) -> None:
    before = digests(world)
    runs = compute(context_of(spark, world))
    assert [run.name for run in runs] == ["tiles", "profiles", "recent", "samples"]
    assert [list(run.result.computed) for run in runs] == [[], [], [], []]
    assert list(runs[0].result.skipped) == TILE_DAYS
    assert digests(world) == before


def test_a_rerun_on_other_partitions_gives_the_same_content_and_touches_no_other_day(
    spark: SparkSession, world: Path, copy: Path
) -> None:
    with shuffle_partitions(spark, OTHER_PARTITIONS):
        runs = compute(context_of(spark, copy, force=True), FIRST)
    assert [run.result.computed[-1] for run in runs] == [TILE_DAY, FIRST, FIRST, FIRST]
    assert digests(copy) == digests(world)
    generations = {day: current(copy, "samples", day).generation for day in SAMPLE_DAYS}
    assert generations == {FIRST: 2, SECOND: 1}
    assert current(copy, "profiles_user", SECOND) == current(world, "profiles_user", SECOND)


def test_an_emptied_day_is_counted_and_what_read_it_is_computed_anew(
    spark: SparkSession, world: Path, copy: Path
) -> None:
    for table in ("impressions", "actions"):
        (raw_folder(copy, table, FIRST) / "part-0.parquet").unlink()
    runs = compute(context_of(spark, copy))
    assert [list(run.result.computed) for run in runs] == [[FIRST], [SECOND], [], [FIRST, SECOND]]
    emptied = current(copy, "tiles_user", FIRST)
    assert (emptied.rows, emptied.generation) == (0, 2)
    assert {name: emptied.counts[name] for name in ("impressions_empty_days", "actions_empty_days")} == {
        "impressions_empty_days": 1,
        "actions_empty_days": 1,
    }
    assert current(copy, "samples", FIRST).rows < current(world, "samples", FIRST).rows
    assert current(copy, "tiles_user", TILE_DAY) == current(world, "tiles_user", TILE_DAY)


def test_rows_that_arrive_above_the_limit_are_counted_and_change_nothing(
    spark: SparkSession, world: Path, copy: Path
) -> None:
    def with_old_row(actions: pa.Table) -> pa.Table:
        days_before = pc.subtract(actions["ts"][0], pa.scalar(datetime.timedelta(days=20), pa.duration("us")))
        row = {**actions.slice(0, 1).to_pydict(), "action_id": [10**9], "ts": [days_before.as_py()]}
        return pa.concat_tables([actions, pa.Table.from_pydict(row, schema=actions.schema)])

    change_actions(copy, with_old_row)
    result = tiles.run(context_of(spark, copy), [TILE_DAY])
    assert list(result.computed) == [TILE_DAY]
    assert result.counts["actions_quarantined"] == 1
    assert current(copy, "tiles_user", TILE_DAY).counts["actions_quarantined"] == 1
    assert digests(copy) == digests(world)


def _late(warehouse: Path) -> None:
    (raw_folder(warehouse, "actions", TILE_DAY) / "_SUCCESS").unlink()


def _missing(warehouse: Path) -> None:
    shutil.rmtree(raw_folder(warehouse, "actions", TILE_DAY))


def _without_column(warehouse: Path) -> None:
    change_actions(warehouse, lambda actions: actions.drop_columns(["value"]))


def _of_another_type(warehouse: Path) -> None:
    def narrowed(actions: pa.Table) -> pa.Table:
        at = actions.column_names.index("user_id")
        return actions.set_column(at, "user_id", actions["user_id"].cast(pa.int32()))

    change_actions(warehouse, narrowed)


def _repeated(warehouse: Path) -> None:
    change_actions(warehouse, lambda actions: pa.concat_tables([actions, actions]))


def _differing(warehouse: Path) -> None:
    def with_other_copy(actions: pa.Table) -> pa.Table:
        at = actions.column_names.index("value")
        other = actions.slice(0, 1).set_column(at, "value", pa.array([12345.0]))
        return pa.concat_tables([actions, other])

    change_actions(warehouse, with_other_copy)


def _ahead(warehouse: Path) -> None:
    def with_later_times(actions: pa.Table) -> pa.Table:
        at = actions.column_names.index("ts")
        later = pc.add(actions["ts"], pa.scalar(datetime.timedelta(days=9), pa.duration("us")))
        return actions.set_column(at, "ts", later)

    change_actions(warehouse, with_later_times)


@pytest.mark.parametrize(
    ("spoil", "code", "what"),
    [
        (_late, ExitCode.NOT_READY, "table=actions day=2025-03-03: raw day is late"),
        (_missing, ExitCode.BAD_DATA, "table=actions day=2025-03-03: raw day is missing"),
        (_without_column, ExitCode.BAD_DATA, "table=actions day=2025-03-03 column=value: column is absent"),
        (_of_another_type, ExitCode.BAD_DATA, "column=user_id: column is int, not bigint of the contract"),
        (_repeated, ExitCode.BAD_DATA, "repeated action_id above the share of 1.00%"),
        (_differing, ExitCode.BAD_DATA, "rows of the same action_id differ (1); e.g. {"),
        (_ahead, ExitCode.BAD_DATA, "column=ts: rows happened after the end of the day they arrived on ("),
    ],
)
def test_a_faulty_day_stops_the_run_and_leaves_what_was_committed(
    spark: SparkSession, world: Path, copy: Path, spoil: Callable[[Path], None], code: ExitCode, what: str
) -> None:
    spoil(copy)
    with pytest.raises((DataError, NotReadyError)) as caught:
        compute(context_of(spark, copy))
    assert caught.value.exit_code is code
    assert what in str(caught.value)
    assert digests(copy) == digests(world)
    table = Warehouse(str(copy)).read_days(spark, "samples", [FIRST])
    assert table.count() == current(world, "samples", FIRST).rows


def test_a_stage_says_what_has_to_run_before_it(spark: SparkSession, world: Path, copy: Path) -> None:
    for name in ("tiles_user", "profiles_user"):
        shutil.rmtree(copy / name)
    context = context_of(spark, copy, force=True)
    for name in ("profiles", "samples"):
        run = stage(name).run
        assert run is not None
        with pytest.raises(NotReadyError, match=r"table=(tiles|profiles)_user: days were not computed yet"):
            run(context, [SECOND])
