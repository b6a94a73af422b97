"""Values added up by row number, each row once: what makes of a batch's lookups one gradient per row of the table.

N: lookups, S: rows that the result has room for, V: rows of values, D: columns.

1. lookups in the order of their rows                  → [N] order
2. a row begins where a number differs from the last   → [N] bool, and its running count
3. per row, where its lookups begin                    → rows [S], starts [S]
4. sums of the values that they point to               → [S, D]

On a CPU S is the number of distinct rows. On any other device no shape depends on the data, since the host would have
to wait for it: S = N, and the room that is left over names the padding row with the sum 0, which changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from features.manifest import PADDING_ID

PADDING_ROW = PADDING_ID
"""Row 0 of a table: the padding of its first vocabulary. It is zero, and no lookup reads it."""


@dataclass(frozen=True, kw_only=True)
class RowSegments:
    """Lookups, those of a row side by side.

    Attributes:
        rows: [S] distinct rows, ascending, then the padding row as often as there is room left over.
        order: [N] lookups in the order of their rows.
        starts: [S] the place in `order` where a row's lookups begin; None where sizes are fixed.
        slots: [N] where sizes are fixed: to which of `rows` each of `order` belongs; otherwise None.
        counted: [N] where sizes are fixed: whether each of `order` is a lookup at all, and not padding.
    """

    rows: Tensor
    order: Tensor
    starts: Tensor | None = None
    slots: Tensor | None = None
    counted: Tensor | None = None

    @torch.no_grad()
    def sums(self, values: Tensor, source: Tensor | None = None) -> Tensor:
        """Add up values by row.

        Args:
            values: [V, D].
            source: [N] which of them belongs to each lookup; its own (V = N) if None.

        Returns:
            [S, D]. Values of a row are added in the order of its lookups on a CPU; elsewhere in no certain order.
        """
        picked = self.order if source is None else source.index_select(0, self.order)
        if self.starts is not None:
            if not len(picked):
                return values.new_zeros(0, values.shape[1])
            return functional.embedding_bag(picked, values, self.starts, mode="sum")
        assert self.slots is not None
        assert self.counted is not None
        counted = values.index_select(0, picked) * self.counted.to(values.dtype).unsqueeze(1)
        return torch.zeros_like(counted).index_add_(0, self.slots, counted)


@torch.no_grad()
def by_row(rows: Tensor) -> RowSegments:
    """Group lookups, none of which is padding, by row; sizes are exact.

    Args:
        rows: [N] int32 or int64; the former is sorted twice as fast.
    """
    ascending, order = rows.sort(stable=True)
    starts = _begins(ascending).nonzero().squeeze(1)
    kind = rows.dtype  # of all indices alike, or torch would bring them to one at each use
    return RowSegments(rows=ascending.index_select(0, starts), order=order.to(kind), starts=starts.to(kind))


@torch.no_grad()
def by_row_fixed(rows: Tensor) -> RowSegments:
    """Group lookups by row; no size depends on the data.

    Args:
        rows: [N] int32 or int64; the padding row stands for no lookup at all.
    """
    last = torch.iinfo(rows.dtype).max
    ascending, order = rows.where(rows != PADDING_ROW, last).sort(stable=True)
    counted = ascending != last
    segment = _begins(ascending).cumsum(dim=0) - 1
    # Padding comes last: each gets a slot of its own, as a GPU adds slowly where many meet in one.
    slots = torch.where(counted, segment, torch.arange(len(rows), device=rows.device))
    distinct = torch.full_like(ascending, PADDING_ROW).scatter_(0, slots, ascending.where(counted, PADDING_ROW))
    return RowSegments(rows=distinct, order=order, slots=slots, counted=counted)


def row_type(table_rows: int) -> torch.dtype:
    """The smallest type of row numbers, and one number more."""
    return torch.int32 if table_rows <= torch.iinfo(torch.int32).max else torch.int64


def _begins(ascending: Tensor) -> Tensor:
    """[N] bool: whether a number differs from the one before it."""
    begins = torch.ones_like(ascending, dtype=torch.bool)
    begins[1:] = ascending[1:] != ascending[:-1]
    return begins
