"""The models' equations, written with loops over one row: what the fast ones are checked against."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from features.manifest import PADDING_ID, TrainSet
from training.batch import Batch

Array = NDArray[np.float64]


def row_fields(batch: Batch, row: int, trainset: TrainSet, table: Array) -> list[Array]:
    """One vector of the table's width per id and per sequence field: the id's row, or the mean of its events'."""
    offsets = trainset.offsets()
    fields = [
        _mean([int(batch.ids[row, column])], offsets[field.vocabulary], table)
        for column, field in enumerate(trainset.categorical)
    ]
    for sequence in trainset.sequences:
        for field in sequence.fields:
            events = [int(e) for e in batch.sequences[f"{sequence.name}.{field.name}"][row]]
            fields.append(_mean(events, offsets[field.vocabulary], table))
    return fields


def _mean(ids: Sequence[int], offset: int, table: Array) -> Array:
    present = [table[offset + one] for one in ids if one != PADDING_ID]
    return np.mean(present, axis=0) if present else np.zeros(table.shape[1])


def pairs_of_fields(fields: Sequence[Array]) -> float:
    """Σ_{i<j} ⟨v_i, v_j⟩."""
    return float(sum(a @ b for a, b in itertools.combinations(fields, 2)))


def adagrad_rows(weight: Array, blocks: Sequence[int], gradients: Sequence[Array], rate: float, l2: float) -> Array:
    """Row-wise Adagrad over dense gradients in which an untouched row is NaN: the table after all of them."""
    weight = weight.copy()
    bounds = np.cumsum([0, *blocks])
    squares = np.zeros((len(weight), len(blocks)))
    for gradient in gradients:
        for row in range(len(weight)):
            if np.isnan(gradient[row]).any():
                continue
            step = gradient[row] + l2 * weight[row]
            for block, (start, end) in enumerate(itertools.pairwise(bounds)):
                squares[row, block] += np.mean(step[start:end] ** 2)
                weight[row, start:end] -= rate * step[start:end] / (np.sqrt(squares[row, block]) + 1e-8)
    return weight
