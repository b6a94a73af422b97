"""Committed serving tables without Spark: the day that serves, the rows of some keys, the place of each."""

from __future__ import annotations

import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import DataError, NotReadyError
from features.spec import Entity
from pipeline.manifests import DataFile, PartitionManifest, day_partition
from pipeline.served import ServedRows, read_served, served_day
from pipeline.stages.names import serving_table
from pipeline.tables import Warehouse

EVE, DAY = datetime.date(2026, 1, 18), datetime.date(2026, 1, 19)
COLUMNS = pa.schema([("user_id", pa.int64()), ("category", pa.string()), ("n", pa.int64())])
CATEGORIES = ("dance", "games", "talk")
KEYS = st.tuples(st.one_of(st.none(), st.integers(-3, 6)), st.one_of(st.none(), st.sampled_from(CATEGORIES)))


def table_of(keys: list[tuple[int | None, str | None]]) -> pa.Table:
    users, categories = [user for user, _ in keys], [category for _, category in keys]
    return pa.table([pa.array(users, pa.int64()), pa.array(categories), range(len(keys))], COLUMNS)


@given(st.lists(KEYS), st.sets(st.tuples(st.integers(-3, 5), st.sampled_from(CATEGORIES))))
def test_the_place_of_a_key_is_that_of_a_dictionary(
    asked: list[tuple[int | None, str | None]], stored: set[tuple[int, str]]
) -> None:
    keys = list(stored)
    rows = ServedRows(keys=("user_id", "category"), rows=table_of([*keys]))
    given_ = table_of(asked)
    found = rows.places({name: given_[name].combine_chunks() for name in ("user_id", "category")})
    assert found.tolist() == [keys.index(key) if key in keys else -1 for key in asked]


def commit(
    warehouse: Warehouse, entity: Entity, day: datetime.date, rows: pa.Table, schema: dict[str, str] | None = None
) -> None:
    """One serving partition of one file, with a row group for every two rows."""
    table, name = serving_table(entity), f"{entity}-{day}"
    path = f"data/{name}/part-0.parquet"
    file = Path(warehouse.table_url(table)) / path
    file.parent.mkdir(parents=True)
    pq.write_table(rows, file, row_group_size=2)
    kinds = {"user_id": "bigint", "category": "string", "n": "bigint"} if schema is None else schema
    listed = DataFile(path=path, rows=len(rows), bytes=file.stat().st_size)
    manifest = PartitionManifest(
        table=table, partition=day_partition(day), generation=1, attempt=name, files=(listed,) if len(rows) else (),
        rows=len(rows), digest="-", schema=tuple(kinds.items()), created_at=datetime.datetime.now(datetime.UTC),
    )  # fmt: skip
    warehouse.commit([manifest])


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    made = Warehouse(str(tmp_path / "warehouse"))
    keys = [(user, category) for user in range(10) for category in CATEGORIES]
    for day in (EVE, DAY):
        commit(made, Entity.USER_CATEGORY, day, table_of([*keys]))
    commit(made, Entity.USER, EVE, table_of([]))
    return made


def test_the_newest_day_that_all_tables_have_serves(warehouse: Warehouse) -> None:
    assert served_day(warehouse, [Entity.USER_CATEGORY], None) == DAY
    assert served_day(warehouse, [Entity.USER_CATEGORY, Entity.USER], None) == EVE
    assert served_day(warehouse, [Entity.USER_CATEGORY, Entity.USER], EVE) == EVE
    with pytest.raises(NotReadyError) as error:
        served_day(warehouse, [Entity.USER_CATEGORY, Entity.USER], DAY)
    (problem,) = error.value.problems
    assert (problem.table, problem.day) == ("serving_user", DAY.isoformat())
    assert problem.examples == [f"it has {EVE}"]
    assert f"--date {DAY}" in problem.remedy


def test_only_rows_of_the_keys_asked_for_are_kept(warehouse: Warehouse) -> None:
    asked = {"user_id": pa.array([7, 2, 99])}
    found = read_served(warehouse, Entity.USER_CATEGORY, DAY, COLUMNS, asked)
    assert sorted(found.rows["user_id"].to_pylist()) == [2, 2, 2, 7, 7, 7]
    places = found.places({"user_id": pa.array([7, 2, 3]), "category": pa.array(["talk", "dance", "talk"])})
    assert found.rows["n"].take(pa.array(places[:2])).to_pylist() == [23, 6]
    assert places[2] == -1


def test_row_groups_that_can_hold_no_key_are_not_read(warehouse: Warehouse) -> None:
    """Their pages are overwritten: whoever read them would fail."""
    (file,) = Path(warehouse.url).glob(f"serving_user_category/data/*{DAY}/part-0.parquet")
    metadata = pq.read_metadata(file)
    content = bytearray(file.read_bytes())
    for group in range(metadata.num_row_groups):
        column = metadata.row_group(group).column(0)
        if column.statistics.max < 4:
            start = column.dictionary_page_offset or column.data_page_offset
            content[start : start + metadata.row_group(group).total_byte_size] = (
                b"\xff" * metadata.row_group(group).total_byte_size
            )
    file.write_bytes(content)
    found = read_served(warehouse, Entity.USER_CATEGORY, DAY, COLUMNS, {"user_id": pa.array([8, 5])})
    assert len(found.rows) == 6
    with pytest.raises((OSError, pa.ArrowInvalid)):
        read_served(warehouse, Entity.USER_CATEGORY, DAY, COLUMNS, {"user_id": pa.array([1])})


def test_an_empty_table_knows_nobody(warehouse: Warehouse) -> None:
    found = read_served(warehouse, Entity.USER, EVE, COLUMNS, {"user_id": pa.array([1])})
    assert found.places({"user_id": pa.array([1, 2])}).tolist() == [-1, -1]
    assert found.rows.schema == COLUMNS


def test_a_column_that_the_table_lacks_is_named(warehouse: Warehouse) -> None:
    wanted = COLUMNS.append(pa.field("user_likes_7d", pa.int64()))
    with pytest.raises(DataError, match=r"table=serving_user_category .*missing.* \(1\); e.g. user_likes_7d"):
        read_served(warehouse, Entity.USER_CATEGORY, DAY, wanted, {"user_id": pa.array([1])})
    with pytest.raises(NotReadyError, match="days were not computed yet"):
        read_served(warehouse, Entity.USER, DAY, COLUMNS, {})
