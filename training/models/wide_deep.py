"""Wide & Deep: a linear model that memorises beside a network that generalises.

Cheng et al.: "Wide & Deep Learning for Recommender Systems", DLRS 2016.

    p = sigmoid(w_wide · [x, φ(x)] + w_deep · a_final + b)        (eq. 3)
The crosses φ(x) of the paper are columns like any other here: leaves of the booster, or columns of your own.
"""

from __future__ import annotations

from pydantic import Field

from training.modeling.body import Body, RankConf, Represented, deep_network, register_body
from training.modeling.inputs import Embedded, InputLayer, LinearTerm


class WideDeepConf(RankConf):
    """Attributes: widths of the deep part's hidden layers."""

    hidden: tuple[int, ...] = Field(default=(128, 64), min_length=1)


@register_body("wide_deep", WideDeepConf)
class WideDeep(Body):
    """hidden: the deep part's last layer; logit: the wide part."""

    linear = True
    has_logit = True

    def __init__(self, layer: InputLayer, conf: WideDeepConf) -> None:
        super().__init__(conf.hidden[-1])
        self.wide = LinearTerm(layer)
        self.deep = deep_network(layer, conf.hidden, conf)

    def forward(self, row: Embedded) -> Represented:
        """Rows → hidden [n, H], logit [n, 1]."""
        return Represented(self.deep(row.flat), self.wide(row))
