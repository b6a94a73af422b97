"""FM: a factorisation machine.

Rendle: "Factorization Machines", ICDM 2010.

    y = w_0 + ⟨w, x⟩ + Σ_{i<j} ⟨v_i, v_j⟩ x_i x_j        (eq. 1)
Pooled sequences, projected vectors and the projected dense numbers are factors like any id's.
"""

from __future__ import annotations

from training.modeling.body import Body, RankConf, Represented, register_body
from training.modeling.inputs import Embedded, InputLayer, LinearTerm
from training.modeling.layers import fm_second_order


class FMConf(RankConf):
    """Nothing to set besides the embedding dim."""


@register_body("fm", FMConf)
class FM(Body):
    """A logit alone: nothing is hidden."""

    linear = True
    has_logit = True

    def __init__(self, layer: InputLayer, _conf: FMConf) -> None:
        super().__init__(0)
        self.terms = LinearTerm(layer)

    def forward(self, row: Embedded) -> Represented:
        """Rows → logit [n, 1], hidden [n, 0]."""
        logit = self.terms(row) + fm_second_order(row.fields).unsqueeze(1)
        return Represented(logit[:, :0], logit)
