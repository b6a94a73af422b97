"""DCN-v2: crosses with a whole matrix, or one of low rank, per layer.

Wang, Shivanna, Cheng, Jain, Lin, Hong, Chi: "DCN V2: Improved Deep & Cross Network and Practical Lessons for
Web-scale Learning to Rank Systems", WWW 2021.

    x_{l+1} = x_0 ⊙ (W_l x_l + b_l) + x_l                    (eq. 1);  W_l = U_l V_lᵀ with `rank` (eq. 2)
    parallel: p = sigmoid(w · [x_L, h_L] + b);  stacked: the network runs on x_L          (section 3.3)
DeepCTR adds a linear term of the ids; the paper has none, nor is there one here.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from training.modeling.body import Body, RankConf, Represented, deep_network, register_body
from training.modeling.inputs import Embedded, InputLayer


class DCNv2Conf(RankConf):
    """Attributes: cross layers, their rank (whole matrices if None), the network's widths, and where it stands."""

    crosses: int = Field(default=3, ge=1)
    rank: int | None = Field(default=None, ge=1)
    hidden: tuple[int, ...] = Field(default=(128, 64), min_length=1)
    structure: Literal["parallel", "stacked"] = "parallel"


class CrossMatrix(nn.Module):
    """One cross layer: x_0 ⊙ (W x + b) + x."""

    def __init__(self, width: int, rank: int | None) -> None:
        super().__init__()
        whole = nn.Linear(width, width)
        self.linear = (
            whole if rank is None else nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width))
        )

    def forward(self, first: Tensor, x: Tensor) -> Tensor:
        """[n, width], [n, width] → [n, width]."""
        crossed: Tensor = first * self.linear(x) + x
        return crossed


@register_body("dcn_v2", DCNv2Conf)
class DCNv2(Body):
    """hidden: what was crossed ∥ the network's last layer; stacked, the latter alone."""

    def __init__(self, layer: InputLayer, conf: DCNv2Conf) -> None:
        self_width = conf.hidden[-1] if conf.structure == "stacked" else layer.flat_width + conf.hidden[-1]
        super().__init__(self_width)
        self.is_stacked = conf.structure == "stacked"
        self.crosses = nn.ModuleList(CrossMatrix(layer.flat_width, conf.rank) for _ in range(conf.crosses))
        self.deep = deep_network(layer, conf.hidden, conf)

    def forward(self, row: Embedded) -> Represented:
        """Rows → hidden [n, H]."""
        first = crossed = row.flat
        for cross in self.crosses:
            crossed = cross(first, crossed)
        if self.is_stacked:
            return Represented(self.deep(crossed))
        return Represented(torch.cat([crossed, self.deep(first)], dim=1))
