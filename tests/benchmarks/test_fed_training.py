"""Fed and resident passes are the same steps, and a difference between them stops the bench."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import fed_training
from benchmarks.fed_training import FED, RESIDENT, Epoch, Trainer, take_turns, without_lists
from benchmarks.feed_arms import Source, shuffled_feed
from benchmarks.feed_data import Shape, write_rows
from training.batch import Batch
from training.exchange import SingleExchange

SHAPE = Shape(name="lists", rows=300, ids=3, lists=1, length=4, keys=30)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(root=str(write_rows(SHAPE, tmp_path, lambda _rows: None)), batch_size=64)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fed_training, "MODEL", {"embedding_dim": 4, "hidden": [8]})


def test_both_arms_take_the_same_steps_from_the_same_weights(source: Source, small: None) -> None:
    told: list[str] = []
    trainer = Trainer(without_lists(source.trainset), SingleExchange())
    kept = list(shuffled_feed(source, 0))
    arms = {FED: lambda: shuffled_feed(source, 0), RESIDENT: lambda: kept}
    found = take_turns(trainer, arms, 2, lambda name, _epoch: told.append(name))
    assert told == [FED, RESIDENT, RESIDENT, FED, FED, RESIDENT]
    summaries = [one.summary() for one in found.values()]
    assert {one["loss"] for one in summaries} == {found[FED].done[0].loss}
    assert {one["rows"] for one in summaries} == {sum(map(len, kept))}
    assert all(0 <= one["waiting"] < 1 for one in summaries)


def test_other_batches_are_noticed(source: Source, small: None) -> None:
    trainer = Trainer(without_lists(source.trainset), SingleExchange())
    kept: list[Batch] = list(shuffled_feed(source, 0))
    arms = {FED: lambda: shuffled_feed(source, 1), RESIDENT: lambda: kept}
    with pytest.raises(ValueError, match="came to losses"):
        take_turns(trainer, arms, 1, _ignore)


def _ignore(_name: str, _epoch: Epoch) -> None:
    pass


def test_lists_are_neither_read_nor_given_rows_of_the_table(source: Source) -> None:
    trainset = without_lists(source.trainset)
    assert trainset.sequences == ()
    assert trainset.table_rows() == SHAPE.ids * SHAPE.keys
