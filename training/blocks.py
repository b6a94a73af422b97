"""One row group as few matrices, and the pieces of several put together as one `Batch`.

n: rows, F: categorical fields, K: dense numbers, L: sequence length, T: tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from features import manifest as m
from features.errors import DataError, Problem
from training.batch import Batch

Array = NDArray[Any]
Columns = Mapping[str, pa.ChunkedArray]

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


class Rows(NamedTuple):
    """Rows [start, stop) of a block's matrices; nothing is copied."""

    parts: Mapping[str, Array]
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class Block:
    """Rows of one row group in the order in which the plan reads them, part name → [n, …]."""

    row_group: int
    parts: Mapping[str, Array]

    def rows(self, start: int, stop: int) -> Rows:
        """Some of them."""
        return Rows(self.parts, start, stop)


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


def pack(table: pa.Table, parts: Sequence[Part], order: NDArray[np.intp]) -> dict[str, Array]:
    """Columns → matrices with their rows in an order: here, while they are still in the cache.

    Args:
        table: [n] rows.
        parts: the matrices.
        order: [n] a permutation; what is copied shares no memory with the table.

    Raises:
        DataError: columns with nulls, another type, or lists of another length; all of them at once.
    """
    columns: Columns = dict(zip(table.column_names, table.columns, strict=True))
    problems = [problem for part in parts for name in part.columns for problem in _problems(columns[name], name, part)]
    if problems:
        raise DataError(problems)
    return {part.name: _pack_part(columns, part, order) for part in parts}


def _problems(values: pa.ChunkedArray, column: str, part: Part) -> list[Problem]:
    if part.width is None and values.type == part.stored and not values.null_count:
        return []  # nearly always
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


def _pack_part(columns: Columns, part: Part, order: NDArray[np.intp]) -> Array:
    if part.width is not None:
        values: Array = _one_chunk(columns[part.columns[0]]).flatten().to_numpy()
        stored = values.reshape(len(order), part.width)
    elif part.flat:
        stored = _one_chunk(columns[part.columns[0]]).to_numpy()
    else:
        stored = np.empty((len(order), len(part.columns)), dtype=part.stored.to_pandas_dtype())
        for place, name in enumerate(part.columns):
            stored[:, place] = _one_chunk(columns[name]).to_numpy()
    # An order is a permutation: mode "raise" would look at it once more.
    packed: Array = np.take(stored, order, axis=0, mode="clip")
    return packed


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def assemble(slices: Iterable[Rows], parts: Sequence[Part], *, rows: int, pinned: bool = False) -> Batch:
    """Slices of blocks, one below the other, as a batch of `rows` rows; each is copied before the next is asked for.

    What the slices lack is padding: id 0 everywhere, label_mask 0, row_id and group −1. `pinned` takes memory that a
    GPU can copy from while the processor goes on.
    """
    tensors = {part.name: _empty(part, rows, pinned) for part in parts}
    matrices = {name: tensor.numpy() for name, tensor in tensors.items() if tensor.numel()}
    filled = 0
    for piece in slices:
        start, filled = filled, filled + piece.stop - piece.start
        for name, matrix in matrices.items():
            matrix[start:filled] = piece.parts[name][piece.start : piece.stop]
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


def _empty(part: Part, rows: int, pinned: bool) -> torch.Tensor:
    # int32 in the file and in the blocks halves what is held; torch looks embeddings up by int64
    kind = torch.int64 if pa.types.is_integer(part.stored) else torch.float32
    width = len(part.columns) if part.width is None else part.width
    return torch.empty((rows,) if part.flat else (rows, width), dtype=kind, pin_memory=pinned)


def _named(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
