"""One training step, the same global step for any number of ranks.

1. labels and weights of this rank's rows; what the ranks must count together goes into one small all-reduce:
   weights per target [T], terms of an auxiliary loss [1], whether anyone wants to stop [1], losses so far that were
   no numbers [1], rows per display position [P]. It is on its way during 2: a rank that is late is waited for once
   per step, at its end, and not at its beginning, too (with display positions or batch norm: within 2)
2. forward → logits [n, T]
3. this rank's part of the loss, with the weights of all; backward (2 and 3 once per part with `accumulate`)
4. gradients summed over ranks, on their way during 3 and 5 (`training.gradients`)
5. one update by gradients that every rank has alike

No value leaves the device: a step never waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from features.errors import MAX_EXAMPLES, ConfError
from training.batch import Batch
from training.exchange import Exchange
from training.gradients import ExchangeConf, GradientExchange
from training.loss import total_loss, weighted_bce
from training.modeling.layers import CrossRank
from training.models import RankingModel
from training.optim import Optimiser
from training.parts import Named, Part, unheard


@dataclass(frozen=True, kw_only=True)
class StepLosses:
    """What a step's loss was made of.

    Attributes:
        sums: [T] of this rank, detached.
        weights: [T] of all ranks.
        flag: sum over ranks of the flag they gave (see `Learner.step`).
        finite: [] bool, whether this rank's part of the loss is a number.
        finite_rows: [n] bool, whether all logits of a row of this rank are.
        diverged: over all ranks, how many parts of the losses of EARLIER steps were not.
    """

    sums: Tensor
    weights: Tensor
    flag: Tensor
    finite: Tensor
    finite_rows: Tensor
    diverged: Tensor


@dataclass(frozen=True, kw_only=True)
class _Counts:
    """What ranks count together, in float64: weights [T], auxiliary terms, flags, bad losses, rows per position [P]."""

    weights: Tensor
    terms: Tensor
    flag: Tensor
    diverged: Tensor
    positions: Tensor


class _Part(NamedTuple):
    """Some of a step's rows after their backward pass: loss sums [T], the part of the loss [], logits [n, T]."""

    sums: Tensor
    loss: Tensor
    logits: Tensor


class Learner:
    """A model, its optimiser, and the ranks it learns with.

    Args:
        model, optimiser, exchange: these.
        accumulate: parts that a step's rows are taken through the model in, one after the other, so that the memory
            of one part is enough. Every part's loss is divided by the counts of the whole global batch: the
            gradient is the same, up to rounding, as in one part.
        conf: what of the gradients travels.

    Attributes:
        gradients: their sums over ranks.
        diverged: [] how many of this rank's losses were not numbers, so far.
        part: is told which part of a step begins (see training.parts).

    Raises:
        ConfError: `accumulate` above 1 for a model with statistics of the batch: those of a part are others.
    """

    def __init__(
        self,
        model: RankingModel,
        optimiser: Optimiser,
        exchange: Exchange,
        accumulate: int = 1,
        conf: ExchangeConf | None = None,
    ) -> None:
        self.model, self.optimiser, self.exchange, self.accumulate = model, optimiser, exchange, accumulate
        conf = conf or ExchangeConf()
        self.part: Named = unheard
        self.gradients = GradientExchange(
            model.table, optimiser.parameters, exchange, conf, passes=accumulate, named=lambda part: self.part(part)
        )
        self.diverged = torch.zeros((), dtype=torch.float64, device=model.table.weight.device)
        model.synchronise(self._summed if exchange.world.size > 1 else None)
        layers = [name for name, layer in model.named_modules() if isinstance(layer, CrossRank)]
        if accumulate > 1 and layers:
            raise ConfError(
                f"accumulate={accumulate}: {len(layers)} layers take statistics of the whole batch, which no part of "
                f"it has (batch norm, Dice; e.g. {', '.join(layers[:MAX_EXAMPLES])}). Set model.batch_norm to false "
                "and the activations to relu or prelu, or leave accumulate at 1."
            )

    def step(self, batch: Batch, flag: bool = False) -> StepLosses:
        """Learn from one batch; `flag` travels with the weights, so that ranks can agree to stop."""
        with self.part(Part.FORWARD):
            labels, weights = self.model.targets(batch)
        counts = self._start_counting(weights.sum(dim=0), flag, batch)
        self.model.zero_grad(set_to_none=True)
        cuts = [len(batch) * part // self.accumulate for part in range(self.accumulate + 1)]
        parts = [
            self._backward(batch.rows(start, stop), labels[start:stop], weights[start:stop], counts)
            for start, stop in pairwise(cuts)
            if start < stop or not len(batch)
        ]
        self._update()
        finite = torch.isfinite(torch.stack([part.loss for part in parts])).all()
        self.diverged = self.diverged + (~finite).double()
        return StepLosses(
            sums=torch.stack([part.sums for part in parts]).sum(dim=0),
            weights=counts().weights.to(parts[0].sums.dtype),
            flag=counts().flag,
            finite=finite,
            finite_rows=torch.cat([torch.isfinite(part.logits).all(dim=1) for part in parts]),
            diverged=counts().diverged,
        )

    def _start_counting(self, weights: Tensor, flag: bool, batch: Batch) -> Callable[[], _Counts]:
        """What this rank counts leaves; calling what is returned waits for the others, the first time."""
        tower = self.model.position
        positions = weights.new_zeros(0) if tower is None or batch.position is None else tower.counts(batch.position)
        terms, asked = self.model.auxiliary_terms(batch).double(), weights.new_full((), float(flag)).double()
        own = [weights.double(), torch.stack([terms, asked, self.diverged]), positions.double()]
        with self.part(Part.EXCHANGE):
            arrived = self.exchange.start_sum_many([torch.cat(own)])

        @cache
        def counts() -> _Counts:
            with self.part(Part.EXCHANGE):
                (totals,) = arrived()
            of_tasks, alone, of_positions = torch.split(totals, [len(part) for part in own])
            return _Counts(weights=of_tasks, terms=alone[0], flag=alone[1], diverged=alone[2], positions=of_positions)

        return counts

    def _backward(self, batch: Batch, labels: Tensor, weights: Tensor, counting: Callable[[], _Counts]) -> _Part:
        """Add the gradient of some of the step's rows to that of the others."""
        if self.model.position is not None and batch.position is not None:
            self.model.position.global_counts = counting().positions
        with self.part(Part.FORWARD):
            logits, auxiliary = self.model.with_auxiliary(batch)
            self.gradients.looked_up()
            kind, counts = logits.dtype, counting()
            sums = weighted_bce(logits, labels.to(kind), weights.to(kind))
            loss = total_loss(sums, counts.weights.to(kind), self.model.task_weights.to(kind))
            if auxiliary is not None:
                loss = loss + self.model.auxiliary_weight * auxiliary / counts.terms.to(kind).clamp(min=1)
        with self.part(Part.BACKWARD):
            torch.autograd.backward(loss)
        return _Part(sums=sums.detach(), loss=loss.detach(), logits=logits.detach())

    def _update(self) -> None:
        self.gradients.start()
        self.gradients.sum_dense()
        with self.part(Part.UPDATE):
            self.optimiser.step_when(self.gradients.sum_rows)

    def _summed(self, tensor: Tensor) -> Tensor:
        with self.part(Part.EXCHANGE):
            return self.exchange.sum_(tensor)
