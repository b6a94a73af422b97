"""The scratch copy: what is hidden changes and nothing else does; ids of 64 bits fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline.audit.duck import connect
from pipeline.audit.sample_set import SampleSet
from pipeline.audit.scratch import AS_OF, EVENT, IDS, Scratch, write_scratch
from tests.small_world import SAMPLE_DAYS, context_of, raw_copy, raw_folder

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DAY = SAMPLE_DAYS[-1]


@pytest.fixture(scope="module")
def written(clean: SampleSet, tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    assert clean.own is not None
    with connect() as connection:
        return write_scratch(connection, clean.own.context, DAY, 20, str(tmp_path_factory.mktemp("scratch")))


def side_of(written: Scratch, table: str, side: int) -> list[tuple[object, ...]]:
    """Rows of one side with the ids of side 0, with their day of arrival."""
    rows: list[tuple[object, ...]] = []
    for folder in sorted(Path(written.url, "raw", table).iterdir()):
        for path in folder.glob("*.parquet"):
            for row in pq.read_table(path).to_pylist():
                if row.get("user_id", row.get("room_id", row.get("anchor_id"))) // written.stride == side:
                    moved = {k: v % written.stride if k in IDS and v is not None else v for k, v in row.items()}
                    rows.append((folder.name, *(str(value) for value in moved.values())))
    return rows


@pytest.mark.parametrize("table", ["impressions", "actions", "rooms", "room_stats", "users", "anchors"])
def test_nothing_before_the_day_changes_on_any_side(written: Scratch, table: str) -> None:
    """Late rows of the as-of side arrive on D, so that partitions before D are equal on all sides."""
    before = f"dt={DAY}"
    sides = [sorted(row for row in side_of(written, table, side) if str(row[0]) < before) for side in (0, AS_OF, EVENT)]
    assert sides[0], "the copy is empty"
    assert sides[0] == sides[AS_OF]
    if table in ("users", "anchors", "impressions"):
        assert sides[0] == sides[EVENT]


@pytest.mark.parametrize(
    ("side", "tables"), [(AS_OF, ("impressions", "actions", "users")), (EVENT, ("actions", "rooms"))]
)
def test_what_is_hidden_changes(written: Scratch, side: int, tables: tuple[str, ...]) -> None:
    for table in tables:
        assert sorted(side_of(written, table, 0)) != sorted(side_of(written, table, side))
        assert written.mutated[side][table] > 0


def test_the_copy_has_the_columns_types_and_markers_of_the_contract(written: Scratch, world: Path) -> None:
    for table in ("impressions", "actions", "rooms", "room_stats", "users", "anchors"):
        ours, theirs = raw_folder(Path(written.url), table, DAY), raw_folder(world, table, DAY)
        assert (ours / "_SUCCESS").exists()
        schema, wanted = (pq.read_schema(folder / "part-0.parquet") for folder in (ours, theirs))
        for field in wanted:
            assert schema.field(field.name).type == field.type or pa.types.is_list(field.type), field.name
    assert written.users == 20


def test_ids_of_64_bits_fit(spark: SparkSession, world: Path, tmp_path: Path) -> None:
    """Whatever the raw ids are, those of the copy count from 1."""
    warehouse = raw_copy(world, tmp_path / "large")
    for path in (warehouse / "raw").rglob("*.parquet"):
        table = pq.read_table(path)
        for name in (name for name in IDS if name in table.column_names):
            place = table.column_names.index(name)
            table = table.set_column(place, name, pc.add(table[name], pa.scalar(1 << 61)))
        pq.write_table(table, path)
    with connect() as connection:
        found = write_scratch(connection, context_of(spark, warehouse), DAY, 20, str(tmp_path / "scratch"))
    assert found.stride < 10**6
    assert max(int(str(row[1])) for row in side_of(found, "actions", 0)) < found.stride
