"""DeepFM: a factorisation machine and a deep network over the same embeddings, for one task.

Guo, Tang, Ye, Li, He: "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction", IJCAI 2017.

    y_FM = ⟨w, x⟩ + Σ_{i<j} ⟨v_i, v_j⟩ x_i x_j        (eq. 2)
    y_DNN = W h(… h(a_0)), a_0 = [v_1, …, v_M, dense]  (eqs. 3, 4)
    p = sigmoid(y_FM + y_DNN)                          (eq. 1)
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from features.manifest import TrainSet
from training.batch import Batch
from training.models.base import ModelConf, RankingModel, Target, base_logits, register, usable_tasks
from training.models.layers import fm_second_order, towers


class DeepFMConf(ModelConf):
    """Attributes: the one task, and the widths of the deep part's hidden layers."""

    task: str = "enter"
    hidden: tuple[int, ...] = Field(default=(128, 64), min_length=1)


@register("deepfm", DeepFMConf)
class DeepFM(RankingModel):
    """One task; pooled sequences and projected dense inputs are fields of the FM like any id."""

    uses_linear = True

    def __init__(self, inputs: TrainSet, conf: DeepFMConf) -> None:
        tasks = usable_tasks(inputs, [conf.task])
        super().__init__(inputs, conf, [Target(name=task.name, all_of=(task.name,)) for task in tasks])
        self.bias = nn.Parameter(base_logits(inputs, tasks))
        self.dense_weight = nn.Parameter(torch.zeros(len(inputs.dense), 1))
        self.deep = towers(
            self.input.flat_width, conf.hidden, torch.zeros(1), dropout=conf.dropout, batch_norm=conf.batch_norm
        )
        self.add_position_tower(inputs, tasks)

    def forward(self, batch: Batch) -> Tensor:
        """Rows → logits [n, 1]."""
        fields, linear = self.input(batch)
        wide = (linear + fm_second_order(fields)).unsqueeze(1) + batch.dense @ self.dense_weight + self.bias
        logits = wide + self.deep[0](self.input.flat(fields, batch))
        return self.with_position(logits, batch)
