"""LR: logistic regression over every input.

Richardson, Dominowska, Ragno: "Predicting Clicks: Estimating the Click-Through Rate for New Ads", WWW 2007.

    p = sigmoid(b + ⟨w, x⟩)        (eq. 3), x: one weight per id, dense number and vector element
A sequence adds the mean weight of its events.
"""

from __future__ import annotations

from pydantic import Field

from training.modeling.body import Body, RankConf, Represented, register_body
from training.modeling.inputs import Embedded, InputLayer, LinearTerm


class LRConf(RankConf):
    """Nothing is embedded: the table holds a weight per id alone."""

    embedding_dim: int = Field(default=0, ge=0, le=0)


@register_body("lr", LRConf)
class LR(Body):
    """A logit alone: nothing is hidden."""

    linear = True
    has_logit = True

    def __init__(self, layer: InputLayer, _conf: LRConf) -> None:
        super().__init__(0)
        self.terms = LinearTerm(layer)

    def forward(self, row: Embedded) -> Represented:
        """Rows → logit [n, 1], hidden [n, 0]."""
        logit = self.terms(row)
        return Represented(logit[:, :0], logit)
