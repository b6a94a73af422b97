"""A train set with its gate day's samples, small enough that a training takes seconds: what trials are made of.

Real vocabularies, a real booster, rows that features.encoding has encoded; no Spark.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from features import manifest as m
from features import storage
from features.checksums import checksums
from features.encoding import Encoder
from tests.e2e.demo import EASY
from tests.training.raw_trainset import GATE_DAY, TRAIN_DAY, raw_samples, write_raw_trainset

MODEL, PUBLISHED_MODEL = "deepfm", "lr"  # the second one's graph is exported in a fraction of the time
VALID_DAY = TRAIN_DAY + datetime.timedelta(days=1)
TRAIN_ROWS, VALID_ROWS, GATE_ROWS = 2048, 300, 400
ROW_GROUP, FILES = 64, 3
EPOCHS = 4
CHECKPOINT_STEPS = 4
LOST_SECONDS = 4
OVERRIDES = (
    *EASY,
    *("training.ranks=2", f"training.models=[{PUBLISHED_MODEL}]", "gate.segments.columns=[user_city]"),
    *("gate.main.min_positives=1", "gate.main.min_negatives=1"),
)
MODELS: Mapping[str, Mapping[str, Any]] = {
    MODEL: {"name": MODEL, "task": "enter", "embedding_dim": 4, "hidden": [8], "dropout": 0.2},
    PUBLISHED_MODEL: {"name": PUBLISHED_MODEL, "task": "enter"},
}
# With dropout, so that random states matter; all epochs, so that a run is long enough to be disturbed.
TRAINING: Mapping[str, Any] = {
    "batch_size": 128,
    "evaluation_batch_size": 256,
    "epochs": EPOCHS,
    "threads": 1,
    "device": "cpu",
    "early_stopping": {"patience": 99},
    "checkpoint": {"every_steps": CHECKPOINT_STEPS, "keep": 2},
    "ranks": {"lost_seconds": LOST_SECONDS},
}


def write_world(root: Path) -> None:
    """`root/trainset`, and `root/samples/gate.parquet`: the same rows as its gate split, unencoded.

    The train set names the samples by `root`, which must therefore be where a trial has it.
    """
    raw = write_raw_trainset(root / "trainset", gate_rows=GATE_ROWS)
    gate = root / "samples" / "gate.parquet"
    gate.parent.mkdir()
    pq.write_table(raw.samples, gate)
    encoder = Encoder.load(raw.trainset, raw.root)
    days = {"train": (TRAIN_DAY, TRAIN_ROWS), "valid": (VALID_DAY, VALID_ROWS)}
    drawn = {name: raw_samples(rows, day, seed) for seed, (name, (day, rows)) in enumerate(days.items(), start=20)}
    splits: dict[m.SplitName, m.Split] = {
        "train": _written(root / "trainset", "train", encoder.encode(drawn["train"]), TRAIN_DAY),
        "valid": _written(root / "trainset", "valid", encoder.encode(drawn["valid"]), VALID_DAY),
        "gate": _written(root / "trainset", "gate", raw.encoded, GATE_DAY, gate),
    }
    trainset = raw.trainset.model_copy(update={"splits": splits, "logical_shards": 8, "seen_until": str(VALID_DAY)})
    (root / "trainset" / m.TRAINSET_FILE).write_text(trainset.model_dump_json(indent=1), encoding="utf-8")


def _written(
    root: Path, split: m.SplitName, rows: pa.Table, day: datetime.date, samples: Path | None = None
) -> m.Split:
    """Rows in files of row groups, with checksums, as the export stage leaves them."""
    groups = [rows.slice(start, ROW_GROUP) for start in range(0, len(rows), ROW_GROUP)]
    (root / split).mkdir()
    files = []
    for number in range(FILES):
        own, path = groups[number::FILES], f"{split}/part-{number:05d}.parquet"
        with pq.ParquetWriter(root / path, rows.schema, compression="zstd") as writer:
            for group in own:
                writer.write_table(group, row_group_size=len(group))
        with storage.open_input(str(root / path)) as written:
            sums = checksums(written)
        files.append(m.DataFile(path=path, row_groups=tuple(len(group) for group in own), checksums=sums))
    named = () if samples is None else (str(samples),)
    return m.Split(days=(str(day),), files=tuple(files), rows=len(rows), sample_files=named)
