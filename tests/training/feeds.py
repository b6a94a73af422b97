"""The feed that tests read from, over a train set of unequal row groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from features import manifest as m
from tests.training.trainset_factory import write_trainset
from training.feed import Feed
from training.world import World

SEED = 11
BATCH = 100

Exported = tuple[m.TrainSet, Path]  # and the folder it lies in


def write_unequal(folder: Path) -> Exported:
    """2,100 train rows in 66 row groups of 32, the last one short: unequal shards, no size divides another."""
    return write_trainset(folder, rows=2100, valid_rows=333, group_rows=32, files=3, weights=True), folder


def feed_of(trainset: Exported, rank: int = 0, size: int = 1, **changes: Any) -> Feed:
    values: dict[str, Any] = {"split": "train", "batch_size": BATCH, "seed": SEED}
    return Feed(trainset[0], str(trainset[1]), world=World(rank=rank, size=size), **(values | changes))
