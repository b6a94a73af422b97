"""MMoE: all tasks over shared experts, each task with a gate of its own.

Ma, Zhao, Yi, Chen, Hong, Chi: "Modeling Task Relationships in Multi-task Learning with Multi-gate
Mixture-of-Experts", KDD 2018.

    f^k(x) = Σ_e g^k(x)_e f_e(x),  g^k(x) = softmax(W_gk x)        (eqs. 6, 7)
    y_k = h^k(f^k(x))                                              (eq. 5)
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from features.manifest import TrainSet
from training.batch import Batch
from training.models.base import ModelConf, RankingModel, Target, base_logits, register, usable_tasks
from training.models.embedding import INITIAL_STD
from training.models.layers import MLP, towers


class MMoEConf(ModelConf):
    """Attributes: tasks (all that the train set has, if empty), experts, widths of experts and of towers."""

    tasks: tuple[str, ...] = ()
    experts: int = Field(default=4, ge=1)
    expert_hidden: tuple[int, ...] = Field(default=(64,), min_length=1)
    tower_hidden: tuple[int, ...] = (32,)


@register("mmoe", MMoEConf)
class MMoE(RankingModel):
    """One target per task of the train set."""

    def __init__(self, inputs: TrainSet, conf: MMoEConf) -> None:
        tasks = usable_tasks(inputs, conf.tasks or None)
        super().__init__(inputs, conf, [Target(name=task.name, all_of=(task.name,)) for task in tasks])
        width = self.input.flat_width
        self.experts = nn.ModuleList(
            MLP(width, conf.expert_hidden, dropout=conf.dropout, batch_norm=conf.batch_norm)
            for _ in range(conf.experts)
        )
        gates = [nn.Linear(width, conf.experts, bias=False) for _ in tasks]
        for gate in gates:
            nn.init.normal_(gate.weight, std=INITIAL_STD)
        self.gates = nn.ModuleList(gates)
        start = base_logits(inputs, tasks)
        self.towers = towers(
            conf.expert_hidden[-1], conf.tower_hidden, start, dropout=conf.dropout, batch_norm=conf.batch_norm
        )
        self.add_position_tower(inputs, tasks)

    def forward(self, batch: Batch) -> Tensor:
        """Rows → logits [n, T]."""
        fields, _ = self.input(batch)
        flat = self.input.flat(fields, batch)
        experts = torch.stack([expert(flat) for expert in self.experts], dim=1)  # [n, E, H]
        logits = [
            tower((torch.softmax(gate(flat), dim=1).unsqueeze(-1) * experts).sum(dim=1))
            for gate, tower in zip(self.gates, self.towers, strict=True)
        ]
        return self.with_position(torch.cat(logits, dim=1), batch)
