"""Sample rows as JSON and back: the types of the columns travel as text, so that a null column keeps its type.

Types are spelled as in Spark SQL: bigint, int, double, string, date, array<bigint>, ...
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from features.errors import DataError, Problem

_SCALARS: Mapping[str, pa.DataType] = {
    "bigint": pa.int64(),
    "int": pa.int32(),
    "smallint": pa.int16(),
    "tinyint": pa.int8(),
    "double": pa.float64(),
    "float": pa.float32(),
    "string": pa.string(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}
_NAMES = {kind: name for name, kind in _SCALARS.items()}


def type_name(kind: pa.DataType) -> str:
    """The spelling of an Arrow type.

    Raises:
        DataError: if a sample row cannot hold it.
    """
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"array<{type_name(kind.value_type)}>"
    if pa.types.is_timestamp(kind):
        return "timestamp"
    if pa.types.is_large_string(kind):
        return "string"
    if kind not in _NAMES:
        remedy = f"Use one of {', '.join(_SCALARS)}, or an array of it"
        raise DataError([Problem(table="samples", what=f"a column has the type {kind}", remedy=remedy)])
    return _NAMES[kind]


def type_of(name: str) -> pa.DataType:
    """The Arrow type of a spelling; the inverse of `type_name`."""
    if name.startswith("array<") and name.endswith(">"):
        return pa.list_(type_of(name[len("array<") : -1]))
    if name not in _SCALARS:
        remedy = f"Use one of {', '.join(_SCALARS)}, or array<...>"
        raise DataError([Problem(table="samples", what=f"unknown column type {name!r}", remedy=remedy)])
    return _SCALARS[name]


def schema_of(samples: pa.Table) -> dict[str, str]:
    """Column → type, by name."""
    return {field.name: type_name(field.type) for field in samples.schema}


def to_rows(samples: pa.Table) -> list[dict[str, Any]]:
    """Rows that `json.dumps` takes: dates as ISO text, NaN as null."""
    return [{name: _plain(value) for name, value in row.items()} for row in samples.to_pylist()]


def to_table(rows: Iterable[Mapping[str, Any]], schema: Mapping[str, str]) -> pa.Table:
    """Rows as `to_rows` writes them → table; a column that a row lacks is null there.

    Raises:
        DataError: naming every column that holds a value of another type.
    """
    listed = list(rows)
    columns: dict[str, pa.Array] = {}
    problems = []
    for name, kind in schema.items():
        try:
            columns[name] = _column([row.get(name) for row in listed], type_of(kind))
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            remedy = f"Give values of the type {kind}, or null"
            problems.append(Problem(table="samples", column=name, what=str(error), remedy=remedy))
    if problems:
        raise DataError(problems)
    return pa.table(columns)


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return pa.array(values, pa.string()).cast(kind)
    return pa.array(values, kind)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return value.isoformat()
