"""The shared embedding table, and growing it without changing a prediction.

n: rows of a batch, C: columns of ids, M: fields (each one or more columns), N: ids that are not padding,
U: distinct table rows among them, D: embedding dim.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional

from features.manifest import PADDING_ID, TrainSet

INITIAL_STD = 0.01
DENSE_MARKS_UP_TO = 16  # times N: a larger table finds its distinct rows by sorting instead of by marking


class EmbeddingTable(nn.Module):
    """All vocabularies in one table; the row of id i of vocabulary v is offset(v) + i.

    The weight is [R, D] or, with `linear`, [R, D + 1]: the last column is the id's weight in a linear term,
    so that both travel in one sparse gradient; with dim 0 it is the only one. Rows of padding are zero, and stay so:
    they are never read.

    Attributes:
        weight: [R, D (+1)]; its gradient is sparse and coalesced.
        blocks: widths of the groups of columns that keep optimiser state of their own: (D,), (D, 1) or (1,).
    """

    def __init__(self, inputs: TrainSet, dim: int, *, linear: bool) -> None:
        super().__init__()
        self.dim = dim
        self.offsets = inputs.offsets()
        self.blocks = tuple(width for width in (dim, int(linear)) if width)
        weight = torch.zeros(inputs.table_rows(), sum(self.blocks))
        nn.init.normal_(weight[:, :dim], std=INITIAL_STD)
        weight[[start + PADDING_ID for start in self.offsets.values()]] = 0.0
        self.weight = nn.Parameter(weight)

    def forward(self, ids: Tensor, offsets: Tensor, widths: Sequence[int]) -> Tensor:
        """The mean of each field's rows; a field of one id is its row, a field of padding is zero.

        Args:
            ids: [n, C] ids, each within its column's vocabulary.
            offsets: [C] first row of each column's vocabulary.
            widths: columns of each field, M of them, adding up to C.

        Returns:
            [n, M, D (+1)].
        """
        if self.training:
            return self._means_of_distinct(ids, offsets, widths)
        return self._means(ids, offsets, widths)

    def _means(self, ids: Tensor, offsets: Tensor, widths: Sequence[int]) -> Tensor:
        """The definition, without a shape that depends on the data: this is what is exported."""
        present = (ids != PADDING_ID).to(self.weight.dtype).unsqueeze(-1)
        rows = functional.embedding(ids + offsets, self.weight) * present
        sums = [field.sum(dim=1) for field in torch.split(rows, list(widths), dim=1)]
        counts = [field.sum(dim=1).clamp(min=1) for field in torch.split(present, list(widths), dim=1)]
        return torch.stack(sums, dim=1) / torch.stack(counts, dim=1)

    def _means_of_distinct(self, ids: Tensor, offsets: Tensor, widths: Sequence[int]) -> Tensor:
        """The same with a coalesced gradient: the work and memory of [N, D] values are never spent.

        1. ids that are not padding, row by row          → [N] table rows, [n M] ends of the fields
        2. distinct ones                                 → [U] table rows, [N] places among them
        3. their weights, the one place with a gradient  → [U, D]
        4. mean of each field                            → [n M, D]
        """
        present = ids != PADDING_ID
        flat = (ids + offsets)[present]
        counts = torch.stack([field.sum(dim=1) for field in torch.split(present, list(widths), dim=1)], dim=1).flatten()
        distinct, places = distinct_rows(flat, self.weight.shape[0])
        rows = _SelectRows.apply(self.weight, distinct)  # type: ignore[no-untyped-call]
        means = functional.embedding_bag(places, rows, counts.cumsum(dim=0) - counts, mode="mean")
        return means.view(len(ids), len(widths), -1)


class _SelectRows(torch.autograd.Function):
    """Distinct rows of a table; their gradient is sparse, and coalesced as it is."""

    @staticmethod
    def forward(ctx: FunctionCtx, weight: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = weight.shape  # type: ignore[attr-defined]
        return weight.index_select(0, rows)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors  # type: ignore[attr-defined]
        shape = ctx.shape  # type: ignore[attr-defined]
        sparse = torch.sparse_coo_tensor(rows.unsqueeze(0), gradient, shape, is_coalesced=True, check_invariants=False)
        return sparse, None


def distinct_rows(rows: Tensor, table_rows: int) -> tuple[Tensor, Tensor]:
    """Distinct values of [N] rows in [0, table_rows), ascending [U], and the place of each row in them [N]."""
    if table_rows > DENSE_MARKS_UP_TO * len(rows):
        distinct, places = torch.unique(rows, return_inverse=True)
        return distinct, places
    marked = torch.zeros(table_rows, dtype=torch.bool, device=rows.device)
    marked[rows] = True
    return marked.nonzero().squeeze(1), (marked.cumsum(dim=0) - 1)[rows]
