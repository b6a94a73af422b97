"""The sum of a step's gradients over ranks, while the step goes on.

    forward                the rows that this rank's batch touches are known, each once: their numbers leave
    backward               dense gradients leave in one buffer as soon as the last is there; lookups are behind them
    after backward         values of the rows leave
    update of dense part   needs the dense sums alone (with clipping: all)
    update of the table    rows of all ranks, added up in rank order

Row numbers travel as int32 where the table is small enough. Values may travel as float16: each row times a power of
two that brings its largest number below 1, with the exponent beside it. Gradients of a mean loss are too small for
float16 as they are.

S: rows that this rank touches, C: columns of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook

from training.exchange import Exchange
from training.modeling.embedding import EmbeddingTable
from training.row_sums import PADDING_ROW, RowSegments, by_row, by_row_fixed, row_type

Rows = tuple[Tensor, Tensor]
"""Rows [S] of the table, each once, and their gradients [S, C]."""
_EXPONENTS = (-120, 127)
"""Of two: neither the power nor its inverse overflows in float32."""


class ExchangeConf(BaseModel):
    """What travels between ranks.

    Attributes:
        values: gradients of the table as they are, or at half the bytes as float16, off by at most 2⁻¹¹ of the
            largest number of their row.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    values: Literal["full", "float16"] = "full"


class GradientExchange:
    """What a learner's gradients come to over all ranks. Per step: `looked_up`, a backward pass, `start`, the rest.

    Args:
        table: whose weight gets a sparse gradient.
        parameters: all others, with dense gradients.
        exchange, conf: with the other ranks.
        passes: backward passes per step. What may leave during one can do so only if it is the only one.

    Attributes:
        table_bytes: payload that this rank has handed over for the table so far, in bytes.
    """

    def __init__(
        self,
        table: EmbeddingTable,
        parameters: Sequence[nn.Parameter],
        exchange: Exchange,
        conf: ExchangeConf,
        passes: int = 1,
    ) -> None:
        self._table, self._parameters, self._exchange, self._conf = table, tuple(parameters), exchange, conf
        self._once, self._alone = passes == 1, exchange.world.size == 1
        self.table_bytes = 0
        self._own: Rows | None = None
        self._numbers: Callable[[], Tensor] | None = None
        self._values: Callable[[], Tensor] | None = None
        self._dense: Callable[[], list[Tensor]] | None = None
        if self._once and not self._alone and self._parameters:
            register_multi_grad_hook(self._parameters, self._in_backward)

    def looked_up(self) -> None:
        """After a forward pass: the rows that its gradient will have are known."""
        if self._once and not self._alone:
            assert self._table.touched is not None
            self._numbers = self._sent(self._real(self._table.touched))

    def start(self) -> None:
        """After the last backward pass: everything leaves that has not left yet."""
        gradient = self._table.weight.grad
        assert gradient is not None, "the embedding table takes part in every loss"
        # Not `coalesce`, which would sort them once more: a lookup's gradient has each row once.
        rows, values = gradient._indices()[0], gradient._values()
        if not self._once:
            group = self._group(rows)
            rows, values = group.rows, group.sums(values)
        self._own = rows, values
        if self._alone:
            return
        if self._dense is None:
            self._send_dense([parameter.grad for parameter in self._parameters])
        real = self._real(rows)
        if self._numbers is None:
            self._numbers = self._sent(real.to(row_type(len(self._table.weight))))
        values = values[: len(real)]
        self._values = self._sent(packed(values) if self._conf.values == "float16" else values)

    def sum_dense(self) -> None:
        """Each parameter's `.grad` becomes the sum over ranks; 0 where no rank has one."""
        if self._dense is None:
            sums = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        else:
            sums, self._dense = self._dense(), None
        for parameter, summed in zip(self._parameters, sums, strict=True):
            parameter.grad = summed

    def sum_rows(self) -> Rows:
        """The rows that any rank has touched, and the sums of their gradients."""
        assert self._own is not None, "`start` comes first"
        (rows, values), self._own = self._own, None
        if self._numbers is None or self._values is None:
            return rows, values
        group, arrived = self._group(self._numbers()), self._values
        self._numbers = self._values = None
        of_all = arrived()
        of_all = unpacked(of_all, values.dtype) if self._conf.values == "float16" else of_all
        return group.rows.long(), group.sums(of_all)

    def _in_backward(self, gradients: Sequence[Tensor | None]) -> None:
        """All dense gradients of a backward pass are there; one that is no part of a step is nobody else's business."""
        if self._numbers is not None:
            self._send_dense(gradients)

    def _send_dense(self, gradients: Sequence[Tensor | None]) -> None:
        pairs = zip(self._parameters, gradients, strict=True)
        self._dense = self._exchange.start_sum_many([torch.zeros_like(p) if g is None else g for p, g in pairs])

    def _group(self, rows: Tensor) -> RowSegments:
        return by_row_fixed(rows) if self._table.has_fixed_sizes else by_row(rows)

    def _real(self, rows: Tensor) -> Tensor:
        """Without the room left over: what is sent has the size that it needs, and the host waits to know it."""
        return rows[: int((rows != PADDING_ROW).sum())] if self._table.has_fixed_sizes else rows

    def _sent(self, tensor: Tensor) -> Callable[[], Tensor]:
        self.table_bytes += tensor.nbytes
        return self._exchange.start_gather_rows(tensor)


def packed(values: Tensor) -> Tensor:
    """[S, C] → [S, C + 1] float16: each row over a power of two, so that it is in (−1, 1), and the exponent."""
    _, exponent = torch.frexp(values.abs().amax(dim=1, keepdim=True))
    exponent = exponent.clamp(*_EXPONENTS)
    return torch.cat([torch.ldexp(values, -exponent), exponent], dim=1).to(torch.float16)


def unpacked(values: Tensor, dtype: torch.dtype) -> Tensor:
    """The inverse of `packed`, up to rounding."""
    values = values.to(dtype)
    return torch.ldexp(values[:, :-1], values[:, -1:])
