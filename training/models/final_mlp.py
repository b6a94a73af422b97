"""FinalMLP: two networks, each on inputs gated for it, joined by a bilinear form.

Mao, Zhu, Su, Cai, Li, Dong: "FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction", AAAI 2023.

    g_i = 2 · sigmoid(MLP(c_i)),  h_i = g_i ⊙ e,  o_i = MLP_i(h_i)                   (eqs. 5, 6)
    p = sigmoid(b + w_1ᵀ o_1 + w_2ᵀ o_2 + Σ_heads o_1ᵀ W o_2)                        (eqs. 9, 12)
Each stream's gate sees the fields named for it (`gate_1`, `gate_2`), or a learnt constant where none is. It sees the
embeddings that the streams see; the authors' code (FuxiCTR) embeds them a second time for each gate.
"""

from __future__ import annotations

from functools import partial
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from features.errors import ConfError
from training.modeling.body import Body, RankConf, Represented, deep_network, register_body
from training.modeling.embedding import INITIAL_STD
from training.modeling.inputs import Embedded, InputLayer
from training.modeling.layers import MLP, unlowered


class FinalMLPConf(RankConf):
    """Attributes: widths of both networks, heads, whether inputs are gated, by which fields, widths of the gates."""

    hidden_1: tuple[int, ...] = Field(default=(128, 64), min_length=1)
    hidden_2: tuple[int, ...] = Field(default=(128, 64), min_length=1)
    heads: int = Field(default=1, ge=1)
    gated: bool = True
    gate_hidden: tuple[int, ...] = (64,)
    gate_1: tuple[str, ...] = ()
    gate_2: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_1[-1] % self.heads or self.hidden_2[-1] % self.heads:
            raise ValueError(f"the last widths of both networks must be multiples of heads={self.heads}")
        return self


class Gate(nn.Module):
    """g: [n, width] in (0, 2), from the embeddings of some fields or from a learnt constant."""

    def __init__(self, layer: InputLayer, names: tuple[str, ...], conf: FinalMLPConf) -> None:
        super().__init__()
        places = {field.name: place for place, field in enumerate(layer.inputs.categorical)}
        if unknown := [name for name in names if name not in places]:
            raise ConfError(f"model.gate_*={', '.join(unknown)}: no categorical column; choose of {', '.join(places)}")
        self.places = [places[name] for name in names]
        self.constant = None if names else nn.Parameter(torch.zeros(1, layer.dim))
        width = max(len(names), 1) * layer.dim
        mlp = MLP(width, conf.gate_hidden, dropout=0.0, batch_norm=False)
        self.score = nn.Sequential(mlp, nn.Linear(mlp.width, layer.flat_width))

    def forward(self, row: Embedded) -> Tensor:
        """Rows → [n, width]."""
        chosen = [row.fields[:, place] for place in self.places]
        seen = torch.cat(chosen, dim=1) if self.constant is None else self.constant
        return 2 * torch.sigmoid(self.score(seen)).expand(len(row.fields), -1)


@register_body("final_mlp", FinalMLPConf)
class FinalMLP(Body):
    """hidden: o_1 ∥ o_2; logit: the bilinear form."""

    has_logit = True

    def __init__(self, layer: InputLayer, conf: FinalMLPConf) -> None:
        first, second = conf.hidden_1[-1], conf.hidden_2[-1]
        super().__init__(first + second)
        names = (conf.gate_1, conf.gate_2) if conf.gated else ()
        self.gates = nn.ModuleList(Gate(layer, of_stream, conf) for of_stream in names)
        self.streams = nn.ModuleList(deep_network(layer, hidden, conf) for hidden in (conf.hidden_1, conf.hidden_2))
        self.bilinear = nn.Parameter(torch.empty(conf.heads, first // conf.heads, second // conf.heads))
        nn.init.normal_(self.bilinear, std=INITIAL_STD)

    def forward(self, row: Embedded) -> Represented:
        """Rows → hidden [n, H_1 + H_2], logit [n, 1]."""
        flat = row.flat
        gated = [flat * gate(row) for gate in self.gates] or [flat, flat]
        first, second = (stream(of_stream) for stream, of_stream in zip(self.streams, gated, strict=True))
        by_head = [part.unflatten(1, (len(self.bilinear), -1)) for part in (first, second)]
        form = partial(torch.einsum, "nha,hab,nhb->n")
        joined = unlowered(form, by_head[0], self.bilinear, by_head[1])
        return Represented(torch.cat([first, second], dim=1), joined.unsqueeze(1))
