"""Optimisers: one over the rows of the embedding table (`training.row_optim`), one over the dense part.

Both are given gradients that are already summed over ranks. A step:

1. L1 and L2 are added to the gradient of the mean loss: it is then that of the whole objective
       L + Σ_table (λ₁·‖w‖₁ + λ₂/2·‖w‖²) + Σ_network (λ₁·‖w‖₁ + λ₂/2·‖w‖²)
2. the whole gradient is clipped
3. both parts are changed
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from training.row_optim import RowOptimConf, RowTable, penalised, row_optimiser

_FUSED_ON = ("cpu", "cuda")  # devices on which torch has all three in one pass


class _Conf(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DenseOptimConf(_Conf):
    """The dense part's: torch's own optimisers.

    Attributes:
        l1, l2: λ₁·‖w‖₁ + λ₂/2·‖w‖² beside the mean loss of the global batch, w being the weights of the network
            (`RankingModel.regularised_parameters`).
    """

    kind: Literal["adam", "adagrad", "sgd"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    l1: float = Field(default=0.0, ge=0)
    l2: float = Field(default=0.0, ge=0)


class OptimConf(_Conf):
    """Both, and the largest norm of the whole gradient, regularisation included (no clipping if None)."""

    embedding: RowOptimConf = RowOptimConf()
    dense: DenseOptimConf = DenseOptimConf()
    clip_norm: float | None = Field(default=None, gt=0)


class Rates(NamedTuple):
    """Learning rates of the two parts."""

    embedding: float
    dense: float


def dense_optimiser(parameters: Iterable[nn.Parameter], conf: DenseOptimConf) -> torch.optim.Optimizer:
    """The dense part's optimiser by conf; one pass over each parameter instead of one per term of its formula."""
    kinds: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": torch.optim.Adam,
        "adagrad": torch.optim.Adagrad,
        "sgd": torch.optim.SGD,
    }
    listed = list(parameters)
    fused = all(parameter.device.type in _FUSED_ON for parameter in listed)
    return kinds[conf.kind](listed, lr=conf.learning_rate, fused=fused)


class Optimiser:
    """Both optimisers as one; its state is flat, name → tensor, as checkpoints want it.

    Args:
        table: the embedding table.
        dense: every other parameter, in a fixed order.
        conf: settings.
        regularised: those of `dense` that L1 and L2 are about; all of them if None.
    """

    def __init__(
        self,
        table: RowTable,
        dense: Iterable[nn.Parameter],
        conf: OptimConf,
        *,
        regularised: Iterable[nn.Parameter] | None = None,
    ) -> None:
        self.conf = conf
        self.parameters = list(dense)
        self.rows = row_optimiser(table, conf.embedding)
        self.dense = dense_optimiser(self.parameters, conf.dense)
        self._regularised = list(self.parameters if regularised is None else regularised)

    @property
    def rates(self) -> Rates:
        """The present learning rates."""
        return Rates(self.rows.learning_rate, self.dense.param_groups[0]["lr"])

    @rates.setter
    def rates(self, rates: Rates) -> None:
        self.rows.learning_rate = rates.embedding
        self.dense.param_groups[0]["lr"] = rates.dense

    def step(self, rows: Tensor, gradient: Tensor) -> None:
        """One update of everything; dense gradients are taken from the parameters' `.grad`.

        Args:
            rows: [U] touched rows of the table, each once but for the padding row, whose gradient is 0.
            gradient: [U, C]. All gradients are of the loss, summed over ranks.
        """
        self.step_when(lambda: (rows, gradient))

    @torch.no_grad()
    def step_when(self, arrived: Callable[[], tuple[Tensor, Tensor]]) -> None:
        """`step`, with the table's gradient still on its way: unless clipping needs both, the dense part goes first.

        Args:
            arrived: waits for the rows and the gradient of `step`.
        """
        self._regularise_network()
        if self.conf.clip_norm is None:
            self.dense.step()
            self.rows.update(*self.rows.regularised(*arrived()))
            return
        rows, gradient = self.rows.regularised(*arrived())
        gradients = [p.grad for p in self.parameters if p.grad is not None] + [gradient]
        norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
        scale = (self.conf.clip_norm / (norm + 1e-12)).clamp(max=1.0)
        for one in gradients[:-1]:
            one.mul_(scale)
        self.rows.update(rows, gradient * scale)
        self.dense.step()

    def _regularise_network(self) -> None:
        conf = self.conf.dense
        if conf.l1 or conf.l2:
            for parameter in self._regularised:
                if parameter.grad is not None:
                    parameter.grad = penalised(parameter.grad, parameter.data, conf.l1, conf.l2)

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
