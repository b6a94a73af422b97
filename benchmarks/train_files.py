"""The rows of `make bench-train` as files: a train set for our `fit`, and what FuxiCTR's own loader reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.step_arms import EVENTS, FIELDS, HISTORY, ITEM, NAMES, TASK, ArmSpec, Rows, drawn, inputs_of
from features import manifest as m

GROUP_ROWS, SHARDS = 8192, 8
VALID_ROWS = 4096
DAY = "2026-01-01"
USER_INDEX, ITEM_INDEX, SEQUENCE_LENGTH, FULL_SEQUENCE = "user_index", "item_index", "seq_len", "full_item_seq"


def write_trainset(spec: ArmSpec, rows: int, folder: Path) -> None:
    """`rows` to train on and a few to judge, with their manifest, once."""
    if (folder / m.TRAINSET_FILE).is_file():
        return
    found = drawn(spec, rows + VALID_ROWS)
    parts: dict[m.SplitName, Rows] = {"train": found.part(0, rows), "valid": found.part(rows, rows + VALID_ROWS)}
    splits = {name: _write_split(folder, name, part) for name, part in parts.items()}
    described = inputs_of(spec, splits, logical_shards=SHARDS)
    (folder / m.TRAINSET_FILE).write_text(described.model_dump_json(indent=1), encoding="utf-8")


def _write_split(folder: Path, name: m.SplitName, rows: Rows) -> m.Split:
    count = len(rows.labels)
    columns: dict[str, Any] = {m.ROW_ID_COLUMN: np.arange(count), m.GROUP_COLUMN: np.arange(count)}
    columns |= {m.categorical_column(column): _int32(rows.ids[:, place]) for place, column in enumerate(NAMES)}
    columns |= {m.label_column(TASK): rows.labels, m.mask_column(TASK): np.ones(count, np.float32)}
    if rows.events is not None:
        columns[m.sequence_column(HISTORY, ITEM)] = _lists(_int32(rows.events))
    path = Path(name) / "part-00000.parquet"
    (folder / name).mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / path, row_group_size=GROUP_ROWS)
    groups = tuple(min(GROUP_ROWS, count - first) for first in range(0, count, GROUP_ROWS))
    return m.Split(
        days=(DAY,),
        files=(m.DataFile(path=str(path), row_groups=groups),),
        rows=count,
        positives={TASK: int(rows.labels.sum())},
        judged={TASK: count},
    )


def _int32(values: Any) -> Any:
    return np.ascontiguousarray(values, dtype=np.int32)


def _lists(values: Any) -> pa.ListArray:
    starts = pa.array(np.arange(0, values.size + 1, values.shape[1], dtype=np.int32))
    return pa.ListArray.from_arrays(starts, pa.array(values.ravel()))


def write_for_fuxictr(spec: ArmSpec, rows: int, folder: Path) -> None:
    """data.parquet, user_info.parquet (a user per row, with the events) and item_info.parquet, once."""
    if (folder / "data.parquet").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    found = drawn(spec, rows)
    assert found.events is not None, "its zoo is for long sequences"
    items = np.arange(spec.rows // FIELDS)
    users = {USER_INDEX: np.arange(rows), FULL_SEQUENCE: _lists(found.events)}
    pq.write_table(pa.table(users), folder / "user_info.parquet")
    pq.write_table(pa.table({ITEM_INDEX: items, ITEM: items}), folder / "item_info.parquet")
    columns: dict[str, Any] = {name: found.ids[:, place] for place, name in enumerate(NAMES[:-1])}
    columns |= {TASK: found.labels.astype(np.int64)}  # its loader stacks all columns: a float makes floats of ids
    columns |= {USER_INDEX: np.arange(rows), ITEM_INDEX: found.ids[:, -1], SEQUENCE_LENGTH: np.full(rows, EVENTS)}
    pq.write_table(pa.table(columns), folder / "data.parquet")
