"""Metrics over all ranks' rows, exact: what one process would compute, without any rank holding all rows.

A mean of per-rank AUCs is another number (0.662 against 0.775 was seen), hence, per task:

    AUC     1. splitters of the score, from a sample of every rank        → [W − 1], the same on every rank
            2. rows travel to the rank of their score range; equal scores meet on one rank
            3. on each rank: positives, negatives, and correctly ordered pairs within its range
            4. pairs across ranges: positives of a range × negatives of the lower ones
    GAUC    rows travel by user, so that each user is whole on one rank; per-user AUCs, and their weighted sum
    rest    sums

Scores, labels and weights are float64; n is the number of a rank's rows, W of ranks. A row of weight 0 is
masked: it counts nowhere.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from training.exchange import Exchange

SPLITTERS_PER_RANK = 64
_TINY = torch.finfo(torch.float64).eps


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One task's rows on this rank: probabilities, labels (0 or 1), weights (0 = masked) and users, all [n]."""

    score: Tensor
    label: Tensor
    weight: Tensor
    group: Tensor

    def unmasked(self) -> Judged:
        """The rows that count, in float64."""
        kept = self.weight > 0
        score, label, weight = (value[kept].to(torch.float64) for value in (self.score, self.label, self.weight))
        return Judged(score=score, label=label, weight=weight, group=self.group[kept].to(torch.int64))


@dataclass(frozen=True, kw_only=True)
class TaskMetrics:
    """A task's figures; None where undefined (one class only, no rows).

    Attributes:
        auc: weighted, a tie counts half.
        gauc: AUC per user, averaged by the weight of the user's unmasked rows; users of one class left out.
        logloss: weighted mean, natural logarithm.
        pcoc: predicted over observed positives (1 = calibrated).
        rows, positives: unmasked rows, and those of them that are positive.
        gauc_users_left_out: users of one class.
    """

    auc: float | None
    gauc: float | None
    logloss: float | None
    pcoc: float | None
    rows: int
    positives: int
    gauc_users_left_out: int

    def as_dict(self) -> dict[str, Any]:
        """For metrics.json."""
        return asdict(self)


def evaluate(rows: Judged, exchange: Exchange) -> TaskMetrics:
    """All figures of one task; a collective call, and every rank gets the same answer."""
    rows = rows.unmasked()
    logloss = -torch.where(rows.label > 0, rows.score, 1 - rows.score).clamp(min=_TINY).log()
    terms = (rows.weight, rows.weight * logloss, rows.weight * rows.score, rows.weight * rows.label, rows.label)
    sums = torch.stack([*(term.sum() for term in terms), torch.tensor(float(len(rows.score)), dtype=torch.float64)])
    weight, losses, predicted, observed, positives, count = exchange.sum_(sums).tolist()
    gauc, left_out = _gauc(rows, exchange)
    return TaskMetrics(
        auc=_auc(rows, exchange),
        gauc=gauc,
        logloss=losses / weight if weight else None,
        pcoc=predicted / observed if observed else None,
        rows=int(count),
        positives=int(positives),
        gauc_users_left_out=left_out,
    )


def _auc(rows: Judged, exchange: Exchange) -> float | None:
    ranges = torch.bucketize(rows.score, _splitters(rows.score, exchange), right=True)
    rows = _routed(rows, ranges, exchange)
    order = rows.score.argsort()
    positive, negative = _class_weights(rows, order)
    pairs = _ordered_pairs(rows.score[order], positive, negative, torch.zeros_like(order))
    world = exchange.world
    totals = torch.zeros(world.size, 3, dtype=torch.float64)
    totals[world.rank] = torch.stack([positive.sum(), negative.sum(), pairs.sum()])
    positives, negatives, within = exchange.sum_(totals).unbind(dim=1)
    below = negatives.cumsum(dim=0) - negatives
    all_pairs = positives.sum() * negatives.sum()
    return float((within + positives * below).sum() / all_pairs) if all_pairs > 0 else None


def _splitters(score: Tensor, exchange: Exchange) -> Tensor:
    """[W − 1] ascending scores that cut the rows of all ranks into W ranges of about equal size."""
    if exchange.world.size == 1:
        return torch.zeros(0, dtype=torch.float64)
    sample = score.sort().values
    if len(sample) > SPLITTERS_PER_RANK:
        sample = sample[torch.linspace(0, len(sample) - 1, SPLITTERS_PER_RANK).long()]
    sample = exchange.gather_rows(sample).sort().values
    if len(sample) == 0:
        return torch.zeros(exchange.world.size - 1, dtype=torch.float64)
    cuts = torch.arange(1, exchange.world.size) * len(sample) // exchange.world.size
    return sample[cuts]


def _gauc(rows: Judged, exchange: Exchange) -> tuple[float | None, int]:
    """The GAUC, and how many users have one class only."""
    rows = _routed(rows, rows.group % exchange.world.size, exchange)
    order = rows.score.argsort()
    order = order[rows.group[order].argsort(stable=True)]
    new_user = _starts(rows.group[order])
    user, users = new_user.cumsum(dim=0) - 1, int(new_user.sum())
    positive, negative = _class_weights(rows, order)
    per_user = torch.zeros(3, users, dtype=torch.float64)
    pairs = _ordered_pairs(rows.score[order], positive, negative, user)
    for total, values in zip(per_user, (positive, negative, pairs), strict=True):
        total.index_add_(0, user, values)
    positives, negatives, correct = per_user
    defined = (positives > 0) & (negatives > 0)
    weight = (positives + negatives)[defined]
    auc = (correct / (positives * negatives))[defined]
    sums = torch.stack([(weight * auc).sum(), weight.sum(), (~defined).sum().to(torch.float64)])
    weighted, total_weight, left_out = exchange.sum_(sums).tolist()
    return (weighted / total_weight if total_weight else None), int(left_out)


def _class_weights(rows: Judged, order: Tensor) -> tuple[Tensor, Tensor]:
    weight, label = rows.weight[order], rows.label[order]
    return weight * label, weight * (1 - label)


def _ordered_pairs(score: Tensor, positive: Tensor, negative: Tensor, group: Tensor) -> Tensor:
    """Per row, its positive weight × the negative weight below it in its group, ties half: [n].

    Args:
        score, positive, negative: [n], sorted by (group, score).
        group: [n] 0, 1, 2, … ascending.
    """
    if len(score) == 0:
        return positive
    new_group = _starts(group)
    new_tie = new_group | _starts(score)
    tie = new_tie.cumsum(dim=0) - 1
    in_tie = torch.zeros(int(tie[-1]) + 1, dtype=torch.float64).index_add_(0, tie, negative)
    before = in_tie.cumsum(dim=0) - in_tie  # negative weight before each run of ties, over all groups
    before_group = before[tie[new_group]][new_group.cumsum(dim=0) - 1]
    return positive * (before[tie] - before_group + in_tie[tie] / 2)


def _starts(values: Tensor) -> Tensor:
    """[n] bool: whether a row differs from the one before it."""
    start = torch.ones(len(values), dtype=torch.bool)
    start[1:] = values[1:] != values[:-1]
    return start


def _routed(rows: Judged, destination: Tensor, exchange: Exchange) -> Judged:
    """Send each row to the rank `destination` [n] names."""
    if exchange.world.size == 1:
        return rows
    order = destination.argsort(stable=True)
    counts = torch.bincount(destination, minlength=exchange.world.size)
    values = torch.stack([rows.score, rows.label, rows.weight], dim=1)[order]
    score, label, weight = exchange.alltoall(values, counts).unbind(dim=1)
    return Judged(score=score, label=label, weight=weight, group=exchange.alltoall(rows.group[order], counts))
