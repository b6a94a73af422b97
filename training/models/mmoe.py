"""MMoE: all tasks over shared experts, each task with a gate of its own.

Ma, Zhao, Yi, Chen, Hong, Chi: "Modeling Task Relationships in Multi-task Learning with Multi-gate
Mixture-of-Experts", KDD 2018.

    f^k(x) = Σ_e g^k(x)_e f_e(x),  g^k(x) = softmax(W_gk x)        (eqs. 6, 7)
    y_k = h^k(f^k(x))                                              (eq. 5)
Gates are linear, as in the paper; DeepCTR's have a hidden layer unless told otherwise, torch-rechub's a batch norm.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from features.manifest import TrainSet
from training.modeling.base import base_logits, register, usable_tasks
from training.modeling.body import ManyTasks, ManyTasksConf
from training.modeling.layers import MLP, gate, towers


class MMoEConf(ManyTasksConf):
    """Attributes: experts, widths of experts and of towers."""

    experts: int = Field(default=4, ge=1)
    expert_hidden: tuple[int, ...] = Field(default=(64,), min_length=1)
    tower_hidden: tuple[int, ...] = (32,)


@register("mmoe", MMoEConf)
class MMoE(ManyTasks):
    """One target per task of the train set."""

    def __init__(self, inputs: TrainSet, conf: MMoEConf) -> None:
        tasks = usable_tasks(inputs, conf.tasks or None)
        super().__init__(inputs, conf, tasks)
        self.experts = nn.ModuleList(
            MLP(self.width, conf.expert_hidden, dropout=conf.dropout, batch_norm=conf.batch_norm)
            for _ in range(conf.experts)
        )
        self.gates = nn.ModuleList(gate(self.width, conf.experts) for _ in tasks)
        start = base_logits(inputs, tasks)
        self.towers = towers(
            conf.expert_hidden[-1], conf.tower_hidden, start, dropout=conf.dropout, batch_norm=conf.batch_norm
        )

    def towered(self, shared: Tensor) -> Tensor:
        """[n, width] → logits [n, T]."""
        experts = torch.stack([expert(shared) for expert in self.experts], dim=1)  # [n, E, H]
        mixed = [(torch.softmax(own(shared), dim=1).unsqueeze(-1) * experts).sum(dim=1) for own in self.gates]
        return torch.cat([tower(x) for tower, x in zip(self.towers, mixed, strict=True)], dim=1)
