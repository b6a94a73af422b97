"""The training side on S3: a train set that the ranks read, and checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from features import storage
from features.errors import DataError
from features.manifest import TRAINSET_FILE, TrainSet
from tests.training.trainset_factory import write_trainset
from training.checkpoint import Checkpoint, RandomState, latest, save
from training.feed import Feed
from training.storage import Folder
from training.world import World

RANKS = 2


@pytest.fixture
def uploaded(s3: str, tmp_path: Path) -> str:
    """A small train set on S3; the folder's URL."""
    write_trainset(tmp_path, rows=640, valid_rows=70, gate_rows=70, group_rows=32, files=2)
    for file in tmp_path.rglob("*"):
        if file.is_file():
            storage.write_bytes(f"{s3}/trainset/{file.relative_to(tmp_path)}", file.read_bytes())
    return f"{s3}/trainset"


def feeds(url: str) -> list[Feed]:
    trainset = TrainSet.model_validate_json(storage.read_bytes(f"{url}/{TRAINSET_FILE}"))
    return [
        Feed(trainset, url, split="train", batch_size=64, world=World(rank=rank, size=RANKS), seed=1)
        for rank in range(RANKS)
    ]


def test_the_feed_delivers_every_row_once(uploaded: str) -> None:
    ranks = feeds(uploaded)
    rows = [row for feed in ranks for batch in feed.epoch(0) for row in batch.row_id.tolist()]
    assert len(rows) == len(set(rows)) == 640 - ranks[0].dropped_per_epoch > 0
    judged = [row for feed in ranks for batch in feed.evaluation() for row in batch.row_id.tolist() if row >= 0]
    assert len(judged) == len(set(judged)) == 640


def test_a_file_that_is_gone_is_named(uploaded: str) -> None:
    gone = storage.list_files(f"{uploaded}/train", recursive=True)[0]
    storage.delete(gone.url)
    with pytest.raises(DataError, match=gone.name):
        list(feeds(uploaded)[0].epoch(0))


def test_checkpoints_are_saved_and_the_newest_comes_back(s3: str) -> None:
    for step in (1, 2, 3):
        weights = {"weight": torch.full((3, 2), float(step))}
        states = [RandomState.capture()]
        saved = Checkpoint(
            step=step, model=weights, optimiser={}, feed={"epoch": 0, "step": step}, random_states=states
        )
        assert save(f"{s3}/run", saved, keep=2) > 24, "bytes of the weights alone"
    loaded = latest(f"{s3}/run")
    assert loaded is not None
    assert (loaded.step, loaded.feed) == (3, {"epoch": 0, "step": 3})
    assert loaded.model["weight"].equal(torch.full((3, 2), 3.0))
    assert [name for name in Folder(f"{s3}/run").names() if name.startswith("checkpoint")] == [
        "checkpoint.00000001.json",
        "checkpoint.00000002.json",
    ]
