"""The shared embedding table, and growing it without changing a prediction.

n: rows of a batch, C: columns of ids, M: fields (each one or more columns), N: ids that are looked up, S: table rows
that they touch, D: embedding dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional

from features.manifest import PADDING_ID, TrainSet
from training.memory import row_zeros
from training.row_sums import PADDING_ROW, RowSegments, by_row, by_row_fixed, row_type

INITIAL_STD = 0.01


class Columns(nn.Module):
    """Of which vocabulary each column of ids is, and which columns make a field.

    Attributes:
        offsets: [C] first table row of each column's vocabulary.
        widths: columns of each field, M of them, adding up to C.
        field: [C] the field of each column.
        begins: [M] first column of each field.
    """

    def __init__(self, offsets: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = tuple(widths)
        counts = torch.tensor(self.widths, dtype=torch.int64)
        self.register_buffer("offsets", torch.tensor(offsets, dtype=torch.int64), persistent=False)
        self.register_buffer("field", torch.arange(len(counts)).repeat_interleave(counts), persistent=False)
        self.register_buffer("begins", counts.cumsum(dim=0) - counts, persistent=False)
        self.offsets: Tensor
        self.field: Tensor
        self.begins: Tensor

    def counts(self, present: Tensor) -> Tensor:
        """[n, C] bool → [n, M] how many columns of each field are true."""
        runs = [(len(list(fields)), width) for width, fields in groupby(self.widths)]
        parts = torch.split(present, [fields * width for fields, width in runs], dim=1)
        by_field = [part.view(len(part), *run) for run, part in zip(runs, parts, strict=True)]
        return torch.cat([field.sum(dim=2) for field in by_field], dim=1)


class EmbeddingTable(nn.Module):
    """All vocabularies in one table; the row of id i of vocabulary v is offset(v) + i.

    The weight is [R, D] or, with `linear`, [R, D + 1]: the last column is the id's weight in a linear term,
    so that both travel in one sparse gradient; with dim 0 it is the only one. Rows of padding are zero, and stay so:
    they are never read.

    Attributes:
        weight: [R, D (+1)]; its gradient is sparse: `touched`, each row once, and their sums.
        blocks: widths of the groups of columns that keep optimiser state of their own: (D,), (D, 1) or (1,).
        fixed_sizes: whether no shape may depend on the data (`training.row_sums`); None: unless on a CPU.
        touched: [S] rows of the gradient that a backward pass through the last lookup will have; None before one.
    """

    def __init__(self, inputs: TrainSet, dim: int, *, linear: bool) -> None:
        super().__init__()
        self.dim = dim
        self.offsets = inputs.offsets()
        self.blocks = tuple(width for width in (dim, int(linear)) if width)
        weight = row_zeros((inputs.table_rows(), sum(self.blocks)), like=torch.empty(0))
        nn.init.normal_(weight[:, :dim], std=INITIAL_STD)
        weight[[start + PADDING_ID for start in self.offsets.values()]] = 0.0
        self.weight = nn.Parameter(weight)
        self.fixed_sizes: bool | None = None
        self.touched: Tensor | None = None

    @property
    def has_fixed_sizes(self) -> bool:
        """Whether no shape may depend on the data, here and now."""
        return self.weight.device.type != "cpu" if self.fixed_sizes is None else self.fixed_sizes

    def forward(self, ids: Tensor, columns: Columns) -> Tensor:
        """The mean of each field's rows; a field of one id is its row, a field of padding is zero.

        Args:
            ids: [n, C] ids, each within its column's vocabulary.
            columns: what the columns are.

        Returns:
            [n, M, D (+1)].
        """
        if not self.training:
            return self._means(ids, columns)
        kind = row_type(len(self.weight))
        lookup = (_lookup_fixed if self.has_fixed_sizes else _lookup)(ids, columns, kind)
        self.touched = lookup.segments.rows
        means: Tensor = _FieldMeans.apply(self.weight, lookup)  # type: ignore[no-untyped-call]
        return means.view(len(ids), len(columns.widths), -1)

    def _means(self, ids: Tensor, columns: Columns) -> Tensor:
        """The definition, without a shape that depends on the data: this is what is exported."""
        present = (ids != PADDING_ID).to(self.weight.dtype).unsqueeze(-1)
        rows = functional.embedding(ids + columns.offsets, self.weight) * present
        sums = [field.sum(dim=1) for field in torch.split(rows, list(columns.widths), dim=1)]
        counts = [field.sum(dim=1).clamp(min=1) for field in torch.split(present, list(columns.widths), dim=1)]
        return torch.stack(sums, dim=1) / torch.stack(counts, dim=1)


@dataclass(frozen=True, kw_only=True)
class _Lookup:
    """What a training step reads, and how the gradient finds its way back.

    Attributes:
        rows: [N] table rows, those of a field side by side.
        begins: [n M] where each field begins in them.
        counts: [n M] ids of a field that are not padding.
        field: [N] the field of each; None where each field is one id.
        segments: the same by row.
        padding: the row among `rows` that stands for padding; None where padding was left out.
    """

    rows: Tensor
    begins: Tensor
    counts: Tensor
    field: Tensor | None
    segments: RowSegments
    padding: int | None = None


def _lookup(ids: Tensor, columns: Columns, kind: torch.dtype) -> _Lookup:
    """Padding is left out: sizes depend on the data."""
    present = ids != PADDING_ID
    rows, counts = (ids + columns.offsets).to(kind).masked_select(present), columns.counts(present).flatten()
    each_is_one = len(rows) == len(counts) == present.numel()
    numbers = torch.arange(len(counts), dtype=kind)
    return _Lookup(
        rows=rows,
        begins=numbers if each_is_one else (counts.cumsum(dim=0) - counts).to(kind),
        counts=counts,
        field=None if each_is_one else numbers.repeat_interleave(counts, output_size=len(rows)),
        segments=by_row(rows),
    )


def _lookup_fixed(ids: Tensor, columns: Columns, kind: torch.dtype) -> _Lookup:
    """Padding is looked up as such: N = n C."""
    present = ids != PADDING_ID
    rows = (ids + columns.offsets).to(kind).where(present, PADDING_ROW).flatten()
    number = torch.arange(len(ids), device=ids.device).unsqueeze(1)
    return _Lookup(
        rows=rows,
        begins=(number * ids.shape[1] + columns.begins).to(kind).flatten(),
        counts=columns.counts(present).flatten(),
        field=(number * len(columns.widths) + columns.field).to(kind).flatten(),
        segments=by_row_fixed(rows),
        padding=PADDING_ROW,
    )


class _FieldMeans(torch.autograd.Function):
    """Mean per field, straight from the table: neither way are [N, D] values made on a CPU."""

    @staticmethod
    def forward(ctx: FunctionCtx, weight: Tensor, lookup: _Lookup) -> Tensor:
        ctx.lookup, ctx.shape = lookup, weight.shape  # type: ignore[attr-defined]
        # Sums, as for means torch has no fast kernel on a CPU.
        sums = functional.embedding_bag(lookup.rows, weight, lookup.begins, mode="sum", padding_idx=lookup.padding)
        return sums if lookup.field is None else sums.div_(lookup.counts.clamp(min=1).unsqueeze(1))

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        lookup: _Lookup = ctx.lookup  # type: ignore[attr-defined]
        if lookup.field is not None:
            gradient = gradient / lookup.counts.clamp(min=1).unsqueeze(1)
        sums = lookup.segments.sums(gradient.contiguous(), lookup.field)
        rows = lookup.segments.rows.long().unsqueeze(0)
        shape = ctx.shape  # type: ignore[attr-defined]
        return torch.sparse_coo_tensor(rows, sums, shape, check_invariants=False), None
