"""Optimisers: one over the rows of the embedding table that a step touched, one over the dense part.

Both are given gradients that are already summed over ranks, so that state and L2 apply once per row and
step, whatever the number of ranks or of times a row occurs. The cost of a step is that of the touched rows,
never of the table.

R: rows of the table, U: touched rows, C: columns. A *block* is a group of columns that share an accumulator:
the D embedding columns, and the one linear column, whose gradients differ in size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn


class _Conf(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RowOptimConf(_Conf):
    """The embedding table's: `l2` pulls touched rows towards 0, once per step."""

    kind: Literal["adagrad", "adam"] = "adagrad"
    learning_rate: float = Field(default=0.05, gt=0)
    l2: float = Field(default=0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = Field(default=1e-8, gt=0)


class DenseOptimConf(_Conf):
    """The dense part's: torch's own optimisers; `l2` is their weight_decay."""

    kind: Literal["adam", "adagrad", "sgd"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    l2: float = Field(default=0.0, ge=0)


class OptimConf(_Conf):
    """Both, and the largest norm of the whole gradient (no clipping if None)."""

    embedding: RowOptimConf = RowOptimConf()
    dense: DenseOptimConf = DenseOptimConf()
    clip_norm: float | None = Field(default=None, gt=0)


class RowTable(Protocol):
    """What an optimiser knows of an embedding table: its weight [R, C], and the widths of its blocks."""

    @property
    def weight(self) -> nn.Parameter: ...

    @property
    def blocks(self) -> Sequence[int]: ...


class RowOptimiser(ABC):
    """Updates touched rows of a table [R, C] in place.

    Attributes:
        state: name → tensor whose first dimension is R, so that it grows, and is cut, with the table.
    """

    def __init__(self, weight: nn.Parameter, conf: RowOptimConf) -> None:
        self.weight, self.conf = weight, conf
        self.state: dict[str, Tensor] = {}
        self.steps = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def step(self, rows: Tensor, gradient: Tensor) -> None:
        """One update.

        Args:
            rows: [U] distinct rows.
            gradient: [U, C] their gradients, summed over ranks.
        """
        self.steps += 1
        values = self.weight.index_select(0, rows)
        if self.conf.l2:
            gradient = gradient + self.conf.l2 * values
        self.weight.index_copy_(0, rows, values - self._update(rows, gradient))

    @abstractmethod
    def _update(self, rows: Tensor, gradient: Tensor) -> Tensor:
        """What to subtract from the rows: [U, C]. Updates `state`."""


class RowAdagrad(RowOptimiser):
    """Adagrad with one accumulator per row and block (Duchi et al. 2011; row-wise as in FBGEMM).

    With g the row's gradient in a block of d columns:
    G ← G + Σ_j g_j² / d,   w ← w − lr · g / (√G + ε).
    """

    def __init__(self, weight: nn.Parameter, blocks: Sequence[int], conf: RowOptimConf) -> None:
        super().__init__(weight, conf)
        self._blocks = tuple(blocks)
        self.state["squares"] = weight.new_zeros(weight.shape[0], len(self._blocks))

    def _update(self, rows: Tensor, gradient: Tensor) -> Tensor:
        means = [block.square().mean(dim=1) for block in torch.split(gradient, list(self._blocks), dim=1)]
        squares = self.state["squares"].index_select(0, rows) + torch.stack(means, dim=1)
        self.state["squares"].index_copy_(0, rows, squares)
        scale = self.conf.learning_rate / (squares.sqrt() + self.conf.epsilon)
        widths = torch.tensor(self._blocks, device=gradient.device)
        return gradient * scale.repeat_interleave(widths, dim=1, output_size=gradient.shape[1])


class LazyAdam(RowOptimiser):
    """Adam whose moments decay only when their row is touched (as torch.optim.SparseAdam).

    m ← β₁ m + (1 − β₁) g,   v ← β₂ v + (1 − β₂) g²,
    w ← w − lr · √(1 − β₂ᵗ) / (1 − β₁ᵗ) · m / (√v + ε), with t the number of steps of the whole table.
    """

    def __init__(self, weight: nn.Parameter, conf: RowOptimConf) -> None:
        super().__init__(weight, conf)
        self.state = {"mean": torch.zeros_like(weight.data), "square": torch.zeros_like(weight.data)}

    def _update(self, rows: Tensor, gradient: Tensor) -> Tensor:
        first, second = self.conf.betas
        mean = torch.lerp(gradient, self.state["mean"].index_select(0, rows), first)
        square = torch.lerp(gradient.square(), self.state["square"].index_select(0, rows), second)
        self.state["mean"].index_copy_(0, rows, mean)
        self.state["square"].index_copy_(0, rows, square)
        steps = self.steps.to(torch.float64)
        correction = ((1 - second**steps).sqrt() / (1 - first**steps)).to(gradient.dtype)
        return self.conf.learning_rate * correction * mean / (square.sqrt() + self.conf.epsilon)


def row_optimiser(table: RowTable, conf: RowOptimConf) -> RowOptimiser:
    """The table's optimiser by conf."""
    if conf.kind == "adagrad":
        return RowAdagrad(table.weight, table.blocks, conf)
    return LazyAdam(table.weight, conf)


def dense_optimiser(parameters: Iterable[nn.Parameter], conf: DenseOptimConf) -> torch.optim.Optimizer:
    """The dense part's optimiser by conf."""
    kinds: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": torch.optim.Adam,
        "adagrad": torch.optim.Adagrad,
        "sgd": torch.optim.SGD,
    }
    return kinds[conf.kind](list(parameters), lr=conf.learning_rate, weight_decay=conf.l2)


class Optimiser:
    """Both optimisers as one; its state is flat, name → tensor, as checkpoints want it."""

    def __init__(self, table: RowTable, dense: Iterable[nn.Parameter], conf: OptimConf) -> None:
        self.conf = conf
        self.parameters = list(dense)
        self.rows = row_optimiser(table, conf.embedding)
        self.dense = dense_optimiser(self.parameters, conf.dense)

    @torch.no_grad()
    def step(self, rows: Tensor, gradient: Tensor) -> None:
        """One update of everything; dense gradients are taken from the parameters' `.grad`.

        Args:
            rows: [U] touched rows of the table. gradient: [U, C]. All gradients are summed over ranks.
        """
        if self.conf.clip_norm is not None:
            gradients = [p.grad for p in self.parameters if p.grad is not None] + [gradient]
            norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
            scale = (self.conf.clip_norm / (norm + 1e-12)).clamp(max=1.0)
            for one in gradients[:-1]:
                one.mul_(scale)
            gradient = gradient * scale
        self.rows.step(rows, gradient)
        self.dense.step()

    def state_dict(self) -> dict[str, Tensor]:
        """Every state tensor: `rows.<name>`, `rows.steps`, `dense.<parameter number>.<name>`."""
        flat = {f"rows.{name}": value for name, value in self.rows.state.items()}
        flat["rows.steps"] = self.rows.steps
        for number, state in self.dense.state_dict()["state"].items():
            flat |= {f"dense.{number}.{name}": value for name, value in state.items() if isinstance(value, Tensor)}
        return flat

    @torch.no_grad()
    def load_state_dict(self, flat: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            KeyError: if the state is of another kind of optimiser.
        """
        for name, value in self.rows.state.items():
            value.copy_(flat[f"rows.{name}"])
        self.rows.steps.copy_(flat["rows.steps"])
        restored = self.dense.state_dict()
        restored["state"] = {}
        for name, value in flat.items():
            part, number, *rest = name.split(".", 2)
            if part == "dense":
                restored["state"].setdefault(int(number), {})[rest[0]] = value.clone()
        self.dense.load_state_dict(restored)
