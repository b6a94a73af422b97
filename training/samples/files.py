"""The Parquet files of a split: that they are there, and that their columns are what the schema says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import Problem
from features.storage import list_files, open_input
from training.samples.schema import (
    Categorical,
    DenseNumber,
    FixedVector,
    Mask,
    Plain,
    SampleSchema,
    SequenceOf,
    TaskLabel,
)

BATCH_ROWS = 65_536


@dataclass(frozen=True, kw_only=True)
class SplitFiles:
    """Files of a split, by name."""

    split: str
    urls: tuple[str, ...]

    @classmethod
    def below(cls, split: str, url: str) -> SplitFiles:
        """One Parquet file, or all below a folder, hidden ones (`_SUCCESS`, `.crc`) left out."""
        if url.endswith(".parquet"):
            return cls(split=split, urls=(url,))
        found = (entry for entry in list_files(url, recursive=True) if entry.name.endswith(".parquet"))
        return cls(
            split=split, urls=tuple(e.url for e in found if not e.name.rpartition("/")[2].startswith((".", "_")))
        )

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Rows in the order of the files, dictionaries decoded."""
        for url in self.urls:
            with open_input(url) as source:
                yield from pq.ParquetFile(source).iter_batches(batch_size=BATCH_ROWS, columns=list(columns))

    def rows(self) -> int:
        """Rows of all files, from their footers."""
        total = 0
        for url in self.urls:
            with open_input(url) as source:
                total += pq.ParquetFile(source).metadata.num_rows
        return total


def is_string(kind: pa.DataType) -> bool:
    """Text of any layout."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_key(kind: pa.DataType) -> bool:
    return bool(is_string(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def element(kind: pa.DataType) -> pa.DataType | None:
    """Of a list its element type."""
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return kind.value_type if is_list else None


def _in_list(test: Callable[[pa.DataType], bool]) -> Callable[[pa.DataType], bool]:
    def of_list(kind: pa.DataType) -> bool:
        inner = element(kind)
        return inner is not None and test(inner)

    return of_list


_WANTED: Mapping[type, tuple[str, Callable[[pa.DataType], bool]]] = {
    Categorical: ("integers or strings", _is_key),
    DenseNumber: ("numbers", _is_number),
    SequenceOf: ("lists of integers or strings", _in_list(_is_key)),
    FixedVector: ("lists of numbers", _in_list(_is_number)),
    TaskLabel: ("numbers 0 and 1", _is_number),
    Mask: ("numbers 0 and 1", _is_number),
}
_WANTED_PLAIN = {"group": ("integers or strings", _is_key), "weight": ("numbers", _is_number)}


def shape_problems(files: SplitFiles, schema: SampleSchema) -> list[Problem]:
    """No file, columns that the schema does not name or that are not there, other types than their roles want."""
    if not files.urls:
        return [Problem(what="no Parquet file", table=files.split, remedy="Give a .parquet file, or a folder of them.")]
    problems: dict[tuple[str, str], Problem] = {}
    for url in files.urls:
        with open_input(url) as source:
            found = pq.ParquetFile(source).schema_arrow
        for problem in _of_file(files.split, found, schema):
            problems.setdefault((problem.column or "", problem.what), problem)
    return list(problems.values())


def _of_file(split: str, found: pa.Schema, schema: SampleSchema) -> Iterator[Problem]:
    for name in found.names:
        if name not in schema.columns:
            remedy = "Name it in the schema file, with the role ignore if it is no input."
            yield Problem(what="unknown column", table=split, column=name, remedy=remedy)
    for name in schema.read:
        if name not in found.names:
            yield Problem(
                what="missing column", table=split, column=name, remedy="Write it, or take it out of the schema."
            )
            continue
        role, kind = schema.columns[name], found.field(name).type
        wanted, test = _WANTED_PLAIN[role.role] if isinstance(role, Plain) else _WANTED[type(role)]
        if not test(kind):
            what = f"type {kind}, the role {role.role} wants {wanted}"
            yield Problem(what=what, table=split, column=name, remedy="Cast it when you write the file.")
        elif isinstance(role, SequenceOf) and role.of in found.names:
            of_kind, inner = found.field(role.of).type, element(kind)
            if inner is not None and is_string(inner) != is_string(of_kind):
                what = f"a sequence of {inner} against the vocabulary of {role.of}, which holds {of_kind}"
                yield Problem(what=what, table=split, column=name, remedy="Give both the same type.")
