"""The audit's own way to Parquet: the newest value of a file, and views of local files and of others."""

from __future__ import annotations

import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.audit.duck import connect, fetch, largest, literal, make_view, parquet, quoted

NOON = datetime.datetime(2025, 3, 4, 12, tzinfo=datetime.UTC)


@pytest.mark.parametrize("statistics", [True, False])
def test_the_newest_value_with_and_without_statistics(tmp_path: Path, statistics: bool) -> None:
    times = pa.array([NOON, None, NOON - datetime.timedelta(days=1)], pa.timestamp("us", tz="UTC"))
    path = tmp_path / "part.parquet"
    pq.write_table(pa.table({"ts": times, "none": pa.nulls(3, pa.int64())}), path, write_statistics=statistics)
    assert largest(str(path), "ts") == NOON
    assert largest(str(path), "none") is None


def test_the_newest_value_of_int96_and_of_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    pq.write_table(
        pa.table({"ts": pa.array([NOON.replace(tzinfo=None)], pa.timestamp("us"))}),
        path,
        use_deprecated_int96_timestamps=True,
    )
    assert largest(str(path), "ts") == NOON.replace(tzinfo=None)
    pq.write_table(pa.table({"ts": pa.array([], pa.timestamp("us"))}), path)
    assert largest(str(path), "ts") is None


def test_folders_that_were_asked_for_are_columns_and_others_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "env=prod" / "dt=2025-03-04"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"x": [1, 2]}), folder / "a.parquet")
    pq.write_table(pa.table({"x": [3], "further": ["y"]}), folder / "b.parquet")
    urls = [str(folder / name) for name in ("a.parquet", "b.parquet")]
    with connect() as connection:
        make_view(connection, "rows", urls, ["dt"])
        assert fetch(connection, "SELECT x, further, dt FROM rows ORDER BY x") == [
            (1, None, "2025-03-04"),
            (2, None, "2025-03-04"),
            (3, "y", "2025-03-04"),
        ]
        described = connection.execute("SELECT * FROM rows").description or ()
        assert [name for name, *_ in described] == ["x", "further", "dt"]
    assert parquet(urls, ["dt"]).to_table().column_names == ["x", "further", "dt"]


def test_names_and_constants_are_escaped() -> None:
    with connect() as connection:
        sql = f"SELECT {literal(chr(39) + 'a')} AS {quoted('odd' + chr(34) + 'name')}, {literal(None)}, {literal(0.1)}"
        assert fetch(connection, sql) == [("'a", None, 0.1)]
