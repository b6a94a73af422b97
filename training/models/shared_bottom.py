"""SharedBottom: one network for all tasks, a tower for each.

Caruana: "Multitask Learning", Machine Learning 28, 1997; in the form of Ma et al., KDD 2018, eq. 1.

    y_k = h^k(f(x))
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from features.manifest import TrainSet
from training.modeling.base import base_logits, register, usable_tasks
from training.modeling.body import ManyTasks, ManyTasksConf
from training.modeling.layers import MLP, towers


class SharedBottomConf(ManyTasksConf):
    """Attributes: widths of the shared network and of each tower."""

    bottom_hidden: tuple[int, ...] = Field(default=(128,), min_length=1)
    tower_hidden: tuple[int, ...] = (32,)


@register("shared_bottom", SharedBottomConf)
class SharedBottom(ManyTasks):
    """One target per task of the train set."""

    def __init__(self, inputs: TrainSet, conf: SharedBottomConf) -> None:
        tasks = usable_tasks(inputs, conf.tasks or None)
        super().__init__(inputs, conf, tasks)
        self.bottom = MLP(self.width, conf.bottom_hidden, dropout=conf.dropout, batch_norm=conf.batch_norm)
        start = base_logits(inputs, tasks)
        self.towers = towers(
            self.bottom.width, conf.tower_hidden, start, dropout=conf.dropout, batch_norm=conf.batch_norm
        )

    def towered(self, shared: Tensor) -> Tensor:
        """[n, width] → logits [n, T]."""
        bottom = self.bottom(shared)
        return torch.cat([tower(bottom) for tower in self.towers], dim=1)
