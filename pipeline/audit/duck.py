"""DuckDB over Parquet files by URL: the audit's own way to the data, which shares nothing with the Spark stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem

from features import storage

Connection = duckdb.DuckDBPyConnection


@contextmanager
def connect() -> Iterator[Connection]:
    """A database in memory, without progress bars."""
    connection = duckdb.connect(":memory:")
    try:
        connection.execute("SET enable_progress_bar = false")
        connection.execute("SET TimeZone = 'UTC'")
        yield connection
    finally:
        connection.close()


def parquet(urls: Sequence[str], folders: Sequence[str] = ()) -> ds.Dataset:
    """Files of one file system (at least one) as a dataset with the columns of all of them.

    Args:
        folders: names of `name=value` folders that become text columns.
    """
    filesystem = storage.resolve(urls[0])[0]
    paths = [storage.resolve(url)[1] for url in urls]
    files = pa.unify_schemas([schema_of(url) for url in urls])
    unified = pa.schema([*files, *(pa.field(name, pa.string()) for name in folders)])
    return ds.dataset(
        paths, schema=unified, filesystem=filesystem, format="parquet",
        partitioning=ds.partitioning(pa.schema([pa.field(name, pa.string()) for name in folders]), flavor="hive"),
    )  # fmt: skip


def make_view(connection: Connection, name: str, urls: Sequence[str], folders: Sequence[str] = ()) -> None:
    """A view of Parquet files; see `parquet`. Values of folder names are text.

    DuckDB reads local files by itself. Others come through Arrow, to which DuckDB 2.0 must not offer filters: it asks
    pyarrow 14 for a type that pyarrow 14 does not know.
    """
    paths = [storage.resolve(url)[1] for url in urls]
    if not isinstance(storage.resolve(urls[0])[0], LocalFileSystem):
        connection.execute("SET disabled_optimizers = 'filter_pushdown'")
        connection.register(name, parquet(urls, folders))
        return
    found = dict.fromkeys(part.split("=", 1)[0] for part in paths[0].split("/")[:-1] if "=" in part)
    unwanted = [column for column in found if column not in folders]
    hive = "false"
    if folders:
        hive = "true, hive_types_autocast = false"
    files = ", ".join(literal(path) for path in paths)
    kept = f"* EXCLUDE ({', '.join(quoted(column) for column in unwanted)})" if folders and unwanted else "*"
    connection.execute(
        f"CREATE OR REPLACE TEMP VIEW {name} AS "
        f"SELECT {kept} FROM read_parquet([{files}], union_by_name = true, hive_partitioning = {hive})"
    )


def make_table(connection: Connection, name: str, rows: pa.Table) -> None:
    """A table of rows that are in memory."""
    connection.register("_rows", rows)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT * FROM _rows")
    connection.unregister("_rows")


def folder_columns(url: str, below: str) -> list[str]:
    """Names of the `name=value` folders between a folder and a file below it."""
    parts = storage.resolve(url)[1].removeprefix(storage.resolve(below)[1]).split("/")[:-1]
    return [part.split("=", 1)[0] for part in parts if "=" in part]


def schema_of(url: str) -> pa.Schema:
    """Columns of one Parquet file, without the writer's remarks."""
    with storage.open_input(url) as source:
        return pq.read_schema(source).remove_metadata()


def largest(url: str, column: str) -> Any:
    """The largest value of a column: from the footer where every row group tells, else from the column itself.

    None in a file without values. Old writers' INT96 timestamps have no statistics.
    """
    with storage.open_input(url) as source:
        footer = pq.read_metadata(source)
        place = [footer.schema.column(number).path for number in range(footer.num_columns)].index(column)
        groups = [footer.row_group(number).column(place).statistics for number in range(footer.num_row_groups)]
        if all(group is not None and (group.has_min_max or group.null_count == group.num_values) for group in groups):
            return max((group.max for group in groups if group.has_min_max), default=None)
        return pc.max(pq.read_table(source, columns=[column]).column(0)).as_py()


def fetch(connection: Connection, sql: str) -> list[tuple[Any, ...]]:
    """Rows of a query."""
    return connection.execute(sql).fetchall()


def quoted(name: str) -> str:
    """An identifier as SQL writes it."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def literal(value: object) -> str:
    """A constant as SQL writes it."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value!r}::DOUBLE"
    if isinstance(value, int):
        return str(value)
    escaped = str(value).replace("'", "''")
    return f"'{escaped}'"
