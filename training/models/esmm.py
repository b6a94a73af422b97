"""ESMM: a conversion after a click, learnt on all impressions.

Ma, Zhao, Huang, Wang, Hu, Zhu, Gai: "Entire Space Multi-Task Model: An Effective Approach for Estimating
Post-Click Conversion Rate", SIGIR 2018.

    pCTCVR = p(y = 1, z = 1 | x) = p(y = 1 | x) · p(z = 1 | y = 1, x) = pCTR · pCVR        (eq. 1)
    L = Σ l(y_i, pCTR) + Σ l(y_i & z_i, pCTR · pCVR), both over all impressions             (eq. 4)

Here y is the parent task (enter) and z the child (gift). pCVR has no loss of its own: it is learnt as a
factor. The towers share the embedding table.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from features.manifest import TrainSet
from training.batch import Batch
from training.models.base import ModelConf, RankingModel, Target, base_logits, register, usable_tasks
from training.models.layers import towers


class ESMMConf(ModelConf):
    """Attributes: the pair of tasks, and the widths of each tower's hidden layers."""

    parent: str = "enter"
    child: str = "gift"
    hidden: tuple[int, ...] = Field(default=(128, 64), min_length=1)


@register("esmm", ESMMConf)
class ESMM(RankingModel):
    """Three targets: the parent, the child among those that passed the parent (untrained), and both at once."""

    def __init__(self, inputs: TrainSet, conf: ESMMConf) -> None:
        parent, child = usable_tasks(inputs, [conf.parent, conf.child])
        targets = (
            Target(name=parent.name, all_of=(parent.name,)),
            Target(name=child.name, all_of=(child.name,), trained=False),
            Target(name=f"{parent.name}_and_{child.name}", all_of=(parent.name, child.name)),
        )
        super().__init__(inputs, conf, targets)
        start = base_logits(inputs, (parent, child))
        self.towers = towers(
            self.input.flat_width, conf.hidden, start, dropout=conf.dropout, batch_norm=conf.batch_norm
        )
        self.add_position_tower(inputs, (parent, child))

    def forward(self, batch: Batch) -> Tensor:
        """Rows → logits [n, 3] of CTR, CVR and CTCVR."""
        fields, _ = self.input(batch)
        flat = self.input.flat(fields, batch)
        logits = torch.cat([tower(flat) for tower in self.towers], dim=1)
        logits = self.with_position(logits, batch)
        both = logit_of_product(logits[:, 0], logits[:, 1])
        return torch.cat([logits, both.unsqueeze(1)], dim=1)


def logit_of_product(a: Tensor, b: Tensor) -> Tensor:
    """The logit of σ(a) σ(b), without ever forming the product.

    1/p = (1 + e⁻ᵃ)(1 + e⁻ᵇ) = 1 + e⁻ᵃ + e⁻ᵇ + e⁻ᵃ⁻ᵇ, and logit p = −log(1/p − 1)
    = −logsumexp(−a, −b, −a−b): exact where p underflows, and where 1 − p does.
    """
    return -torch.logsumexp(torch.stack([-a, -b, -a - b]), dim=0)
