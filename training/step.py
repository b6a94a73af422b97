"""One training step, the same global step for any number of ranks.

1. forward on this rank's rows                                    → logits [n, T]
2. the weights of all ranks' rows are summed (one small all-reduce) → [T]
3. this rank's part of the loss, with those weights; backward
4. dense gradients summed over ranks in one buffer; the table's rows gathered, and summed by row
5. one update by gradients that every rank has alike

No value leaves the device: a step never waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.batch import Batch
from training.exchange import Exchange
from training.loss import total_loss, weighted_bce
from training.models import RankingModel
from training.optim import Optimiser


@dataclass(frozen=True, kw_only=True)
class StepLosses:
    """What a step's loss was made of.

    Attributes:
        sums: [T] of this rank, detached.
        weights: [T] of all ranks.
        flag: sum over ranks of the flag they gave (see `Learner.step`).
    """

    sums: Tensor
    weights: Tensor
    flag: Tensor


class Learner:
    """A model, its optimiser, and the ranks it learns with."""

    def __init__(self, model: RankingModel, optimiser: Optimiser, exchange: Exchange) -> None:
        self.model, self.optimiser, self.exchange = model, optimiser, exchange
        model.synchronise(exchange.sum_ if exchange.world.size > 1 else None)

    def step(self, batch: Batch, flag: bool = False) -> StepLosses:
        """Learn from one batch; `flag` travels with the weights, so that ranks can agree to stop."""
        logits = self.model(batch)
        labels, weights = self.model.targets(batch)
        weights = weights.to(logits.dtype)
        own = torch.cat([weights.sum(dim=0).double(), torch.full((1,), float(flag), device=weights.device).double()])
        total = self.exchange.sum_(own)
        weight_sums = total[:-1].to(logits.dtype)
        sums = weighted_bce(logits, labels.to(logits.dtype), weights)
        self._backward(total_loss(sums, weight_sums, self.model.task_weights.to(logits.dtype)))
        self._update()
        return StepLosses(sums=sums.detach(), weights=weight_sums, flag=total[-1])

    def _backward(self, loss: Tensor) -> None:
        self.model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]

    def _update(self) -> None:
        parameters = self.optimiser.parameters
        own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        for parameter, summed in zip(parameters, self.exchange.sum_many(own), strict=True):
            parameter.grad = summed
        table = self.model.table.weight.grad
        assert table is not None, "the embedding table takes part in every loss"
        table = table.coalesce()  # as it is already: autograd forgets that when it keeps the gradient
        self.optimiser.step(*self.exchange.sum_rows(table.indices()[0], table.values()))
