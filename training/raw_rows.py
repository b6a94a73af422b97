"""Rows that somebody else wrote, from Parquet or JSON lines, a few at a time, in the types that are wanted."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.errors import ConfError, DataError, Problem
from features.storage import open_input, resolve
from training.sample_rows import to_table, type_name
from training.samples.files import SplitFiles

PARQUET_ENDING = ".parquet"
JSON_ENDINGS = (".jsonl", ".ndjson", ".json")
Types = Mapping[str, pa.DataType]


class Rows(Protocol):
    """Rows in files."""

    @property
    def columns(self) -> Sequence[str]:
        """Names of the columns; of JSON lines, of the first row."""

    @property
    def total(self) -> int | None:
        """How many rows there are; None where only reading them tells."""

    def batches(self, size: int, wanted: Types) -> Iterator[pa.Table]:
        """At most `size` rows at a time, of the wanted columns those that are there.

        Raises:
            DataError: a file cannot be read as what it is.
        """


def open_rows(url: str) -> Rows:
    """A Parquet file, a folder of them, or a file of JSON lines, by its ending.

    Raises:
        ConfError: it is neither, or not there.
    """
    filesystem, path = resolve(url)
    kind = filesystem.get_file_info(path).type.name
    if kind == "Directory" or (kind == "File" and path.endswith(PARQUET_ENDING)):
        files = SplitFiles.below("rows", url)
        if files.urls:
            return ParquetRows(files=files)
    if kind == "File" and path.endswith(JSON_ENDINGS):
        return JsonRows(url=url)
    raise ConfError(f"{url}: there is no .parquet file, no folder of them, and no file of JSON lines (.jsonl)")


@dataclass(frozen=True, kw_only=True)
class ParquetRows:
    """All files of a folder, or one."""

    files: SplitFiles

    @cached_property
    def columns(self) -> Sequence[str]:
        """Of the first file."""
        with open_input(self.files.urls[0]) as source:
            names: list[str] = pq.read_schema(source).names
            return names

    @property
    def total(self) -> int:
        """From the footers."""
        return self.files.rows()

    def batches(self, size: int, wanted: Types) -> Iterator[pa.Table]:
        """See Rows."""
        for url in self.files.urls:
            with open_input(url) as source:
                file = pq.ParquetFile(source)
                names = [name for name in wanted if name in file.schema_arrow.names]
                for batch in file.iter_batches(batch_size=size, columns=names):
                    yield pa.Table.from_batches([batch])


@dataclass(frozen=True, kw_only=True)
class JsonRows:
    """A file with an object on every line; blank lines are left out."""

    url: str

    @cached_property
    def columns(self) -> Sequence[str]:
        """Of the first row."""
        return list(next(self._rows(), (0, {}))[1])

    @property
    def total(self) -> None:
        """Not known."""
        return

    def batches(self, size: int, wanted: Types) -> Iterator[pa.Table]:
        """See Rows; a column that some of these rows lack is null there."""
        rows = self._rows()
        while part := list(itertools.islice(rows, size)):
            present = set().union(*(row.keys() for _, row in part))
            named = {name: type_name(kind) for name, kind in wanted.items() if name in present}
            try:
                yield to_table((row for _, row in part), named)
            except DataError as error:
                where = f"lines {part[0][0]:,} to {part[-1][0]:,} of {self.url}"
                raise DataError(
                    Problem(table=where, column=problem.column, what=problem.what, remedy=problem.remedy)
                    for problem in error.problems
                ) from error

    def _rows(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Number of the line, from 1, and the row on it."""
        with open_input(self.url) as source, io.TextIOWrapper(source, encoding="utf-8") as lines:
            try:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        yield number, self._row(number, line)
            except UnicodeDecodeError as error:
                remedy = "Write JSON lines in UTF-8, uncompressed"
                raise DataError([Problem(what=f"{self.url} is no text in UTF-8", remedy=remedy)]) from error

    def _row(self, number: int, line: str) -> Mapping[str, Any]:
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            row, why = None, error.msg
        else:
            why = f"a {type(row).__name__}"
        if isinstance(row, dict):
            return row
        remedy = 'Write one object a line: {"user_id": 7, "hour": 21, ...}'
        raise DataError([Problem(what=f"line {number:,} of {self.url} is no JSON object ({why})", remedy=remedy)])


def typed(rows: pa.Table, wanted: Types) -> tuple[pa.Table, list[Problem]]:
    """Columns in their wanted types, where no value changes by that; and what is wrong with the others."""
    problems = []
    for name, kind in wanted.items():
        if name not in rows.column_names:
            continue
        column = rows[name]
        try:
            if _mixes(_innermost(column.type), _innermost(kind)):
                raise pa.ArrowInvalid("text and numbers are not taken for each other")
            rows = rows.set_column(rows.column_names.index(name), name, pc.cast(column, kind))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            what = f"type {column.type} where {type_name(kind)} is wanted ({str(error).splitlines()[0]})"
            problems.append(Problem(table="rows", column=name, what=what, remedy="Cast it when you write the rows"))
    return rows, problems


def _mixes(given: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether text stands where numbers are wanted, or numbers where text is; a day may be text."""
    return not (pa.types.is_null(given) or pa.types.is_temporal(wanted)) and _is_text(given) != _is_text(wanted)


def _innermost(kind: pa.DataType) -> pa.DataType:
    """Of a list what it holds; of a dictionary its values."""
    while pa.types.is_nested(kind) or pa.types.is_dictionary(kind):
        kind = kind.value_type if hasattr(kind, "value_type") else pa.null()
    return kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind))
