"""PLE: experts of each task and shared ones, layer upon layer, with gates between.

Tang, Liu, Zhao, Gong: "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for Personalized
Recommendations", RecSys 2020.

    g^{k,j}(x) = softmax(W^{k,j} g^{k,j−1}(x)) S^{k,j}(x)          (eqs. 5, 6), S: task k's experts and the shared ones
    y_k = t^k(g^{k,N}(x))                                          (eq. 7)
The shared gate of a layer mixes the experts of all tasks; the last layer has none, as nothing follows it. Gates are
linear, as in the paper; DeepCTR's have a hidden layer unless told otherwise, torch-rechub's a batch norm.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from features.manifest import TrainSet
from training.modeling.base import base_logits, register, usable_tasks
from training.modeling.body import ManyTasks, ManyTasksConf
from training.modeling.layers import MLP, gate, towers


class PLEConf(ManyTasksConf):
    """Attributes: layers, experts per task and shared ones per layer, widths of an expert and of a tower."""

    layers: int = Field(default=2, ge=1)
    task_experts: int = Field(default=2, ge=1)
    shared_experts: int = Field(default=2, ge=1)
    expert_hidden: tuple[int, ...] = Field(default=(64,), min_length=1)
    tower_hidden: tuple[int, ...] = (32,)


class Extraction(nn.Module):
    """One layer: inputs of each task and the shared one → the same, mixed by gates (CGC, fig. 4)."""

    def __init__(self, width: int, tasks: int, conf: PLEConf, *, is_last: bool) -> None:
        super().__init__()

        def experts(count: int) -> nn.ModuleList:
            made = (
                MLP(width, conf.expert_hidden, dropout=conf.dropout, batch_norm=conf.batch_norm) for _ in range(count)
            )
            return nn.ModuleList(made)

        self.of_tasks = nn.ModuleList(experts(conf.task_experts) for _ in range(tasks))
        self.shared = experts(conf.shared_experts)
        self.gates = nn.ModuleList(gate(width, conf.task_experts + conf.shared_experts) for _ in range(tasks))
        self.shared_gate = None if is_last else gate(width, tasks * conf.task_experts + conf.shared_experts)

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """[n, width] per task, then the shared one → [n, expert width] each, at last without the shared one."""
        *of_tasks, shared = inputs
        common = _each(self.shared, shared)
        own = [_each(experts, x) for experts, x in zip(self.of_tasks, of_tasks, strict=True)]
        mixed = [_mixed(one(x), [*mine, *common]) for one, x, mine in zip(self.gates, of_tasks, own, strict=True)]
        if self.shared_gate is not None:
            everything = [expert for mine in own for expert in mine] + common
            mixed.append(_mixed(self.shared_gate(shared), everything))
        return mixed


def _each(experts: nn.Module, x: Tensor) -> list[Tensor]:
    """What each expert makes of the same numbers."""
    return [expert(x) for expert in experts.children()]


def _mixed(scores: Tensor, experts: Sequence[Tensor]) -> Tensor:
    """[n, E] and E times [n, H] → [n, H]."""
    return (torch.softmax(scores, dim=1).unsqueeze(-1) * torch.stack(list(experts), dim=1)).sum(dim=1)


@register("ple", PLEConf)
class PLE(ManyTasks):
    """One target per task of the train set."""

    def __init__(self, inputs: TrainSet, conf: PLEConf) -> None:
        tasks = usable_tasks(inputs, conf.tasks or None)
        super().__init__(inputs, conf, tasks)
        widths = [self.width] + [conf.expert_hidden[-1]] * (conf.layers - 1)
        self.layers = nn.ModuleList(
            Extraction(width, len(tasks), conf, is_last=place == conf.layers - 1) for place, width in enumerate(widths)
        )
        start = base_logits(inputs, tasks)
        self.towers = towers(
            conf.expert_hidden[-1], conf.tower_hidden, start, dropout=conf.dropout, batch_norm=conf.batch_norm
        )

    def towered(self, shared: Tensor) -> Tensor:
        """[n, width] → logits [n, T]."""
        inputs = [shared] * (len(self.towers) + 1)
        for layer in self.layers:
            inputs = layer(inputs)
        return torch.cat([tower(x) for tower, x in zip(self.towers, inputs, strict=True)], dim=1)
