"""DNN: a network over embeddings.

Covington, Adams, Sargin: "Deep Neural Networks for YouTube Recommendations", RecSys 2016, section 4.

    p = sigmoid(⟨w, h(… h(a_0))⟩ + b),  a_0 = [v_1, …, v_M, dense],  h(a) = ReLU(W a + b)
"""

from __future__ import annotations

from pydantic import Field

from training.modeling.body import Body, RankConf, Represented, deep_network, register_body
from training.modeling.inputs import Embedded, InputLayer


class DNNConf(RankConf):
    """Attributes: widths of the hidden layers."""

    hidden: tuple[int, ...] = Field(default=(128, 64), min_length=1)


@register_body("dnn", DNNConf)
class DNN(Body):
    """hidden: the last hidden layer."""

    def __init__(self, layer: InputLayer, conf: DNNConf) -> None:
        super().__init__(conf.hidden[-1])
        self.deep = deep_network(layer, conf.hidden, conf)

    def forward(self, row: Embedded) -> Represented:
        """Rows → hidden [n, H]."""
        return Represented(self.deep(row.flat))
