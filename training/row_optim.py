"""Optimisers of the embedding table.

They are given gradients that are already summed over ranks, so that state and regularisation apply once per row and
step, whatever the number of ranks or of times a row occurs. Lazy ones (the default) cost what the touched rows cost,
never the table; `lazy: false` is torch's optimiser over all rows at every step.

R: rows of the table, U: touched rows, C: columns. A *block* is a group of columns that share an accumulator:
the D embedding columns, and the one linear column, whose gradients differ in size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from training.memory import row_zeros


class RowOptimConf(BaseModel):
    """The embedding table's.

    Attributes:
        kind: lazy, Adagrad has one accumulator per row and Adam's moments decay only where a row is touched.
        lazy: change only the rows that a batch touches; if not, torch's optimiser changes all rows at every step.
        l1, l2: λ₁·‖w‖₁ + λ₂/2·‖w‖² beside the mean loss of the global batch, each row once per step.
        regularise: w is the rows that the batch touches, or all rows.
        betas, epsilon: of Adam, and of Adam and Adagrad.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["adagrad", "adam", "sgd"] = "adagrad"
    lazy: bool = True
    learning_rate: float = Field(default=0.05, gt=0)
    l1: float = Field(default=0.0, ge=0)
    l2: float = Field(default=0.0, ge=0)
    regularise: Literal["touched", "all"] = "touched"
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = Field(default=1e-8, gt=0)

    @model_validator(mode="after")
    def _all_rows_need_a_dense_optimiser(self) -> Self:
        if self.regularise == "all" and self.lazy:
            raise ValueError(
                "regularise: all needs lazy: false; a lazy optimiser changes only the rows of the batch, "
                "so that the others would never feel it"
            )
        return self


class RowTable(Protocol):
    """What an optimiser knows of an embedding table: its weight [R, C], and the widths of its blocks."""

    @property
    def weight(self) -> nn.Parameter: ...

    @property
    def blocks(self) -> Sequence[int]: ...


class RowOptimiser(ABC):
    """Updates rows of a table [R, C] in place.

    Attributes:
        learning_rate: the present one.
        state: name → tensor whose first dimension is R, so that it grows, and is cut, with the table.
    """

    def __init__(self, weight: nn.Parameter, conf: RowOptimConf) -> None:
        self.weight, self.conf, self.learning_rate = weight, conf, conf.learning_rate
        self.state: dict[str, Tensor] = {}
        self.steps = torch.zeros((), dtype=torch.int64)

    def step(self, rows: Tensor, gradient: Tensor) -> None:
        """One update by the gradient of the loss without regularisation; arguments as of `regularised`."""
        self.update(*self.regularised(rows, gradient))

    @torch.no_grad()
    def regularised(self, rows: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of the whole objective: what `update` wants.

        Args:
            rows: [U] distinct rows; only the padding row, which is 0, may be there more than once.
            gradient: [U, C] their gradients, summed over ranks; of padding 0, so that nothing changes.

        Returns:
            The rows that will change, and their gradients.
        """
        if self.conf.l1 or self.conf.l2:
            gradient = penalised(gradient, self.weight.index_select(0, rows), self.conf.l1, self.conf.l2)
        return rows, gradient

    @abstractmethod
    def update(self, rows: Tensor, gradient: Tensor) -> None:
        """Change the rows that `regularised` gave. Updates `state` and `steps`."""


class LazyRows(RowOptimiser):
    """Changes the touched rows alone."""

    @torch.no_grad()
    def update(self, rows: Tensor, gradient: Tensor) -> None:
        """See `RowOptimiser.update`."""
        self.steps += 1
        self.weight.index_copy_(0, rows, self.weight.index_select(0, rows).sub_(self._change(rows, gradient)))

    @abstractmethod
    def _change(self, rows: Tensor, gradient: Tensor) -> Tensor:
        """What to subtract from the rows: [U, C]. Updates `state`."""


def penalised(gradient: Tensor, weight: Tensor, l1: float, l2: float) -> Tensor:
    """Gradient + that of λ₁·‖w‖₁ + λ₂/2·‖w‖²; at w = 0 the subgradient of ‖w‖₁ is taken as 0."""
    if l2:
        gradient = gradient.add(weight, alpha=l2)
    return gradient.add(weight.sign(), alpha=l1) if l1 else gradient


class RowSGD(LazyRows):
    """w ← w − lr · g."""

    def _change(self, rows: Tensor, gradient: Tensor) -> Tensor:  # noqa: ARG002 - it has no state
        return self.learning_rate * gradient


class RowAdagrad(LazyRows):
    """Adagrad with one accumulator per row and block (Duchi et al. 2011; row-wise as in FBGEMM).

    With g the row's gradient in a block of d columns:
    G ← G + Σ_j g_j² / d,   w ← w − lr · g / (√G + ε).
    """

    def __init__(self, weight: nn.Parameter, blocks: Sequence[int], conf: RowOptimConf) -> None:
        super().__init__(weight, conf)
        self._blocks = tuple(blocks)
        self.state["squares"] = row_zeros((weight.shape[0], len(self._blocks)), like=weight)

    def _change(self, rows: Tensor, gradient: Tensor) -> Tensor:
        means = [block.square().mean(dim=1) for block in torch.split(gradient, list(self._blocks), dim=1)]
        squares = self.state["squares"].index_select(0, rows) + torch.stack(means, dim=1)
        self.state["squares"].index_copy_(0, rows, squares)
        scale = self.learning_rate / (squares.sqrt() + self.conf.epsilon)
        parts = zip(torch.split(gradient, list(self._blocks), dim=1), scale.unbind(dim=1), strict=True)
        return torch.cat([part * factor.unsqueeze(1) for part, factor in parts], dim=1)


class LazyAdam(LazyRows):
    """Adam whose moments decay only when their row is touched (as torch.optim.SparseAdam).

    m ← β₁ m + (1 − β₁) g,   v ← β₂ v + (1 − β₂) g²,
    w ← w − lr · √(1 − β₂ᵗ) / (1 − β₁ᵗ) · m / (√v + ε), with t the number of steps of the whole table.
    """

    def __init__(self, weight: nn.Parameter, conf: RowOptimConf) -> None:
        super().__init__(weight, conf)
        self.state = {name: row_zeros(weight.shape, like=weight) for name in ("mean", "square")}

    def _change(self, rows: Tensor, gradient: Tensor) -> Tensor:
        first, second = self.conf.betas
        mean = torch.lerp(gradient, self.state["mean"].index_select(0, rows), first)
        square = torch.lerp(gradient.square(), self.state["square"].index_select(0, rows), second)
        self.state["mean"].index_copy_(0, rows, mean)
        self.state["square"].index_copy_(0, rows, square)
        steps = self.steps.to(torch.float64)
        correction = ((1 - second**steps).sqrt() / (1 - first**steps)).to(gradient.dtype)
        return self.learning_rate * correction * mean / (square.sqrt() + self.conf.epsilon)


class WholeTable(RowOptimiser):
    """torch's own optimiser over all rows; a row that no one touched has the gradient of its regularisation, or 0."""

    def __init__(self, weight: nn.Parameter, conf: RowOptimConf) -> None:
        super().__init__(weight, conf)
        self._every = torch.arange(weight.shape[0], device=weight.device)
        self._torch = _torch_optimiser(weight, conf)
        if conf.kind == "adam":  # torch makes it in the first step only: too late for what a checkpoint holds
            moments = {name: torch.zeros_like(weight.data) for name in ("exp_avg", "exp_avg_sq")}
            self._torch.state[weight] = {"step": torch.zeros(()), **moments}
        own = self._torch.state[weight] if conf.kind != "sgd" else {}
        self.state = {name: value for name, value in own.items() if name != "step"}

    def regularised(self, rows: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """See `RowOptimiser.regularised`: [R] all rows, [R, C]."""
        of_all = self.conf.regularise == "all"
        if not of_all:
            rows, gradient = super().regularised(rows, gradient)
        spread = torch.zeros_like(self.weight.data).index_copy_(0, rows, gradient)
        return self._every, penalised(spread, self.weight.data, self.conf.l1, self.conf.l2) if of_all else spread

    @torch.no_grad()
    def update(self, rows: Tensor, gradient: Tensor) -> None:  # noqa: ARG002 - it is all of them
        """See `RowOptimiser.update`."""
        if "step" in self._torch.state[self.weight]:
            self._torch.state[self.weight]["step"].copy_(self.steps)
        self.steps += 1
        self._torch.param_groups[0]["lr"] = self.learning_rate
        self.weight.grad = gradient
        self._torch.step()
        self.weight.grad = None


def _torch_optimiser(weight: nn.Parameter, conf: RowOptimConf) -> torch.optim.Optimizer:
    if conf.kind == "adam":
        return torch.optim.Adam([weight], lr=conf.learning_rate, betas=conf.betas, eps=conf.epsilon)
    if conf.kind == "adagrad":
        return torch.optim.Adagrad([weight], lr=conf.learning_rate, eps=conf.epsilon)
    return torch.optim.SGD([weight], lr=conf.learning_rate)


def row_optimiser(table: RowTable, conf: RowOptimConf) -> RowOptimiser:
    """The table's optimiser by conf."""
    if not conf.lazy:
        return WholeTable(table.weight, conf)
    made: Mapping[str, Callable[[], RowOptimiser]] = {
        "adagrad": lambda: RowAdagrad(table.weight, table.blocks, conf),
        "adam": lambda: LazyAdam(table.weight, conf),
        "sgd": lambda: RowSGD(table.weight, conf),
    }
    return made[conf.kind]()
