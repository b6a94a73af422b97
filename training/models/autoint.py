"""AutoInt: fields attend to each other.

Song, Shi, Xiao, Duan, Xu, Zhang, Tang: "AutoInt: Automatic Feature Interaction Learning via Self-Attentive Neural
Networks", CIKM 2019.

    α^h_{m,k} = softmax_k ⟨W^h_Q e_m, W^h_K e_k⟩              (eq. 5)
    ẽ_m = ∥_h Σ_k α^h_{m,k} W^h_V e_k                         (eqs. 6, 7)
    e^Res_m = ReLU(ẽ_m + W_Res e_m)                           (eq. 8)
    p = sigmoid(w · [e_1^Res, …, e_M^Res] + b)                (eq. 9)
Its section 5.3 (AutoInt+) puts a network beside it: `hidden`. DeepCTR adds a linear term of the ids; the paper has
none, nor is there one here.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from training.modeling.body import Body, RankConf, Represented, deep_network, register_body
from training.modeling.inputs import Embedded, InputLayer


class AutoIntConf(RankConf):
    """Attributes: layers, heads, width W of a head, whether products are scaled by 1/√W (not in the paper), and
    `hidden`."""

    layers: int = Field(default=2, ge=1)
    heads: int = Field(default=2, ge=1)
    head_width: int = Field(default=8, ge=1)
    scaled: bool = False
    hidden: tuple[int, ...] = ()


class Interacting(nn.Module):
    """One layer, [n, M, inputs] → [n, M, heads · W]."""

    def __init__(self, inputs: int, conf: AutoIntConf) -> None:
        super().__init__()
        self.heads, self.scale = conf.heads, conf.head_width**-0.5 if conf.scaled else 1.0
        self.width = conf.heads * conf.head_width
        self.query, self.key, self.value, self.residual = (nn.Linear(inputs, self.width, bias=False) for _ in range(4))

    def forward(self, fields: Tensor) -> Tensor:
        """[n, M, inputs] → [n, M, heads · W]."""

        def by_head(layer: nn.Linear) -> Tensor:
            n, count, _ = fields.shape
            found: Tensor = layer(fields).view(n, count, self.heads, -1).transpose(1, 2)  # [n, heads, M, W]
            return found

        shares = torch.softmax(by_head(self.query) @ by_head(self.key).transpose(2, 3) * self.scale, dim=-1)
        mixed = (shares @ by_head(self.value)).transpose(1, 2).flatten(start_dim=2)
        return torch.relu(mixed + self.residual(fields))


@register_body("autoint", AutoIntConf)
class AutoInt(Body):
    """hidden: what the fields became, side by side (∥ the network's last layer)."""

    def __init__(self, layer: InputLayer, conf: AutoIntConf) -> None:
        attended = layer.fields * conf.heads * conf.head_width
        super().__init__(attended + (conf.hidden[-1] if conf.hidden else 0))
        widths = [layer.dim] + [conf.heads * conf.head_width] * (conf.layers - 1)
        self.layers = nn.Sequential(*(Interacting(width, conf) for width in widths))
        self.deep = deep_network(layer, conf.hidden, conf)

    def forward(self, row: Embedded) -> Represented:
        """Rows → hidden [n, H]."""
        attended = self.layers(row.fields).flatten(start_dim=1)
        return Represented(torch.cat([attended, self.deep(row.flat)], dim=1) if len(self.deep) else attended)
