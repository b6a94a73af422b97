"""Attention of a candidate over the events of a sequence.

n: rows, L: sequence length, D: embedding dim, k: fields of a sequence, q: those of them that the candidate has, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn

from features.errors import ConfError
from features.manifest import TrainSet
from training.modeling.body import RankConf
from training.modeling.inputs import Embedded, Events
from training.modeling.layers import ActivationName, Dice, activation, head


class SequenceConf(RankConf):
    """Settings of models that read sequences event by event.

    Attributes:
        candidates: vocabulary → the column that holds the candidate's id of it; needed where several columns share a
            vocabulary with a sequence.
        attention_hidden: widths of the activation unit's hidden layers.
        attention_activation: of these.
    """

    candidates: Mapping[str, str] = Field(default_factory=dict)
    attention_hidden: tuple[int, ...] = Field(default=(36,), min_length=1)
    attention_activation: ActivationName = "dice"


@dataclass(frozen=True, kw_only=True)
class Match:
    """Which fields of a sequence the candidate has, too.

    They are taken one by one: a list of places would be copied to the device at every step.

    Attributes:
        fields: places among the sequence's k fields.
        columns: of each the place of the candidate's column among the categorical ones.
    """

    fields: tuple[int, ...]
    columns: tuple[int, ...]

    def keys(self, events: Events) -> Tensor:
        """[n, L, k, D] → [n, L, q·D]."""
        return torch.cat([events.rows[:, :, place] for place in self.fields], dim=2)

    def candidate(self, row: Embedded) -> Tensor:
        """→ [n, q·D]."""
        return torch.cat([row.fields[:, place] for place in self.columns], dim=1)


def matches(inputs: TrainSet, conf: SequenceConf) -> tuple[Match, ...]:
    """Of each sequence the fields that share a vocabulary with a column; there may be none.

    Raises:
        ConfError: several columns share it and `candidates` does not say which, or names another.
    """
    columns: dict[str, list[int]] = {}
    for place, column in enumerate(inputs.categorical):
        columns.setdefault(column.vocabulary, []).append(place)
    names = [column.name for column in inputs.categorical]
    read = {field.vocabulary for sequence in inputs.sequences for field in sequence.fields}
    chosen: dict[str, int] = {}
    problems = []
    for vocabulary in sorted(read & columns.keys()):
        known = [names[place] for place in columns[vocabulary]]
        wanted = conf.candidates.get(vocabulary, known[0] if len(known) == 1 else None)
        if wanted in known:
            chosen[vocabulary] = names.index(wanted)
        else:
            problems.append(f"model.candidates.{vocabulary}={wanted!r}: choose one of {', '.join(known)}")
    if problems:
        raise ConfError("\n".join(problems))
    return tuple(_match([field.vocabulary for field in sequence.fields], chosen) for sequence in inputs.sequences)


def _match(vocabularies: Sequence[str], chosen: Mapping[str, int]) -> Match:
    found = [(place, chosen[name]) for place, name in enumerate(vocabularies) if name in chosen]
    return Match(fields=tuple(place for place, _ in found), columns=tuple(column for _, column in found))


class ActivationUnit(nn.Module):
    """How much an event matters for the candidate: MLP([q, e, q − e, q ⊙ e]) → a number (Zhou et al. 2018, fig. 2).

    The paper's figure has the product alone; its code has the difference, too, and so do the peers.
    """

    def __init__(self, width: int, conf: SequenceConf) -> None:
        super().__init__()
        widths = [4 * width, *conf.attention_hidden]
        self.layers = nn.ModuleList(nn.Linear(inputs, out) for inputs, out in pairwise(widths))
        self.activations = nn.ModuleList(activation(conf.attention_activation, out) for out in widths[1:])
        self.last = head(widths[-1])

    def forward(self, candidate: Tensor, events: Tensor, present: Tensor) -> Tensor:
        """[n, w], [n, L, w], [n, L] → scores [n, L], whatever they are where there is no event."""
        asked = candidate.unsqueeze(1).expand_as(events)
        hidden = torch.cat([asked, events, asked - events, asked * events], dim=2).flatten(end_dim=1)
        for layer, act in zip(self.layers, self.activations, strict=True):
            hidden = layer(hidden)
            hidden = act(hidden, present.flatten()) if isinstance(act, Dice) else act(hidden)
        scores: Tensor = self.last(hidden).view(present.shape)
        return scores


def masked_softmax(scores: Tensor, present: Tensor) -> Tensor:
    """Softmax over the events that are there, [n, L] → [n, L]; all 0 where there is none."""
    floor = torch.finfo(scores.dtype).min
    shares = torch.softmax(scores.masked_fill(present == 0, floor), dim=1)
    return shares * present
