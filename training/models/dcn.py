"""DCN: explicit crosses of bounded degree beside a network.

Wang, Fu, Fu, Wang: "Deep & Cross Network for Ad Click Predictions", ADKDD 2017.

    x_{l+1} = x_0 (x_lᵀ w_l) + b_l + x_l                     (eq. 3)
    p = sigmoid(w · [x_L, h_L] + b)                          (eq. 5)
DeepCTR adds a linear term of the ids; the paper has none, nor is there one here.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from training.modeling.body import Body, RankConf, Represented, deep_network, register_body
from training.modeling.inputs import Embedded, InputLayer


class DCNConf(RankConf):
    """Attributes: cross layers, and widths of the network's hidden layers (none: crosses alone)."""

    crosses: int = Field(default=3, ge=1)
    hidden: tuple[int, ...] = (128, 64)


class CrossVector(nn.Module):
    """One cross layer: x_0 (xᵀ w) + b + x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, 1))
        nn.init.xavier_normal_(self.weight)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, first: Tensor, x: Tensor) -> Tensor:
        """[n, width], [n, width] → [n, width]."""
        return first * (x @ self.weight) + self.bias + x


@register_body("dcn", DCNConf)
class DCN(Body):
    """hidden: what was crossed ∥ the network's last layer."""

    def __init__(self, layer: InputLayer, conf: DCNConf) -> None:
        super().__init__(layer.flat_width + (conf.hidden[-1] if conf.hidden else 0))
        self.crosses = nn.ModuleList(CrossVector(layer.flat_width) for _ in range(conf.crosses))
        self.deep = deep_network(layer, conf.hidden, conf)

    def forward(self, row: Embedded) -> Represented:
        """Rows → hidden [n, M·D + K + H]."""
        first = crossed = row.flat
        for cross in self.crosses:
            crossed = cross(first, crossed)
        return Represented(torch.cat([crossed, self.deep(first)] if len(self.deep) else [crossed], dim=1))
