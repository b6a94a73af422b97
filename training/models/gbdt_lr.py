"""GBDT+LR: logistic regression over the leaves that a row falls into.

He et al.: "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014, section 3.1.

    p = sigmoid(b + Σ_t w_t[leaf_t(x)])
The booster is the train set's, fitted on days before all train days; its leaves are columns of ids. With `with_inputs`,
the row "LR + trees" of the paper's table 1: all other inputs have weights, too.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from features.errors import DataError, Problem
from training.modeling.body import Body, RankConf, Represented, register_body
from training.modeling.inputs import Embedded, InputLayer, LinearTerm


class GBDTLRConf(RankConf):
    """Attributes: whether inputs besides leaves count. Nothing is embedded."""

    embedding_dim: int = Field(default=0, ge=0, le=0)
    with_inputs: bool = False


@register_body("gbdt_lr", GBDTLRConf)
class GBDTLR(Body):
    """A logit alone: nothing is hidden."""

    linear = True
    has_logit = True

    def __init__(self, layer: InputLayer, conf: GBDTLRConf) -> None:
        super().__init__(0)
        is_leaf = [field.kind == "leaf" for field in layer.inputs.categorical]
        if not any(is_leaf):
            remedy = "Build the train set with leaves (conf leaves.trees), or choose lr."
            raise DataError([Problem(what="no column of leaves", table=layer.inputs.name, remedy=remedy)])
        self.terms = LinearTerm(layer) if conf.with_inputs else None
        self.register_buffer("is_leaf", torch.tensor(is_leaf).nonzero().squeeze(1), persistent=False)
        self.is_leaf: Tensor

    def forward(self, row: Embedded) -> Represented:
        """Rows → logit [n, 1], hidden [n, 0]."""
        logit = self._of_leaves(row) if self.terms is None else self.terms(row)
        return Represented(logit[:, :0], logit)

    def _of_leaves(self, row: Embedded) -> Tensor:
        assert row.weights is not None, "the table has no linear column"
        return row.weights[:, self.is_leaf].sum(dim=1, keepdim=True)
