"""NFM: a network over the pooled products of all pairs of embeddings.

He, Chua: "Neural Factorization Machines for Sparse Predictive Analytics", SIGIR 2017.

    y = w_0 + ⟨w, x⟩ + h · z_L,  z_0 = f_BI(V_x) = Σ_{i<j} x_i v_i ⊙ x_j v_j,  z_l = σ(W_l z_{l−1} + b_l)
                                                                       (eqs. 2, 3, 7)
With `batch_norm`, as in the paper, f_BI is normalised too. Dense numbers are one more factor, Σ_k x_k v_k, without the
paper's products among themselves; DeepCTR leaves them out of f_BI, and puts them beside it.
"""

from __future__ import annotations

from pydantic import Field
from torch import nn

from training.modeling.body import Body, RankConf, Represented, register_body
from training.modeling.inputs import Embedded, InputLayer, LinearTerm
from training.modeling.layers import MLP, BatchNorm, pairwise


class NFMConf(RankConf):
    """Attributes: widths of the hidden layers."""

    hidden: tuple[int, ...] = Field(default=(64,), min_length=1)


@register_body("nfm", NFMConf)
class NFM(Body):
    """hidden: z_L; logit: the linear terms."""

    linear = True
    has_logit = True

    def __init__(self, layer: InputLayer, conf: NFMConf) -> None:
        super().__init__(conf.hidden[-1])
        self.terms = LinearTerm(layer)
        self.normal = BatchNorm(layer.dim) if conf.batch_norm else nn.Identity()
        self.deep = MLP(layer.dim, conf.hidden, dropout=conf.dropout, batch_norm=conf.batch_norm)

    def forward(self, row: Embedded) -> Represented:
        """Rows → hidden [n, H], logit [n, 1]."""
        return Represented(self.deep(self.normal(pairwise(row.fields))), self.terms(row))
