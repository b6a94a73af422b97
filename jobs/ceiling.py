"""What the best possible model, and no model at all, reach on the gate day: for the report only.

The simulator's truth is read here and nowhere else: no feature, no model and no gate ever sees it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sklearn.metrics import roc_auc_score

from features.errors import DataError, Problem
from features.manifest import ROW_ID_COLUMN, label_column, mask_column

HEAT_FEATURE = "room_viewers"
POPULARITY_FEATURE = "anchor_enters_30d"
LIVE_SOURCES = ("simulate", "kuailive")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """AUC of a model's task by the truth and by the heat of the rooms; None where unknown."""

    ceiling: float | None
    heat: float | None


def probabilities_of_truth(truth: str, day: str) -> pa.Table:
    """impression_id and, per task, the true probability in the task's own space.

    `enter` is taken without the position's effect: serving does not know the position.
    """
    table = pq.read_table(f"{truth}/impressions/dt={day}")
    own = {name.removeprefix("p_"): table[name] for name in table.column_names if name.startswith("p_")}
    own["enter"] = own.pop("enter_no_position")
    return pa.table({"impression_id": table["impression_id"], **own})


def heat_of(samples: pa.Table, feature: str = HEAT_FEATURE) -> pa.Table:
    """impression_id and heat of every row: the ranking that needs no model."""
    return pa.table({"impression_id": samples["impression_id"], "heat": samples[feature]})


def references(
    predictions: Path, outputs: Mapping[str, tuple[str, ...]], heat: pa.Table, truth: pa.Table | None
) -> dict[str, Reference]:
    """Reference AUCs of each output on the rows that a model was judged on.

    Args:
        predictions: predictions-gate.parquet.
        outputs: output → the labels that must all be 1; its true probability is the product of theirs.
        heat: see `heat_of`.
        truth: see `probabilities_of_truth`; None for real data.
    """
    rows = pq.read_table(predictions)
    found = {}
    for name, labels in outputs.items():
        kept = rows.filter(pc.greater(rows[mask_column(name)], 0))
        label, weight = kept[label_column(name)].to_numpy(), kept[mask_column(name)].to_numpy()
        ids = kept[ROW_ID_COLUMN]
        ceiling = None
        if truth is not None and all(task in truth.column_names for task in labels):
            score = np.prod([_taken(truth, task, ids) for task in labels], axis=0)
            ceiling = _auc(label, score, weight)
        found[name] = Reference(ceiling=ceiling, heat=_auc(label, _taken(heat, "heat", ids), weight))
    return found


def baseline_feature(source: str) -> str:
    """What stands for heat: viewers where rooms are live, else the anchor's popularity over 30 days."""
    return HEAT_FEATURE if source in LIVE_SOURCES else POPULARITY_FEATURE


def _taken(table: pa.Table, column: str, ids: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    places = pc.index_in(ids, value_set=table["impression_id"].combine_chunks())
    if places.null_count:
        remedy = "Simulate the day again into the same truth folder"
        raise DataError([Problem(what=f"judged rows without {column}", count=places.null_count, remedy=remedy)])
    return np.asarray(table[column].take(places).to_numpy(), dtype=np.float64)


def _auc(
    label: npt.NDArray[np.float64], score: npt.NDArray[np.float64], weight: npt.NDArray[np.float64]
) -> float | None:
    if len(np.unique(label)) < 2:
        return None
    return float(roc_auc_score(label, score, sample_weight=weight))
