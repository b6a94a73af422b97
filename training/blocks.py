"""One row group as few matrices, and the pieces of several put together as one `Batch`.

n: rows, F: categorical fields, K: dense numbers, L: sequence length, T: tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from features import manifest as m
from features.errors import DataError, Problem
from training.batch import Batch

Array = NDArray[Any]

PAD_ROW_ID = -1
PAD_GROUP = -1
_PADDING = {"row_id": PAD_ROW_ID, "group": PAD_GROUP}

_REMEDY = "The file does not keep the contract of features/manifest.py: export the train set again."


@dataclass(frozen=True, kw_only=True)
class Part:
    """One matrix of a block, and the columns it is made of.

    Attributes:
        name: what the matrix is called, e.g. "ids" or "sequences.watched.anchor_id".
        columns: scalar columns side by side, or one list column.
        stored: type of the values in the file and in the block.
        width: length of every list; None for scalar columns.
        flat: [n] instead of [n, 1], for a single scalar column.
    """

    name: str
    columns: tuple[str, ...]
    stored: pa.DataType
    width: int | None = None
    flat: bool = False


@dataclass(frozen=True, kw_only=True)
class Block:
    """Rows of one row group as they are stored, part name → [n, …], and the order [n] in which the plan reads them."""

    row_group: int
    parts: Mapping[str, Array]
    order: NDArray[np.intp]

    def rows(self, start: int, stop: int) -> Block:
        """Those that are read from place `start` to place `stop`; nothing is copied."""
        return replace(self, order=self.order[start:stop])


def parts_of(trainset: m.TrainSet, *, with_position: bool) -> tuple[Part, ...]:
    """The matrices of a train set's rows, columns in the order of the manifest."""
    tasks = [task.name for task in trainset.tasks]
    parts = [
        Part(name="ids", columns=tuple(m.categorical_column(f.name) for f in trainset.categorical), stored=pa.int32()),
        Part(name="dense", columns=tuple(m.dense_column(f.name) for f in trainset.dense), stored=pa.float32()),
        Part(name="labels", columns=tuple(m.label_column(task) for task in tasks), stored=pa.float32()),
        Part(name="label_mask", columns=tuple(m.mask_column(task) for task in tasks), stored=pa.float32()),
        Part(name="group", columns=(m.GROUP_COLUMN,), stored=pa.int64(), flat=True),
        Part(name="row_id", columns=(m.ROW_ID_COLUMN,), stored=pa.int64(), flat=True),
    ]
    parts += [
        Part(name=f"vectors.{v.name}", columns=(m.vector_column(v.name),), stored=pa.float32(), width=v.dim)
        for v in trainset.vectors
    ]
    parts += [
        Part(
            name=f"sequences.{sequence.name}.{field.name}",
            columns=(m.sequence_column(sequence.name, field.name),),
            stored=pa.int32(),
            width=sequence.length,
        )
        for sequence in trainset.sequences
        for field in sequence.fields
    ]
    if with_position and trainset.positions is not None:
        parts.append(Part(name="position", columns=(m.POSITION_COLUMN,), stored=pa.int32(), flat=True))
    return tuple(parts)


def pack(table: pa.Table, parts: Sequence[Part]) -> dict[str, Array]:
    """Columns → matrices, rows as stored: scalar columns are put side by side; a list column is a view of its values.

    Raises:
        DataError: columns with nulls, another type, or lists of another length; all of them at once.
    """
    problems = [problem for part in parts for column in part.columns for problem in _problems(table, part, column)]
    if problems:
        raise DataError(problems)
    return {part.name: _pack_part(table, part) for part in parts}


def _problems(table: pa.Table, part: Part, column: str) -> list[Problem]:
    values = table.column(column)
    actual = values.type if part.width is None else getattr(values.type, "value_type", None)
    if actual != part.stored:
        expected = part.stored if part.width is None else f"list<{part.stored}>"
        return [Problem(what=f"type {values.type}, expected {expected}", column=column, remedy=_REMEDY)]
    if values.null_count:
        return [Problem(what="nulls", column=column, count=values.null_count, remedy=_REMEDY)]
    if part.width is None:
        return []
    lengths = np.concatenate([np.diff(chunk.offsets.to_numpy()) for chunk in values.chunks])
    wrong = lengths[lengths != part.width]
    if not len(wrong):
        return []
    what = f"lists not of length {part.width}"
    return [Problem(what=what, column=column, count=len(wrong), examples=np.unique(wrong).tolist(), remedy=_REMEDY)]


def _pack_part(table: pa.Table, part: Part) -> Array:
    if part.width is not None:
        values: Array = _one_chunk(table.column(part.columns[0])).flatten().to_numpy()
        return values.reshape(len(table), part.width)
    columns = [_one_chunk(table.column(column)).to_numpy() for column in part.columns]
    if part.flat:
        flat: Array = columns[0]
        return flat
    packed = np.empty((len(table), len(columns)), dtype=part.stored.to_pandas_dtype())
    for place, values in enumerate(columns):
        packed[:, place] = values
    return packed


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def assemble(slices: Iterable[Block], parts: Sequence[Part], *, rows: int, pinned: bool = False) -> Batch:
    """Slices of blocks, one below the other, as a batch of `rows` rows; each is copied before the next is asked for.

    Here rows come into their order: a value is copied once between the file's pages and the batch, a scalar twice.
    What the slices lack is padding: id 0 everywhere, label_mask 0, row_id and group −1. `pinned` takes memory that a
    GPU can copy from while the processor goes on.
    """
    tensors = {part.name: _empty(part, rows, pinned) for part in parts}
    matrices = {name: tensor.numpy() for name, tensor in tensors.items()}
    filled = 0
    for piece in slices:
        start, filled = filled, filled + len(piece.order)
        for name, matrix in matrices.items():
            _gather(piece.parts[name], piece.order, matrix[start:filled])
        del piece  # or its block would outlive it until the next is there
    if filled < rows:
        for name, matrix in matrices.items():
            matrix[filled:] = _PADDING.get(name, 0)
    return Batch(
        ids=tensors["ids"],
        dense=tensors["dense"],
        vectors=_named(tensors, "vectors."),
        sequences=_named(tensors, "sequences."),
        labels=tensors["labels"],
        label_mask=tensors["label_mask"],
        position=tensors.get("position"),
        group=tensors["group"],
        row_id=tensors["row_id"],
    )


def _gather(stored: Array, order: NDArray[np.intp], into: Array) -> None:
    # An order is a permutation: mode "raise" would look at it once more.
    if stored.dtype == into.dtype:
        np.take(stored, order, axis=0, out=into, mode="clip")
    else:
        into[...] = np.take(stored, order, axis=0, mode="clip")


def _empty(part: Part, rows: int, pinned: bool) -> torch.Tensor:
    # int32 in the file and in the blocks halves what is held; torch looks embeddings up by int64
    kind = torch.int64 if pa.types.is_integer(part.stored) else torch.float32
    width = len(part.columns) if part.width is None else part.width
    return torch.empty((rows,) if part.flat else (rows, width), dtype=kind, pin_memory=pinned)


def _named(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
