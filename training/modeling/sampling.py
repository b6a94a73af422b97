"""Correction of probabilities for negatives that were left out of the train rows.

n: rows, T: targets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from features.errors import ConfError


class Sampling(nn.Module):
    """Probabilities of the world from logits that were learnt on all positives and a share w of the negatives.

    The odds among those rows are 1/w of the world's, hence (He et al. 2014, "Practical Lessons from Predicting Clicks
    on Ads at Facebook", section 6.3)

        q = p / (p + (1 − p) / w),   logit q = logit p + log w.

    A conjunction "y and z" whose first label y was sampled keeps P(z | y): its probability moves as y's does,
    p(y, z) · q(y) / p(y).
    """

    def __init__(self, predicts: Mapping[str, tuple[str, ...]], kept: Mapping[str, float]) -> None:
        """
        Args:
            predicts: target → the labels that are all 1, in the order of the logits.
            kept: label → w.

        Raises:
            ConfError: `kept` names no label that a logit predicts alone, or one that is a later part of a conjunction:
                leaving out its negatives changes the shares of the labels before it, too.
        """
        super().__init__()
        later = {label for labels in predicts.values() for label in labels[1:]}
        alone = {labels[0]: place for place, labels in enumerate(predicts.values()) if len(labels) == 1}
        known = [label for label in alone if label not in later]
        if wrong := sorted(set(kept) - set(known)):
            raise ConfError(f"model.negatives_kept names {', '.join(wrong)}; this model corrects {', '.join(known)}")
        firsts = [labels[0] for labels in predicts.values()]
        is_alone = [len(labels) == 1 for labels in predicts.values()]
        shares = [kept.get(label, 1.0) for label in firsts]
        shifts = [math.log(share) if one else 0.0 for share, one in zip(shares, is_alone, strict=True)]
        self.corrects = any(share < 1 for share in shares)
        self._first = [alone.get(label, place) for place, label in enumerate(firsts)]
        self.register_buffer("shares", torch.tensor(shares), persistent=False)
        self.register_buffer("shifts", torch.tensor(shifts), persistent=False)
        self.register_buffer("follows", torch.tensor([float(not one) for one in is_alone]), persistent=False)
        self.shares: Tensor
        self.shifts: Tensor
        self.follows: Tensor

    def forward(self, logits: Tensor) -> Tensor:
        """Logits [n, T] → probabilities [n, T]."""
        if not self.corrects:
            return torch.sigmoid(logits)
        before = functional.logsigmoid(logits)
        after = functional.logsigmoid(logits + self.shifts.to(logits.dtype))
        return torch.exp(after + (after - before)[:, self._first] * self.follows.to(logits.dtype))

    def rows(self, labels: Tensor) -> Tensor:
        """First labels of each target [n, T] → how many rows each stands for [n, T]: 1 / w for a negative."""
        return torch.where(labels > 0, labels.new_ones(()), 1 / self.shares.to(labels.dtype))
