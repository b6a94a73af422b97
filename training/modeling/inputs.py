"""From a Batch to numbers: one lookup for all ids, fields of one dim, dense numbers as they are.

n: rows, C: looked-up columns, D: embedding dim, L: sequence length, K: dense numbers, M: fields, S: sequences,
k: fields of a sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from features.manifest import PADDING_ID, TrainSet
from training.batch import Batch
from training.modeling.embedding import INITIAL_STD, Columns, EmbeddingTable
from training.modeling.layers import unlowered


@dataclass(frozen=True, kw_only=True)
class Events:
    """A sequence event by event, newest first.

    Attributes:
        rows: [n, L, k, D], 0 where there is no event.
        present: [n, L] 1 or 0.
    """

    rows: Tensor
    present: Tensor


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """Rows of a batch, embedded.

    Attributes:
        fields: [n, M, D]: ids, then sequences (each field the mean of its events, unless they came event by event
            and were not pooled yet), then vectors, then all dense numbers as one.
        weights: [n, F + sequence fields] linear weights of ids, a mean per sequence field; None if the table has none.
        dense: [n, K].
        vectors: [n, all their dims side by side].
        events: one per sequence if the layer reads them event by event, otherwise empty.
    """

    fields: Tensor
    weights: Tensor | None
    dense: Tensor
    vectors: Tensor
    events: tuple[Events, ...] = ()
    ids: int = 0

    @property
    def flat(self) -> Tensor:
        """Fields and dense numbers side by side: [n, M·D + K]."""
        return _side_by_side([self.fields.flatten(start_dim=1), self.dense])

    def with_pooled(self, pooled: Sequence[Tensor]) -> Self:
        """Each sequence as [n, k, D], put where the means of its events would stand."""
        first, rest = self.fields[:, : self.ids], self.fields[:, self.ids :]
        return replace(self, fields=torch.cat([first, *pooled, rest], dim=1))


class InputLayer(nn.Module):
    """From a Batch to `Embedded`.

    All ids, those of sequences too, are one lookup, so that the table has one sparse gradient:

    1. ids [n, F] and each sequence field [n, L] side by side      → [n, C], C = F + Σ L
    2. the shared table; a sequence field is the mean of its events → [n, F + sequence fields, D (+1)]
       (event by event: each its own                                → [n, C, D])
    3. each vector, and all dense numbers together, projected      → [n, D] each

    Attributes:
        inputs: the train set.
        dim: D.
        fields: M = F + sequence fields + vectors + (1 if there are dense numbers), sequences pooled.
        dense_width, vectors_width: K, and the dims of all vectors.
        flat_width: width of `Embedded.flat`, sequences pooled.
    """

    def __init__(self, inputs: TrainSet, table: EmbeddingTable, *, by_event: bool = False) -> None:
        super().__init__()
        self.inputs, self.dim, self._by_event = inputs, table.dim, by_event
        self._table = [table]  # in a list: the model owns it, and names it once in its state dict
        self._vectors = tuple(vector.name for vector in inputs.vectors)
        self._sequences = tuple(
            (f"{sequence.name}.{field.name}", field.vocabulary, sequence.length)
            for sequence in inputs.sequences
            for field in sequence.fields
        )
        self._fields_of = tuple(len(sequence.fields) for sequence in inputs.sequences)
        offsets = [table.offsets[column.vocabulary] for column in inputs.categorical]
        for _, vocabulary, length in self._sequences:
            offsets += [table.offsets[vocabulary]] * length
        lengths = [length for _, _, length in self._sequences]
        self._ids = len(inputs.categorical)
        self.columns = Columns(offsets, [1] * len(offsets) if by_event else [1] * self._ids + lengths)
        self.dense_width, self.vectors_width = len(inputs.dense), sum(vector.dim for vector in inputs.vectors)
        projected = table.dim > 0
        self.vectors = nn.ModuleList(_projection(v.dim, table.dim) for v in inputs.vectors if projected)
        self.dense = _projection(len(inputs.dense), table.dim) if inputs.dense and projected else None
        self.fields = self._ids + len(self._sequences) + len(self.vectors) + (self.dense is not None)
        self.flat_width = self.fields * table.dim + self.dense_width

    def forward(self, batch: Batch) -> Embedded:
        """Rows → the same, embedded."""
        return self.embedded(self.look_up(batch), batch)

    def look_up(self, batch: Batch) -> Tensor:
        """Steps 1 and 2, all that reads the table: [n, F + sequence fields or C, D (+1)]."""
        sequences = [batch.sequences[name] for name, _, _ in self._sequences]
        looked_up: Tensor = self._table[0](torch.cat([batch.ids, *sequences], dim=1), self.columns)
        return looked_up

    def embedded(self, looked_up: Tensor, batch: Batch) -> Embedded:
        """Step 3, of what `look_up` gave."""
        sequences = [batch.sequences[name] for name, _, _ in self._sequences]
        vectors = [batch.vectors[name] for name in self._vectors]
        projected = [layer(vector).unsqueeze(1) for layer, vector in zip(self.vectors, vectors, strict=False)]
        projected += [self.dense(batch.dense).unsqueeze(1)] if self.dense is not None else []
        # split, not slices: gradients of slices are each spread over zeros, and then added up
        rows, weights = torch.split(looked_up, [self.dim, looked_up.shape[2] - self.dim], dim=2)
        of_ids = rows
        events: tuple[Events, ...] = ()
        if self._by_event:
            of_ids, of_events = torch.split(rows, [self._ids, rows.shape[1] - self._ids], dim=1)
            events = self._events(of_events, sequences)
        return Embedded(
            fields=_side_by_side([of_ids, *projected]),
            weights=weights.squeeze(2) if weights.shape[2] else None,
            dense=batch.dense,
            vectors=torch.cat([*vectors, batch.dense[:, :0]], dim=1),
            events=events,
            ids=self._ids,
        )

    def _events(self, rows: Tensor, sequences: Sequence[Tensor]) -> tuple[Events, ...]:
        """[n, Σ L, D] in the order of the sequence fields → per sequence its fields side by side."""
        by_field = torch.split(rows, [ids.shape[1] for ids in sequences], dim=1)
        found, first = [], 0
        for count in self._fields_of:
            own = slice(first, first + count)
            present = torch.stack([ids != PADDING_ID for ids in sequences[own]], dim=0).any(dim=0)
            found.append(Events(rows=torch.stack(by_field[own], dim=2), present=present.to(rows.dtype)))
            first += count
        return tuple(found)


def _side_by_side(parts: list[Tensor]) -> Tensor:
    """Along the second dimension, contiguous; what has no columns costs no copy."""
    kept = [part for part in parts if part.shape[1]] or parts[:1]
    return torch.cat(kept, dim=1) if len(kept) > 1 else kept[0].contiguous()


def _projection(inputs: int, dim: int) -> nn.Linear:
    layer = nn.Linear(inputs, dim, bias=False)
    nn.init.normal_(layer.weight, std=INITIAL_STD)
    return layer


class LinearTerm(nn.Module):
    """⟨w, x⟩ over every input: the table's linear column for ids, a weight per dense number and vector element."""

    def __init__(self, layer: InputLayer) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(layer.dense_width + layer.vectors_width, 1))

    def forward(self, row: Embedded) -> Tensor:
        """Rows → [n, 1]."""
        assert row.weights is not None, "the table has no linear column"
        numbers = torch.cat([row.dense, row.vectors], dim=1)
        return row.weights.sum(dim=1, keepdim=True) + unlowered(torch.matmul, numbers, self.weight)
