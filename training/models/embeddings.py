"""The plain body: all embeddings and dense numbers side by side, for towers that do all the work themselves.

Covington, Adams, Sargin: "Deep Neural Networks for YouTube Recommendations", RecSys 2016, the input of fig. 7.
"""

from __future__ import annotations

from training.modeling.body import Body, RankConf, Represented, register_body
from training.modeling.inputs import Embedded, InputLayer


class EmbeddingsConf(RankConf):
    """Nothing to set."""


@register_body("embeddings", EmbeddingsConf)
class Embeddings(Body):
    """hidden = [v_1, …, v_M, dense]; alone, it is a linear model of embeddings."""

    def __init__(self, layer: InputLayer, _conf: EmbeddingsConf) -> None:
        super().__init__(layer.flat_width)

    def forward(self, row: Embedded) -> Represented:
        """Rows → hidden [n, M·D + K]."""
        return Represented(row.flat)
