"""xDeepFM: explicit interactions, vector by vector, in a compressed interaction network (CIN), beside a network.

Lian, Zhou, Zhang, Chen, Xie, Sun: "xDeepFM: Combining Explicit and Implicit Feature Interactions for Recommender
Systems", KDD 2018.

    X^k_h = φ(Σ_i Σ_j W^{k,h}_{ij} (X^{k−1}_i ⊙ X^0_j) + b_h)     (eq. 6)     [n, H_k, D]
    p^k_h = Σ_d X^k_{h,d};  p⁺ = [p^1, …, p^T]              (eqs. 7, 8)
    p = sigmoid(⟨w, x⟩ + w_dnn · a + w_cin · p⁺ + b)        (eq. 9)

The paper's text has the identity for φ and no b_h; its code has both as they are here. `split_half`, of its code: half
of a layer's maps go to the output, the others to the next layer; without it, all go to both.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from training.modeling.body import Body, RankConf, Represented, deep_network, register_body
from training.modeling.inputs import Embedded, InputLayer, LinearTerm


class XDeepFMConf(RankConf):
    """Attributes: maps H_k of each CIN layer, its activation, `split_half`, and widths of the network."""

    maps: tuple[int, ...] = Field(default=(64, 64), min_length=1)
    map_activation: Literal["relu", "identity"] = "relu"
    split_half: bool = True
    hidden: tuple[int, ...] = Field(default=(128, 64), min_length=1)

    @model_validator(mode="after")
    def _halves_are_whole(self) -> Self:
        if self.split_half and any(maps % 2 for maps in self.maps[:-1]):
            raise ValueError("maps of all layers but the last must be even with split_half")
        return self


class CIN(nn.Module):
    """[n, M, D] → [n, width], width = all maps that go to the output."""

    def __init__(self, fields: int, conf: XDeepFMConf) -> None:
        super().__init__()
        self.maps, self.split_half = conf.maps, conf.split_half
        self.activation = nn.ReLU() if conf.map_activation == "relu" else nn.Identity()
        carried = [fields, *(maps // 2 if conf.split_half else maps for maps in conf.maps[:-1])]
        # W^{k,h}_{ij} as a matrix per layer, [H_k, H_{k−1} M]
        self.layers = nn.ModuleList(nn.Linear(own * fields, maps) for own, maps in zip(carried, conf.maps, strict=True))
        self.width = sum(carried[1:]) + conf.maps[-1]

    def forward(self, fields: Tensor) -> Tensor:
        """[n, M, D] → [n, width]."""
        outputs, hidden = [], fields
        for place, layer in enumerate(self.layers):
            products = torch.einsum("nhd,nmd->ndhm", hidden, fields).flatten(start_dim=2)
            maps = self.activation(layer(products)).transpose(1, 2)
            is_last = place == len(self.layers) - 1
            hidden, out = (maps, maps) if is_last or not self.split_half else maps.chunk(2, dim=1)
            outputs.append(out.sum(dim=2))
        return torch.cat(outputs, dim=1)


@register_body("xdeepfm", XDeepFMConf)
class XDeepFM(Body):
    """hidden: the network's last layer ∥ p⁺; logit: the linear terms."""

    linear = True
    has_logit = True

    def __init__(self, layer: InputLayer, conf: XDeepFMConf) -> None:
        cin = CIN(layer.fields, conf)
        super().__init__(conf.hidden[-1] + cin.width)
        self.terms, self.cin = LinearTerm(layer), cin
        self.deep = deep_network(layer, conf.hidden, conf)

    def forward(self, row: Embedded) -> Represented:
        """Rows → hidden [n, H], logit [n, 1]."""
        return Represented(torch.cat([self.deep(row.flat), self.cin(row.fields)], dim=1), self.terms(row))
