"""DIN: a user's interests as far as the candidate activates them.

Zhou et al.: "Deep Interest Network for Click-Through Rate Prediction", KDD 2018.

    v_U(A) = Σ_j a(e_j, v_A) e_j                              (eq. 4), a: the activation unit, not normalised
    p = sigmoid(w · h(… h([v_1, …, v_U, …, dense])) + b), h with Dice (eq. 3)
`normalised` puts a masked softmax over a, as others do. A sequence that shares no vocabulary with a column is pooled by
its mean. Dice's statistics in the activation unit are over events; DeepCTR counts the padding behind them, too, so that
its output in training depends on the length that sequences are padded to.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from training.modeling.attention import ActivationUnit, Match, SequenceConf, masked_softmax, matches
from training.modeling.body import Body, Represented, deep_network, register_body
from training.modeling.inputs import Embedded, Events, InputLayer
from training.modeling.layers import ActivationName


class DINConf(SequenceConf):
    """Attributes: whether activations are normalised, widths of the network's hidden layers, and their activation."""

    normalised: bool = False
    hidden: tuple[int, ...] = Field(default=(128, 64), min_length=1)
    activation: ActivationName = "dice"


class AttentionPool(nn.Module):
    """A sequence pooled for a candidate: [n, L, k, D] → [n, k, D], all fields with the weight of their event."""

    def __init__(self, match: Match, dim: int, conf: DINConf) -> None:
        super().__init__()
        self.match, self.normalised = match, conf.normalised
        self.unit = ActivationUnit(len(match.fields) * dim, conf) if match.fields else None

    def forward(self, row: Embedded, events: Events) -> Tensor:
        """→ [n, k, D]."""
        if self.unit is None:
            shares = events.present / events.present.sum(dim=1, keepdim=True).clamp(min=1)
        else:
            scores = self.unit(self.match.candidate(row), self.match.keys(events), events.present)
            shares = masked_softmax(scores, events.present) if self.normalised else scores * events.present
        return (shares[:, :, None, None] * events.rows).sum(dim=1)


@register_body("din", DINConf)
class DIN(Body):
    """hidden: the network's last layer."""

    by_event = True

    def __init__(self, layer: InputLayer, conf: DINConf) -> None:
        super().__init__(conf.hidden[-1])
        self.pools = nn.ModuleList(AttentionPool(match, layer.dim, conf) for match in matches(layer.inputs, conf))
        self.deep = deep_network(layer, conf.hidden, conf, conf.activation)

    def forward(self, row: Embedded) -> Represented:
        """Rows → hidden [n, H]."""
        pooled = [pool(row, events) for pool, events in zip(self.pools, row.events, strict=True)]
        return Represented(self.deep(row.with_pooled(pooled).flat))
