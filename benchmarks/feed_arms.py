"""Ways from Parquet to batches, each building the same matrices: ours, bare Arrow, and Petastorm's two loaders.

Every arm reads with two threads beside the one that consumes, on the same two cores. What each peer was given:
  arrow      two threads, each reading whole row groups and building their batches; no shuffle, no cutting into equal
             batches, files opened once: the least that any feed has to do
  batched    make_batch_reader → BatchedDataLoader with a shuffling queue; rows go into tensors in the reading threads
  by row     make_batch_reader → DataLoader with a shuffling queue
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from petastorm import make_batch_reader
from petastorm.pytorch import BatchedDataLoader, DataLoader
from torch import Tensor

from features import manifest as m
from training.batch import Batch
from training.feed import Feed
from training.world import World

SPLIT: m.SplitName = "train"
SEED = 7
AHEAD = 4
"""Row groups per thread that bare Arrow may be ahead of the consumer; as many as Petastorm's reader allows."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What an arm reads.

    Attributes:
        root: folder of a train set.
        batch_size: rows of a batch.
        threads: that read.
        files: of the split, the first so many; all of them if None.
    """

    root: str
    batch_size: int = 4096
    threads: int = 2
    files: int | None = None

    @cached_property
    def trainset(self) -> m.TrainSet:
        """The manifest, with the files that are to be read."""
        read = m.TrainSet.model_validate_json((Path(self.root) / m.TRAINSET_FILE).read_text(encoding="utf-8"))
        if self.files is None:
            return read
        files = read.splits[SPLIT].files[: self.files]
        rows = sum(sum(file.row_groups) for file in files)
        split = read.splits[SPLIT].model_copy(update={"files": files, "rows": rows})
        return read.model_copy(update={"splits": {SPLIT: split}})

    @property
    def rows(self) -> int:
        """Rows of the files."""
        return self.trainset.splits[SPLIT].rows

    @property
    def paths(self) -> list[Path]:
        """The files."""
        return [Path(self.root) / file.path for file in self.trainset.splits[SPLIT].files]

    @cached_property
    def columns(self) -> Columns:
        """Names of what is read."""
        return Columns.of(self.trainset)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Columns of each matrix of a `Batch`; sequence → its column."""

    ids: tuple[str, ...]
    dense: tuple[str, ...]
    labels: tuple[str, ...]
    masks: tuple[str, ...]
    sequences: Mapping[str, str]

    @classmethod
    def of(cls, trainset: m.TrainSet) -> Columns:
        """Of a train set without vectors and positions."""
        return cls(
            ids=tuple(m.categorical_column(field.name) for field in trainset.categorical),
            dense=tuple(m.dense_column(field.name) for field in trainset.dense),
            labels=tuple(m.label_column(task.name) for task in trainset.tasks),
            masks=tuple(m.mask_column(task.name) for task in trainset.tasks),
            sequences={
                f"{sequence.name}.{field.name}": m.sequence_column(sequence.name, field.name)
                for sequence in trainset.sequences
                for field in sequence.fields
            },
        )

    @property
    def names(self) -> list[str]:
        """All of them."""
        scalars = (*self.ids, *self.dense, *self.labels, *self.masks, m.GROUP_COLUMN, m.ROW_ID_COLUMN)
        return [*scalars, *self.sequences.values()]


ReadPass = Callable[[Source, int], Iterator[Batch]]
"""One pass over the rows of a source; its number makes shuffled passes differ."""


def shuffled_feed(source: Source, number: int) -> Iterator[Batch]:
    """Ours: an epoch in a global order that depends on (seed, epoch) alone."""
    feed = Feed(
        source.trainset,
        source.root,
        split=SPLIT,
        batch_size=source.batch_size,
        world=World(),
        seed=SEED,
        threads=source.threads,
    )
    yield from feed.epoch(number)


def bare_arrow(source: Source, _number: int) -> Iterator[Batch]:
    """Row groups in file order, each a batch, read and built by the threads."""
    footers = {path: pq.read_metadata(path) for path in source.paths}
    places = [(path, group) for path, footer in footers.items() for group in range(footer.num_row_groups)]
    # A ParquetFile must not be read by two threads at once.
    files = {
        (thread, path): pq.ParquetFile(path, metadata=footer)
        for thread in range(source.threads)
        for path, footer in footers.items()
    }
    names = source.columns.names

    def read(thread: int, path: Path, group: int) -> Batch:
        table = files[thread, path].read_row_group(group, columns=names, use_threads=False)
        return _from_arrow(table, source.columns)

    pools = [ThreadPoolExecutor(1) for _ in range(source.threads)]
    work = zip(itertools.cycle(range(source.threads)), places, strict=False)
    coming: deque[Future[Batch]] = deque()
    try:
        for thread, (path, group) in work:
            coming.append(pools[thread].submit(read, thread, path, group))
            if len(coming) > AHEAD * source.threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)


def _from_arrow(table: Any, columns: Columns) -> Batch:
    def array(name: str) -> Any:
        return table.column(name).chunk(0)

    def matrix(names: tuple[str, ...], kind: type) -> Tensor:
        packed: Any = np.empty((len(table), len(names)), kind)
        for place, name in enumerate(names):
            packed[:, place] = array(name).to_numpy()
        return torch.from_numpy(packed)

    def sequence(name: str) -> Tensor:
        values = array(name).flatten().to_numpy()
        return torch.from_numpy(values.reshape(len(table), -1).astype(np.int64))

    return Batch(
        ids=matrix(columns.ids, np.int64),
        dense=matrix(columns.dense, np.float32),
        vectors={},
        sequences={name: sequence(column) for name, column in columns.sequences.items()},
        labels=matrix(columns.labels, np.float32),
        label_mask=matrix(columns.masks, np.float32),
        position=None,
        group=torch.from_numpy(array(m.GROUP_COLUMN).to_numpy().copy()),
        row_id=torch.from_numpy(array(m.ROW_ID_COLUMN).to_numpy().copy()),
    )


def batched_loader(source: Source, number: int, *, capacity: int) -> Iterator[Batch]:
    """Petastorm's batched loader; `capacity` rows in its shuffling queue, none if 0."""
    reader = _reader(source, number)
    with BatchedDataLoader(reader, source.batch_size, shuffling_queue_capacity=capacity) as loader:
        for columns in loader:
            yield _from_columns(columns, source.columns)


def row_loader(source: Source, number: int, *, capacity: int) -> Iterator[Batch]:
    """Petastorm's loader of rows."""
    with DataLoader(_reader(source, number), source.batch_size, shuffling_queue_capacity=capacity) as loader:
        for columns in loader:
            yield _from_columns(columns, source.columns)


def _reader(source: Source, number: int) -> Any:
    """All columns are wanted: to name them would cost Petastorm a match of every name against every column."""
    return make_batch_reader(
        [path.resolve().as_uri() for path in source.paths],
        workers_count=source.threads,
        seed=number + 1,  # 0 would mean none
        shuffle_row_groups=True,
        convert_early_to_numpy=True,
    )


def _from_columns(read: Mapping[str, Tensor], columns: Columns) -> Batch:
    def matrix(names: tuple[str, ...], kind: torch.dtype) -> Tensor:
        if not names:
            return torch.empty((len(read[m.ROW_ID_COLUMN]), 0), dtype=kind)
        return torch.stack([read[name] for name in names], dim=1).to(kind)

    return Batch(
        ids=matrix(columns.ids, torch.int64),
        dense=matrix(columns.dense, torch.float32),
        vectors={},
        sequences={name: read[column].to(torch.int64) for name, column in columns.sequences.items()},
        labels=matrix(columns.labels, torch.float32),
        label_mask=matrix(columns.masks, torch.float32),
        position=None,
        group=read[m.GROUP_COLUMN],
        row_id=read[m.ROW_ID_COLUMN],
    )


def same_shuffle(source: Source) -> int:
    """Rows that our feed mixes at any time: a row group of every logical shard."""
    groups = [rows for file in source.trainset.splits[SPLIT].files for rows in file.row_groups]
    return min(source.trainset.logical_shards, len(groups)) * max(groups)


SMALL_QUEUE = 8192
OURS, ARROW, BATCHED, BATCHED_SMALL, BY_ROW = "feed", "arrow", "batched", "batched small", "by row"
OF_PETASTORM = (BATCHED, BATCHED_SMALL, BY_ROW)


def arms(source: Source, files_by_row: int | None) -> dict[str, tuple[ReadPass, Source]]:
    """Name → how it reads, and what: loading by row may be given fewer files."""
    queue = same_shuffle(source)
    return {
        OURS: (shuffled_feed, source),
        ARROW: (bare_arrow, source),
        BATCHED: (partial(batched_loader, capacity=queue), source),
        BATCHED_SMALL: (partial(batched_loader, capacity=SMALL_QUEUE), source),
        BY_ROW: (partial(row_loader, capacity=queue), replace(source, files=files_by_row)),
    }
