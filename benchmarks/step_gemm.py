"""The matrix products of a step alone: no bias, no activation, no lookup, no update; what no step can do without.

Per layer of k inputs and m outputs over n rows (rows, or rows times events in DIN's activation unit):
    forward [n, k] · [k, m], gradient of the weight [m, n] · [n, k], gradient of the input [n, m] · [m, k]
Results go into memory that is there already.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from benchmarks.step_arms import ATTENTION, DIM, EVENTS, FIELDS, HIDDEN, ArmSpec


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """Operands of one layer, and where its products go."""

    inputs: Tensor
    weight: Tensor
    gradient: Tensor
    forward: Tensor
    of_weight: Tensor
    of_inputs: Tensor


def widths_of(spec: ArmSpec) -> list[tuple[int, list[int]]]:
    """(rows of its matrices, widths from input to output) of every network of the model."""
    fields = FIELDS + (spec.model == "din")
    networks = [(spec.batch, [fields * DIM, *HIDDEN, 1])]
    if spec.model == "din":
        networks.append((spec.batch * EVENTS, [4 * DIM, *ATTENTION, 1]))
    return networks


def flops_of(spec: ArmSpec) -> int:
    """Multiplications and additions of a step's products."""
    return sum(6 * rows * k * m for rows, widths in widths_of(spec) for k, m in pairwise(widths))


class GemmStep:
    """See `Stepper`; it has no loss."""

    def __init__(self, spec: ArmSpec) -> None:
        self._layers = [_layer(rows, k, m, spec) for rows, widths in widths_of(spec) for k, m in pairwise(widths)]
        self._loss = torch.zeros((), device=spec.device)

    @torch.no_grad()
    def step(self, _number: int) -> Tensor:
        """See `Stepper`."""
        for one in self._layers:
            torch.mm(one.inputs, one.weight.t(), out=one.forward)
        for one in reversed(self._layers):
            torch.mm(one.gradient.t(), one.inputs, out=one.of_weight)
            torch.mm(one.gradient, one.weight, out=one.of_inputs)
        return self._loss


def _layer(rows: int, k: int, m: int, spec: ArmSpec) -> _Layer:
    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=spec.torch_dtype, device=spec.device)

    return _Layer(
        inputs=drawn(rows, k),
        weight=drawn(m, k),
        gradient=drawn(rows, m),
        forward=drawn(rows, m),
        of_weight=drawn(m, k),
        of_inputs=drawn(rows, k),
    )


def make(spec: ArmSpec) -> GemmStep:
    """See `Stepper`."""
    return GemmStep(spec)
