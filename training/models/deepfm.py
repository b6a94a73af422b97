"""DeepFM: a factorisation machine and a deep network over the same embeddings.

Guo, Tang, Ye, Li, He: "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction", IJCAI 2017.

    y_FM = ⟨w, x⟩ + Σ_{i<j} ⟨v_i, v_j⟩ x_i x_j        (eq. 2)
    y_DNN = W h(… h(a_0)), a_0 = [v_1, …, v_M, dense]  (eqs. 3, 4)
    p = sigmoid(y_FM + y_DNN)                          (eq. 1)
"""

from __future__ import annotations

from pydantic import Field

from training.modeling.body import Body, RankConf, Represented, deep_network, register_body
from training.modeling.inputs import Embedded, InputLayer, LinearTerm
from training.modeling.layers import fm_second_order


class DeepFMConf(RankConf):
    """Attributes: widths of the deep part's hidden layers."""

    hidden: tuple[int, ...] = Field(default=(128, 64), min_length=1)


@register_body("deepfm", DeepFMConf)
class DeepFM(Body):
    """Pooled sequences and projected dense inputs are fields of the FM like any id (DeepCTR's FM lacks the latter).

    hidden: the deep part's last layer; logit: the FM.
    """

    linear = True
    has_logit = True

    def __init__(self, layer: InputLayer, conf: DeepFMConf) -> None:
        super().__init__(conf.hidden[-1])
        self.terms = LinearTerm(layer)
        self.deep = deep_network(layer, conf.hidden, conf)

    def forward(self, row: Embedded) -> Represented:
        """Rows → hidden [n, H], logit [n, 1]."""
        return Represented(self.deep(row.flat), self.terms(row) + fm_second_order(row.fields).unsqueeze(1))
