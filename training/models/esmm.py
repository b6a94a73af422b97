"""ESMM: a conversion after a click, learnt on all impressions.

Ma, Zhao, Huang, Wang, Hu, Zhu, Gai: "Entire Space Multi-Task Model: An Effective Approach for Estimating
Post-Click Conversion Rate", SIGIR 2018.

    pCTCVR = p(y = 1, z = 1 | x) = p(y = 1 | x) · p(z = 1 | y = 1, x) = pCTR · pCVR        (eq. 1)
    L = Σ l(y_i, pCTR) + Σ l(y_i & z_i, pCTR · pCVR), both over all impressions             (eq. 4)

Here y is the parent task (enter) and z the child (gift). pCVR has no loss of its own: it is learnt as a
factor. The towers share the embedding table, and nothing else (in DeepCTR the bias of the last layer, too).
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from features.manifest import TrainSet
from training.batch import Batch
from training.modeling.base import Target, base_logits, register, usable_tasks
from training.modeling.body import ManyTasks, ManyTasksConf
from training.modeling.layers import towers


class ESMMConf(ManyTasksConf):
    """Attributes: the pair of tasks, and widths of each tower's hidden layers."""

    parent: str = "enter"
    child: str = "gift"
    hidden: tuple[int, ...] = Field(default=(128, 64), min_length=1)


@register("esmm", ESMMConf)
class ESMM(ManyTasks):
    """Three targets: the parent, the child among those that passed the parent (untrained), and both at once."""

    def __init__(self, inputs: TrainSet, conf: ESMMConf) -> None:
        parent, child = usable_tasks(inputs, [conf.parent, conf.child])
        targets = (
            Target(name=parent.name, all_of=(parent.name,)),
            Target(name=child.name, all_of=(child.name,), trained=False),
            Target(name=f"{parent.name}_and_{child.name}", all_of=(parent.name, child.name)),
        )
        super().__init__(inputs, conf, (parent, child), targets)
        start = base_logits(inputs, (parent, child))
        self.towers = towers(self.width, conf.hidden, start, dropout=conf.dropout, batch_norm=conf.batch_norm)

    def towered(self, shared: Tensor) -> Tensor:
        """[n, width] → logits [n, 2] of CTR and CVR."""
        return torch.cat([tower(shared) for tower in self.towers], dim=1)

    def with_auxiliary(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Rows → logits [n, 3] of CTR, CVR and CTCVR, which is a product of what positions have moved already."""
        logits, auxiliary = super().with_auxiliary(batch)
        both = logit_of_product(logits[:, 0], logits[:, 1])
        return torch.cat([logits, both.unsqueeze(1)], dim=1), auxiliary


def logit_of_product(a: Tensor, b: Tensor) -> Tensor:
    """The logit of σ(a) σ(b), without ever forming the product.

    1/p = (1 + e⁻ᵃ)(1 + e⁻ᵇ) = 1 + e⁻ᵃ + e⁻ᵇ + e⁻ᵃ⁻ᵇ, and logit p = −log(1/p − 1)
    = −logsumexp(−a, −b, −a−b): exact where p underflows, and where 1 − p does.
    """
    return -torch.logsumexp(torch.stack([-a, -b, -a - b]), dim=0)
