"""DIEN: interests are extracted from behaviour, and evolve towards the candidate.

Zhou et al.: "Deep Interest Evolution Network for Click-Through Rate Prediction", AAAI 2019.

1. events, oldest first; a GRU extracts interests       h_t                                    [n, L, w]   (eqs. 2–5)
2. auxiliary loss: h_t tells the next event from another one                                               (eq. 6)
   L_aux = −1/N Σ_i Σ_t log σ(⟨h_t, e_b[t+1]⟩) + log(1 − σ(⟨h_t, ê_b[t+1]⟩))
3. attention of the candidate over interests            a_t = softmax_t(h_t W e_a)             [n, L]      (eq. 9)
4. AUGRU: attention scales the update gate              ũ_t = a_t u_t                         [n, w]      (eqs. 12, 13)
                                                        s_t = (1 − ũ_t) s_{t−1} + ũ_t s̃_t
5. a network over [v_1, …, s_L, …, dense]

ê, the other event, is drawn from all events of the batch; the paper draws an item that the user was shown and left
alone, which a log of actions does not have. N is the pairs of an event and the next one. DeepCTR has a network of
[h, e] for ⟨h, e⟩ in 2 and DIN's activation unit in 3; here both are as the paper's equations have them, and as in
torch-rechub.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from features.manifest import PADDING_ID
from training.batch import Batch
from training.modeling.attention import Match, SequenceConf, masked_softmax, matches
from training.modeling.body import Body, Represented, deep_network, register_body
from training.modeling.inputs import Embedded, Events, InputLayer
from training.modeling.layers import ActivationName

_MANY = 2**62  # so many more than a batch has events that what is left over makes none of them likelier


class DIENConf(SequenceConf):
    """Attributes: the weight α of the auxiliary loss, widths of the network's hidden layers, and their activation."""

    auxiliary_weight: float = Field(default=1.0, ge=0.0)
    hidden: tuple[int, ...] = Field(default=(128, 64), min_length=1)
    activation: ActivationName = "dice"


class AUGRU(nn.Module):
    """A GRU whose update gate is scaled by attention, in torch's layout of gates (r, u, h̃)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input = nn.Linear(width, 3 * width)
        self.state = nn.Linear(width, 3 * width)

    def forward(self, x: Tensor, attention: Tensor) -> Tensor:
        """[n, L, w], [n, L] (0: no event, the state stays) → the last state [n, w]."""
        state = torch.zeros_like(x[:, 0])
        for step, of_input in enumerate(self.input(x).unbind(dim=1)):
            (reset_x, update_x, new_x), (reset_h, update_h, new_h) = of_input.chunk(3, 1), self.state(state).chunk(3, 1)
            new = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
            update = attention[:, step].unsqueeze(1) * torch.sigmoid(update_x + update_h)
            state = (1 - update) * state + update * new
        return state


class InterestEvolution(nn.Module):
    """One sequence: steps 1 to 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.extract = nn.GRU(width, width, batch_first=True)
        self.relevance = nn.Linear(width, width, bias=False)
        self.evolve = AUGRU(width)

    def forward(self, candidate: Tensor, events: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """[n, w], [n, L, w] oldest first with padding behind, [n, L] → the last state [n, w], interests [n, L, w]."""
        interests, _ = self.extract(events)
        scores = (interests @ self.relevance(candidate).unsqueeze(2)).squeeze(2)
        return self.evolve(interests, masked_softmax(scores, present)), interests


def oldest_first(rows: Tensor, present: Tensor) -> Tensor:
    """[n, L, w] newest first → oldest first, padding still behind."""
    length = rows.shape[1]
    count = present.sum(dim=1, keepdim=True).to(torch.int64)
    place = count - 1 - torch.arange(length, device=rows.device)
    place = torch.where(place >= 0, place, torch.arange(length, device=rows.device))
    return rows.gather(1, place.unsqueeze(2).expand_as(rows))


def auxiliary_loss(interests: Tensor, events: Tensor, others: Tensor, present: Tensor) -> Tensor:
    """The sum of eq. 6 over all pairs of an interest and the event after it: [n, L, w] three times, [n, L] → []."""
    before, is_pair = interests[:, :-1], present[:, 1:]
    met = functional.softplus(-(before * events[:, 1:]).sum(dim=2))
    other = functional.softplus((before * others[:, 1:]).sum(dim=2))
    return ((met + other) * is_pair).sum()


@register_body("dien", DIENConf)
class DIEN(Body):
    """hidden: the network's last layer. Of fields that the candidate lacks, the mean is taken beside it."""

    by_event = True

    def __init__(self, layer: InputLayer, conf: DIENConf) -> None:
        super().__init__(conf.hidden[-1])
        self.auxiliary_weight = conf.auxiliary_weight
        self.matches = matches(layer.inputs, conf)
        self.names = [[f"{one.name}.{field.name}" for field in one.fields] for one in layer.inputs.sequences]
        self.evolutions = nn.ModuleDict(
            {
                str(place): InterestEvolution(len(m.fields) * layer.dim)
                for place, m in enumerate(self.matches)
                if m.fields
            }
        )
        self.deep = deep_network(layer, conf.hidden, conf, conf.activation)

    def forward(self, row: Embedded) -> Represented:
        """Rows → hidden [n, H], the sum of the auxiliary loss."""
        pooled, losses = [], []
        for place, (match, events) in enumerate(zip(self.matches, row.events, strict=True)):
            mean = events.rows.sum(dim=1) / events.present.sum(dim=1)[:, None, None].clamp(min=1)
            if match.fields:
                state, loss = self._evolved(str(place), match, row, events)
                evolved = dict(zip(match.fields, state.chunk(len(match.fields), dim=1), strict=True))
                mean = torch.stack([evolved.get(place, own) for place, own in enumerate(mean.unbind(dim=1))], dim=1)
                losses.append(loss)
            pooled.append(mean)
        own = torch.stack(losses).sum() if losses and self.training else None
        return Represented(self.deep(row.with_pooled(pooled).flat), auxiliary=own)

    def _evolved(self, place: str, match: Match, row: Embedded, events: Events) -> tuple[Tensor, Tensor]:
        keys = oldest_first(match.keys(events), events.present)
        state, interests = self.evolutions[place](match.candidate(row), keys, events.present)
        if not self.training:
            return state, state.new_zeros(())
        return state, auxiliary_loss(interests, keys, drawn(keys, events.present), events.present)

    def auxiliary_terms(self, batch: Batch) -> Tensor:
        """[] pairs of an event and the one after it, over all sequences that evolve."""
        terms = batch.label_mask.new_zeros(())
        for names, match in zip(self.names, self.matches, strict=True):
            if match.fields:
                present = torch.stack([batch.sequences[name] != PADDING_ID for name in names]).any(dim=0)
                terms = terms + present[:, 1:].sum()
        return terms


def drawn(events: Tensor, present: Tensor) -> Tensor:
    """For each place any event of the batch, each as likely: [n, L, w], [n, L] → [n, L, w]; 0 where there is none.

    No shape depends on how many events there are, so that a GPU is not waited for: of the events, numbered in order,
    a number is drawn, and looked up in the running count of events.
    """
    is_event = present.flatten() > 0
    so_far, count = is_event.cumsum(dim=0), is_event.sum()
    number = torch.randint(_MANY, present.shape, device=events.device) % count.clamp(min=1)
    place = torch.searchsorted(so_far, number.flatten(), right=True).clamp(max=len(so_far) - 1)
    return events.flatten(end_dim=1)[place].view_as(events) * (count > 0)
