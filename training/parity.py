"""Does the published folder give, from raw rows, what the trained model gives on the exported train set?

1. raw rows → the folder's own vocabularies, boundaries and booster → ids, leaves, dense    compared exactly
   with the train set's files of the same rows
2. raw rows → folder → ONNX Runtime             logits, probabilities [n, T]
   train set's files → PyTorch, no position     logits, probabilities [n, T]                 largest difference
3. the same for single rows, and for rows whose ids are taken away and whose sequences are emptied
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.encoding import flat_array
from features.errors import DataError, Problem
from features.manifest import OOV_ID, PADDING_ID, ROW_ID_COLUMN, TrainSet, sequence_column
from features.schema import sequence_name
from training.export import for_serving, torch_scores
from training.modeling.base import RankingModel
from training.scorer import IDS, Scorer, graph_inputs, row_slices
from training.verdict import Parity

SINGLE_ROWS = 32
STRIPPED_ROWS = 256
ROWS_AT_ONCE = 4096


def check_parity(model: RankingModel, folder: Path, samples: pa.Table, encoded: pa.Table) -> Parity:
    """Compare the published folder with the trained model on held-out rows.

    Args:
        model: as trained.
        folder: as published.
        samples: unencoded rows, at least 10,000 where the held-out day has them.
        encoded: the train set's files of at least these rows; matched by row_id.

    Returns:
        What was compared and the largest differences; `training.gate` decides.

    Raises:
        DataError: if there are no rows, or the train set lacks some of them.
    """
    scorer, model = Scorer.open(str(folder)), for_serving(model)
    exported = _same_rows(samples, encoded)
    own = scorer.encoder.encode(samples)
    raw, stored = graph_inputs(own, scorer.trainset), graph_inputs(exported, scorer.trainset)
    single = {name: value[:SINGLE_ROWS] for name, value in raw.items()}
    stripped = graph_inputs(scorer.encoder.encode(_stripped(samples, scorer.trainset)), scorer.trainset)
    pairs = [
        (raw, stored, ROWS_AT_ONCE),
        (single, single, 1),
        (stripped, stripped, ROWS_AT_ONCE),
        (stripped, stripped, 1),
    ]
    differences = [_difference(model, scorer, *pair) for pair in pairs]
    oov, empty = _oov_rows(raw), _empty_rows(raw, scorer.trainset)
    return Parity(
        rows=len(samples),
        rows_with_empty_sequence=int(empty.sum()),
        rows_with_oov=int(oov.sum()),
        stripped_rows=len(stripped[IDS]),
        single_row_batches=len(single[IDS]) + len(stripped[IDS]),
        differing_columns=_differing(own, exported),
        logit_difference=float(np.max([logit for logit, _ in differences])),
        probability_difference=float(np.max([probability for _, probability in differences])),
    )


def _same_rows(samples: pa.Table, encoded: pa.Table) -> pa.Table:
    """The encoded rows of the samples, in their order."""
    wanted = flat_array(samples["impression_id"]).cast(pa.int64())
    found = pc.index_in(wanted, value_set=flat_array(encoded[ROW_ID_COLUMN]))
    absent = wanted.filter(pc.is_null(found))
    if len(wanted) == 0 or len(absent):
        what = "held-out rows are not in the train set" if len(absent) else "there are no held-out rows"
        remedy = "Check parity on the rows of the split that the train set exported"
        raise DataError(
            [Problem(table="samples", what=what, count=len(absent), examples=absent[:5].to_pylist(), remedy=remedy)]
        )
    return encoded.take(found)


def _stripped(samples: pa.Table, trainset: TrainSet) -> pa.Table:
    """Some of the rows, with no known id and no event: every serving path sees such users."""
    rows = samples.slice(0, STRIPPED_ROWS)
    ids = {f.name for f in trainset.categorical if f.kind == "id"} - set(
        trainset.leaves.features if trainset.leaves else ()
    )
    events = {sequence_name(s.name, field.name) for s in trainset.sequences for field in s.fields}
    for place, field in enumerate(rows.schema):
        if field.name in events:
            rows = rows.set_column(place, field, pa.array([[]] * len(rows), field.type))
        elif field.name in ids - {"user_id", "impression_id"}:
            rows = rows.set_column(place, field, pa.nulls(len(rows), field.type))
        elif field.name == "user_id":  # the group, too, so not null: a user that no vocabulary knows
            rows = rows.set_column(place, field, pa.array(np.full(len(rows), -1), field.type))
    return rows


def _difference(
    model: RankingModel,
    scorer: Scorer,
    raw: dict[str, NDArray[Any]],
    stored: dict[str, NDArray[Any]],
    rows_at_once: int,
) -> tuple[float, float]:
    """Largest absolute differences of logits and of probabilities; NaN if any is."""
    logits, probabilities = scorer.run(raw, rows_at_once)
    parts = [torch_scores(model, scorer.trainset, part) for part in row_slices(stored, ROWS_AT_ONCE)]
    wanted = [np.concatenate(part) for part in zip(*parts, strict=True)]
    return float(np.abs(logits - wanted[0]).max()), float(np.abs(probabilities - wanted[1]).max())


def _oov_rows(inputs: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
    return np.asarray((inputs[IDS] == OOV_ID).any(axis=1))


def _empty_rows(inputs: dict[str, NDArray[Any]], trainset: TrainSet) -> NDArray[np.bool_]:
    empty = np.zeros(len(inputs[IDS]), dtype=bool)
    for sequence in trainset.sequences:
        events = inputs[sequence_column(sequence.name, sequence.fields[0].name)]
        empty |= (events == PADDING_ID).all(axis=1)
    return empty


def _differing(own: pa.Table, exported: pa.Table) -> dict[str, int]:
    """Input columns in which the folder's encoding is not exactly the train set's → rows that differ."""
    labels = ("y__", "m__", "position")
    columns = [n for n in own.column_names if n in exported.column_names and not n.startswith(labels)]
    return {name: count for name in columns if (count := _unequal_rows(own[name], exported[name]))}


def _unequal_rows(one: pa.ChunkedArray, other: pa.ChunkedArray) -> int:
    a, b = (flat_array(column) for column in (one, other))
    if pa.types.is_list(a.type):
        width = len(a.flatten()) // len(a)
        left, right = (array.flatten().to_numpy().reshape(-1, width) for array in (a, b))
        return int((left != right).any(axis=1).sum())
    left, right = a.to_numpy(zero_copy_only=False), b.to_numpy(zero_copy_only=False)
    return int((~((left == right) | ((left != left) & (right != right)))).sum())
