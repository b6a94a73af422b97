"""One training step, the same global step for any number of ranks.

1. labels and weights of this rank's rows; what the ranks must count together goes into one small all-reduce:
   weights per target [T], terms of an auxiliary loss [1], whether anyone wants to stop [1], rows per display
   position [P]
2. forward → logits [n, T]
3. this rank's part of the loss, with the weights of all; backward
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
        labels, weights = self.model.targets(batch)
        totals, terms, flags, positions = self._counted_together(weights.sum(dim=0), flag, batch)
        if self.model.position is not None and batch.position is not None:
            self.model.position.global_counts = positions
        logits, auxiliary = self.model.with_auxiliary(batch)
        weights, weight_sums = weights.to(logits.dtype), totals.to(logits.dtype)
        sums = weighted_bce(logits, labels.to(logits.dtype), weights)
        loss = total_loss(sums, weight_sums, self.model.task_weights.to(logits.dtype))
        if auxiliary is not None:
            loss = loss + self.model.auxiliary_weight * auxiliary / terms.to(logits.dtype).clamp(min=1)
        self._backward(loss)
        self._update()
        return StepLosses(sums=sums.detach(), weights=weight_sums, flag=flags)

    def _counted_together(self, weights: Tensor, flag: bool, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Sums over ranks in float64: weights [T], auxiliary terms [], flags [], rows per position [P]."""
        tower = self.model.position
        positions = weights.new_zeros(0) if tower is None or batch.position is None else tower.counts(batch.position)
        alone = torch.stack([self.model.auxiliary_terms(batch).double(), weights.new_tensor(float(flag)).double()])
        own = [weights.double(), alone, positions.double()]
        totals, both, counts = torch.split(self.exchange.sum_(torch.cat(own)), [len(part) for part in own])
        return totals, both[0], both[1], counts

    def _backward(self, loss: Tensor) -> None:
        self.model.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)

    def _update(self) -> None:
        parameters = self.optimiser.parameters
        own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        for parameter, summed in zip(parameters, self.exchange.sum_many(own), strict=True):
            parameter.grad = summed
        table = self.model.table.weight.grad
        assert table is not None, "the embedding table takes part in every loss"
        table = table.coalesce()  # as it is already: autograd forgets that when it keeps the gradient
        self.optimiser.step(*self.exchange.sum_rows(table.indices()[0], table.values()))
