"""What comes out of Petastorm is the plan, bit for bit: any world size, any number of threads, any start."""

from __future__ import annotations

import json
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch
from petastorm.reader import Reader

from features import manifest as m
from features import storage
from features.errors import ConfError
from tests.training.feeds import BATCH, SEED, Exported, feed_of, write_unequal
from tests.training.stores import open_store
from tests.training.trainset_factory import write_trainset
from training import block_reader
from training.batch import Batch
from training.blocks import pack
from training.feed import Feed, FeedPosition
from training.feed_plan import EpochPlan, list_row_groups, plan_epoch
from training.reader_pool import WatchedPool
from training.world import World


@pytest.fixture(scope="module")
def trainset(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return write_unequal(tmp_path_factory.mktemp("trainset"))


def _tensors(batch: Batch) -> dict[str, torch.Tensor]:
    scalars = ("ids", "dense", "labels", "label_mask", "group", "row_id")
    tensors = {name: getattr(batch, name) for name in scalars}
    if batch.position is not None:
        tensors["position"] = batch.position
    return tensors | dict(batch.vectors) | dict(batch.sequences)


def _assert_equal(mine: list[Batch], theirs: list[Batch]) -> None:
    assert len(mine) == len(theirs)
    for left, right in zip(map(_tensors, mine), map(_tensors, theirs), strict=True):
        assert left.keys() == right.keys()
        for name, values in left.items():
            assert values.dtype == right[name].dtype
            assert values.equal(right[name]), name


def _plan(described: m.TrainSet, rank: int, size: int, epoch: int) -> EpochPlan:
    return plan_epoch(
        list_row_groups(described.splits["train"].files),
        logical_shards=described.logical_shards,
        batch_size=BATCH,
        world=World(rank=rank, size=size),
        seed=SEED,
        epoch=epoch,
    )


def _oracle(trainset: Exported, rank: int, size: int, epoch: int) -> list[Batch]:
    """The plan carried out naively: whole files in memory, one row after the other, no Petastorm."""
    described, folder = trainset
    groups = list_row_groups(described.splits["train"].files)
    plan = _plan(described, rank, size, epoch)
    tables = {path: pq.ParquetFile(folder / path) for path in {group.path for group in groups}}
    batches = []
    for step in range(plan.steps):
        rows: list[dict[str, Any]] = []
        for part in plan.slices(step):
            group = groups[part.row_group]
            stored = tables[group.path].read_row_group(group.ordinal).to_pylist()
            rows += [stored[place] for place in plan.row_order(group)[part.start : part.stop]]
        batches.append(_as_batch(described, rows))
    return batches


def _as_batch(described: m.TrainSet, rows: list[dict[str, Any]]) -> Batch:
    def matrix(columns: list[str], kind: torch.dtype) -> torch.Tensor:
        return torch.tensor([[row[column] for column in columns] for row in rows], dtype=kind)

    def column(name: str, kind: torch.dtype) -> torch.Tensor:
        return torch.tensor([row[name] for row in rows], dtype=kind)

    tasks = [task.name for task in described.tasks]
    return Batch(
        ids=matrix([m.categorical_column(field.name) for field in described.categorical], torch.int64),
        dense=matrix([m.dense_column(field.name) for field in described.dense], torch.float32),
        vectors={v.name: column(m.vector_column(v.name), torch.float32) for v in described.vectors},
        sequences={
            f"{s.name}.{field.name}": column(m.sequence_column(s.name, field.name), torch.int64)
            for s in described.sequences
            for field in s.fields
        },
        labels=matrix([m.label_column(task) for task in tasks], torch.float32),
        label_mask=matrix([m.mask_column(task) for task in tasks], torch.float32),
        position=column(m.POSITION_COLUMN, torch.int64),
        group=column(m.GROUP_COLUMN, torch.int64),
        row_id=column(m.ROW_ID_COLUMN, torch.int64),
    )


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_every_rank_reads_the_plan_bit_for_bit(trainset: Exported, size: int) -> None:
    for rank in range(size):
        _assert_equal(list(feed_of(trainset, rank, size).epoch(1)), _oracle(trainset, rank, size, epoch=1))


def test_thread_timing_never_shows(trainset: Exported) -> None:
    once = list(feed_of(trainset, threads=1).epoch(0))
    for _ in range(2):
        _assert_equal(list(feed_of(trainset, threads=4).epoch(0)), once)


def test_global_steps_are_the_same_rows_for_every_world_size_that_divides_the_shards(
    trainset: Exported,
) -> None:
    expected = [sorted(batch.row_id.tolist()) for batch in feed_of(trainset).epoch(0)]
    for size in (2, 4):
        ranks = [list(feed_of(trainset, rank, size).epoch(0)) for rank in range(size)]
        steps = [torch.cat([batch.row_id for batch in step]) for step in zip(*ranks, strict=True)]
        assert [sorted(step.tolist()) for step in steps] == expected


def test_every_row_once_or_counted_as_dropped(trainset: Exported) -> None:
    for size in (1, 3):
        feeds = [feed_of(trainset, rank, size) for rank in range(size)]
        rows = [row for feed in feeds for batch in feed.epoch(0) for row in batch.row_id.tolist()]
        assert len(rows) == len(set(rows)) == feeds[0].steps_per_epoch * BATCH
        assert len(rows) + feeds[0].dropped_per_epoch == feeds[0].rows == 2100


def test_epochs_differ_and_repeat(trainset: Exported) -> None:
    feed = feed_of(trainset)
    first, second = (torch.cat([batch.row_id for batch in feed.epoch(epoch)]) for epoch in (0, 1))
    again = torch.cat([batch.row_id for batch in feed.epoch(0)])
    assert not first.equal(second)
    assert first.equal(again)


@pytest.mark.parametrize("size", [1, 3])
def test_resuming_at_any_step_gives_the_remaining_batches(trainset: Exported, size: int) -> None:
    whole = list(feed_of(trainset, 0, size).epoch(2))
    for step in (1, len(whole) // 2, len(whole) - 1, len(whole)):
        _assert_equal(list(feed_of(trainset, 0, size).epoch(2, start_step=step)), whole[step:])


def test_the_saved_position_leads_to_the_next_batch(trainset: Exported) -> None:
    feed = feed_of(trainset)
    whole = list(feed.epoch(0))
    assert feed.position == FeedPosition(epoch=1, step=0)
    stopped = feed_of(trainset)
    batches = stopped.epoch(0)
    for _ in range(3):
        next(batches)
    saved = stopped.state_dict()
    batches.close()
    resumed = feed_of(trainset)
    resumed.load_state_dict(saved)
    assert resumed.position == FeedPosition(epoch=0, step=3)
    _assert_equal(list(resumed.epoch(resumed.position.epoch, resumed.position.step)), whole[3:])


def test_a_position_in_another_order_is_refused(trainset: Exported) -> None:
    saved = feed_of(trainset).state_dict()
    with pytest.raises(ConfError, match=r"seed was 11, is 12, batch_size was 100, is 50"):
        feed_of(trainset, seed=12, batch_size=50).load_state_dict(saved)


def test_rows_left_by_one_number_of_ranks_are_read_once_by_others(trainset: Exported) -> None:
    """16 streams, then 15, then 16 again, then 14: what is saved is JSON, and each row is read once."""
    saved: dict[str, Any] = feed_of(trainset).state_dict()
    read: list[int] = []
    for size, steps in ((2, 4), (3, 5), (1, 0), (4, 3), (7, 99)):
        ranks = [feed_of(trainset, rank, size) for rank in range(size)]
        batches = []
        for feed in ranks:
            feed.load_state_dict(json.loads(json.dumps(saved)))
            batches.append(feed.epoch(feed.position.epoch, feed.position.step))
        for _, step in zip(range(steps), zip(*batches, strict=True), strict=False):
            rows = torch.cat([batch.row_id for batch in step]).tolist()
            assert len(rows) == BATCH
            read += rows
        for reading in batches:
            reading.close()
        assert all(feed.state_dict() == ranks[0].state_dict() for feed in ranks)
        saved = ranks[0].state_dict()
    assert (saved["epoch"], saved["step"], saved["dealt"]) == (1, 0, [])
    assert len(read) == len(set(read)) == 2100


def test_the_epoch_after_one_that_was_dealt_out_anew_is_as_ever(trainset: Exported) -> None:
    resumed = feed_of(trainset, size=3)
    resumed.load_state_dict(feed_of(trainset).state_dict() | {"step": 3})
    assert resumed.state_dict()["dealt"] == [[16, 3]]
    _assert_equal(list(resumed.epoch(1)), list(feed_of(trainset, size=3).epoch(1)))


@pytest.mark.parametrize("size", [1, 2, 3, 12])
def test_evaluation_reads_every_row_once_and_pads_with_masked_rows(trainset: Exported, size: int) -> None:
    stored = pq.read_table(trainset[1] / "valid").to_pandas().set_index(m.ROW_ID_COLUMN)
    ranks = [list(feed_of(trainset, rank, size, split="valid").evaluation()) for rank in range(size)]
    assert len({len(batches) for batches in ranks}) == 1
    assert len({len(batch) for batches in ranks for batch in batches}) == 1
    read: list[int] = []
    for batch in (batch for batches in ranks for batch in batches):
        real = batch.row_id >= 0
        assert batch.position is None
        assert set(batch.row_id[~real].tolist()) <= {-1}
        assert not batch.label_mask[~real].any()
        read += batch.row_id[real].tolist()
        labels = stored.loc[batch.row_id[real].numpy(), "y__enter"].to_numpy()
        np.testing.assert_array_equal(batch.labels[real, 0].numpy(), labels)
    assert sorted(read) == sorted(stored.index)


def test_evaluation_with_fewer_row_groups_than_ranks(tmp_path: Path) -> None:
    described = write_trainset(tmp_path, rows=64, valid_rows=40, group_rows=32, shards=2)
    ranks = [list(feed_of((described, tmp_path), rank, 3, split="valid").evaluation()) for rank in range(3)]
    assert [sum(int((batch.row_id >= 0).sum()) for batch in batches) for batches in ranks] == [32, 8, 0]


class CountingReader(Reader):  # type: ignore[misc]
    """Petastorm's own Reader, which remembers what went through it."""

    opened: list[CountingReader]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.blocks = 0
        self.opened.append(self)

    def __next__(self) -> Any:
        block = super().__next__()
        self.blocks += 1
        return block

    @property
    def ventilated(self) -> list[int]:
        """The pieces of this rank's shard."""
        return [item["piece_index"] for item in self.ventilator._items_to_ventilate]


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> list[CountingReader]:
    CountingReader.opened = []
    monkeypatch.setattr(block_reader, "Reader", CountingReader)
    return CountingReader.opened


def test_every_block_comes_through_petastorm_and_its_sharding(
    trainset: Exported, counting: list[CountingReader]
) -> None:
    for rank in range(2):
        rows = sum(len(batch) for batch in feed_of(trainset, rank, 2).epoch(0))
        reader = counting.pop()
        assert rows == 20 * BATCH // 2
        assert reader.ventilated == list(range(rank, 66, 2))
        assert reader.blocks == len(_plan(trainset[0], rank, 2, epoch=0).reads)
        assert reader.blocks in (32, 33)


class LateVentilationPool(WatchedPool):
    """Hands all pieces out between the pool's look for work in flight and its look for more to come."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.looked = threading.Event()

    def ventilate(self, *arguments: Any, **options: Any) -> None:
        self.looked.wait()
        super().ventilate(*arguments, **options)

    def all_workers_done(self) -> bool:
        done = bool(super().all_workers_done())
        self.looked.set()
        self._ventilator._ventilation_thread.join()
        return done


def test_pieces_handed_out_at_the_last_moment_are_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = write_trainset(tmp_path, rows=256, group_rows=16)
    monkeypatch.setattr(block_reader, "WatchedPool", LateVentilationPool)
    read = [batch.row_id for batch in feed_of((described, tmp_path), batch_size=32, threads=4).epoch(0)]
    assert len(torch.cat(read)) == 256


def test_a_resumed_epoch_reads_only_the_row_groups_that_are_left(
    trainset: Exported, counting: list[CountingReader]
) -> None:
    steps = feed_of(trainset).steps_per_epoch
    list(feed_of(trainset).epoch(0, start_step=steps - 1))
    assert counting[0].blocks <= 2 * 16


def _left_over() -> tuple[set[threading.Thread], int, int]:
    """Threads, open files, processes begun here."""
    process = psutil.Process()
    return set(threading.enumerate()), process.num_fds(), len(process.children(recursive=True))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_nothing_outlives_an_epoch(trainset: Exported, prefetch: int) -> None:
    list(feed_of(trainset).epoch(0))  # what libraries open once and keep
    before = _left_over()
    list(feed_of(trainset, threads=4, prefetch=prefetch).epoch(0))
    assert _left_over() == before
    batches = feed_of(trainset, threads=4, prefetch=prefetch).epoch(0)
    next(batches)
    assert _left_over()[0] > before[0]
    batches.close()
    assert _left_over() == before
    evaluated = feed_of(trainset, threads=4, prefetch=prefetch).evaluation()
    next(evaluated)
    del evaluated  # a loop that an error ends does not close its feed: it lets it go
    assert _left_over() == before


def test_a_feed_that_is_closed_before_its_first_batch_has_begun_nothing(trainset: Exported) -> None:
    before = _left_over()
    feed_of(trainset).epoch(0).close()
    assert _left_over() == before


@pytest.mark.parametrize("prefetch", [0, 1, 5])
def test_batches_made_ahead_are_the_same_in_the_same_order(trainset: Exported, prefetch: int) -> None:
    _assert_equal(list(feed_of(trainset, prefetch=prefetch).epoch(1)), _oracle(trainset, 0, 1, epoch=1))


class CountedArrays:
    """How many blocks are in memory: each has one array of row ids, which lives as long as any part of it does."""

    def __init__(self) -> None:
        self.now, self.most = 0, 0
        self._changed = threading.Condition()

    def pack(self, *arguments: Any) -> dict[str, Any]:
        parts = pack(*arguments)
        with self._changed:
            self.now += 1
            self.most = max(self.most, self.now)
            self._changed.notify_all()
        weakref.finalize(parts["row_id"], self._gone)
        return parts

    def reaches(self, count: int) -> bool:
        """Wait, not for ever, until so many are in memory."""
        with self._changed:
            return self._changed.wait_for(lambda: self.now >= count, timeout=60)

    def _gone(self) -> None:
        with self._changed:
            self.now -= 1


@pytest.mark.parametrize(("size", "row_groups"), [(1, 16), (1, 19), (2, 8), (4, None)])
def test_no_more_row_groups_are_in_memory_than_conf_allows(
    trainset: Exported, monkeypatch: pytest.MonkeyPatch, size: int, row_groups: int | None
) -> None:
    """The threads fill the room that there is while nobody takes a second batch, and never more than that."""
    counted, room = CountedArrays(), row_groups or 16 // size + 4 * 2
    monkeypatch.setattr(block_reader, "pack", counted.pack)
    feed = feed_of(trainset, 0, size, row_groups=row_groups, threads=2, prefetch=0).epoch(1)
    batches = [next(feed)]
    assert counted.reaches(room)
    _assert_equal([*batches, *feed], _oracle(trainset, 0, size, epoch=1))
    assert counted.most == room
    assert counted.now == 0


def test_unequal_row_groups_are_not_held_for_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One stream of large row groups beside one of many small ones: still one of each is held."""
    counted = CountedArrays()
    monkeypatch.setattr(block_reader, "pack", counted.pack)
    described = write_trainset(tmp_path, rows=600, shards=2, group_rows=[90, 10] * 6, files=2)
    read = [batch.row_id for batch in feed_of((described, tmp_path), batch_size=20, row_groups=2).epoch(0)]
    assert len(torch.cat(read)) == 120
    assert counted.most == 2


def test_too_little_room_for_row_groups_is_refused(trainset: Exported) -> None:
    with pytest.raises(ConfError, match=r"feed_row_groups=7: rank 1 of 2 reads from 8 row groups at once. Set it to 8"):
        next(feed_of(trainset, 1, 2, row_groups=7).epoch(0))
    assert len(list(feed_of(trainset, 1, 2, row_groups=1, split="valid").evaluation())) > 1


def test_a_store_that_is_no_local_disk(trainset: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = open_store("memory", tmp_path, monkeypatch)
    for file in trainset[1].rglob("*.parquet"):
        storage.write_bytes(f"{url}/{file.relative_to(trainset[1])}", file.read_bytes())
    there = Feed(trainset[0], url, split="train", batch_size=BATCH, world=World(), seed=SEED)
    _assert_equal(list(there.epoch(0)), list(feed_of(trainset).epoch(0)))


def test_no_dense_no_vectors_no_sequences_no_positions(tmp_path: Path) -> None:
    described = write_trainset(tmp_path, rows=256, group_rows=16)
    bare = described.model_copy(update={"dense": (), "vectors": (), "sequences": (), "positions": None})
    batch = next(feed_of((bare, tmp_path), batch_size=32).epoch(0))
    assert batch.dense.shape == (32, 0)
    assert (batch.vectors, batch.sequences, batch.position) == ({}, {}, None)


def test_an_unknown_split_and_no_threads_are_refused(trainset: Exported) -> None:
    without_gate = trainset[0].model_copy(update={"splits": {"train": trainset[0].splits["train"]}})
    with pytest.raises(ConfError, match="no split 'gate'; it has train"):
        feed_of((without_gate, trainset[1]), split="gate")
    with pytest.raises(ConfError, match=r"feed\.threads=0"):
        feed_of(trainset, threads=0)
    with pytest.raises(ConfError, match=r"feed\.prefetch=-1"):
        feed_of(trainset, prefetch=-1)
