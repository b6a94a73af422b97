"""Petastorm's Reader, made to hand out whole row groups as packed, shuffled blocks.

Petastorm gives the sharding, the pool of threads and the pass over the row groups. A `BlockWorker` reads one
row group with one open, packs its columns into few matrices and publishes them under the row group's number.
Petastorm hands out its pieces in file order; the worker reads the row group that the plan put in a piece's
place, and publishes nothing for a piece that the plan does not need.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from petastorm.arrow_reader_worker import ArrowReaderWorker
from petastorm.reader import Reader
from petastorm.workers_pool import EmptyResultError
from petastorm.workers_pool.thread_pool import ThreadPool

from features.errors import DataError, Problem
from training.blocks import Array, Block, Part, pack
from training.feed_plan import Plan, RowGroup, Slice
from training.storage import ArrowOpener, Folder

# A thread has at most four row groups in flight, each a block and a receipt. With room for twice that, a worker
# that fails can always leave its last message, and stopping never waits for a consumer that is gone.
_RESULTS_PER_THREAD = 16

_EXPORT_AGAIN = "The files are not those that the manifest lists: export the train set again."


@dataclass(frozen=True, kw_only=True)
class BlockSource:
    """Where the row groups of a split lie, and which of their columns are wanted."""

    root: Folder
    groups: tuple[RowGroup, ...]
    parts: tuple[Part, ...]
    threads: int

    @property
    def columns(self) -> list[str]:
        """The columns to read."""
        return [column for part in self.parts for column in part.columns]

    @property
    def files(self) -> list[str]:
        """The split's files in manifest order."""
        return list(dict.fromkeys(group.path for group in self.groups))


class BlockWorker(ArrowReaderWorker):  # type: ignore[misc]
    """Reads, packs and shuffles one row group at a time, in one of Petastorm's threads."""

    def __init__(self, worker_id: int, publish: Any, arguments: Any, source: BlockSource, plan: Plan) -> None:
        super().__init__(worker_id, publish, arguments)
        self._source = source
        self._plan = plan

    def piece_places(self) -> list[tuple[str, int]]:
        """(file, row group in it) of each of Petastorm's pieces."""
        return [(piece.path, piece.row_group) for piece in self._split_pieces]

    def process(self, piece_index: int, **_ventilated: Any) -> None:
        """Publish the block that the plan put in the place of a piece; or the error, which ends the reader."""
        number = self._plan.reads.get(piece_index)
        if number is None:
            return
        group = self._source.groups[number]
        piece = self._split_pieces[number]
        try:
            table = self._read_row_group(piece, group)
            parts = pack(table, self._source.parts, self._plan.row_order(group))
        except DataError as error:
            self.publish_func(DataError(replace(problem, what=_at(group, problem.what)) for problem in error.problems))
        except (OSError, pa.ArrowException) as error:
            self.publish_func(DataError([Problem(what=_at(group, f"unreadable: {error}"), remedy=_EXPORT_AGAIN)]))
        else:
            self.publish_func(Block(row_group=number, parts=parts))

    def _read_row_group(self, piece: Any, group: RowGroup) -> pa.Table:
        remote = not self._source.root.is_local
        with self._filesystem.open(piece.path) as opened, pq.ParquetFile(opened, pre_buffer=remote) as file:
            actual = file.metadata.row_group(piece.row_group).num_rows
            if actual != group.rows:
                what = f"{actual} rows, the manifest says {group.rows}"
                raise DataError([Problem(what=what, remedy=_EXPORT_AGAIN)])
            stored = set(file.schema_arrow.names)
            missing = [column for column in self._source.columns if column not in stored]
            if missing:
                problem = Problem(what="columns missing", count=len(missing), examples=missing, remedy=_EXPORT_AGAIN)
                raise DataError([problem])
            return file.read_row_group(piece.row_group, columns=self._source.columns, use_threads=False)


def _at(group: RowGroup, what: str) -> str:
    return f"{group.path}, row group {group.ordinal}: {what}"


class _BlockQueue:
    """Hands blocks out as they are; Petastorm's own reader of results would make named tuples of columns."""

    batched_output = True

    def read_next(self, workers_pool: Any, *_schema_and_ngram: Any) -> Block:
        while True:
            try:
                block: Block = workers_pool.get_results()
                return block
            except EmptyResultError as error:
                # Petastorm's pool looks for work in flight first, and whether more is to come second: pieces handed
                # out in between are overlooked. Nothing more is to come now, so a second look is the truth.
                if workers_pool.all_workers_done():
                    raise StopIteration from error


@dataclass(frozen=True)
class _Workers:
    """What Petastorm takes for its worker class: it makes `BlockWorker`s that know the plan."""

    source: BlockSource
    plan: Plan

    def __call__(self, worker_id: int, publish: Any, arguments: Any) -> BlockWorker:
        worker = BlockWorker(worker_id, publish, arguments, self.source, self.plan)
        if worker.piece_places() != [(self.source.root.path(g.path), g.ordinal) for g in self.source.groups]:
            raise DataError(_damage(self.source))
        return worker

    @staticmethod
    def new_results_queue_reader() -> _BlockQueue:
        return _BlockQueue()


class Blocks:
    """Blocks by row group, pulled from Petastorm until the wanted one is there."""

    def __init__(self, arriving: Iterator[Block]) -> None:
        self._arriving = arriving
        self._held: dict[int, Block] = {}

    def take(self, wanted: Slice, *, of: RowGroup) -> dict[str, Array]:
        """Rows of a block; it is let go with its last row.

        Raises:
            DataError: whatever a worker met; or the pass ended without the row group.
        """
        while wanted.row_group not in self._held:
            block = next(self._arriving, None)
            if block is None:
                raise DataError([Problem(what=_at(of, "never came out of Petastorm"), remedy=_EXPORT_AGAIN)])
            self._held[block.row_group] = block
        parts = self._held[wanted.row_group].parts
        if wanted.stop == of.rows:
            del self._held[wanted.row_group]
        return {name: values[wanted.start : wanted.stop] for name, values in parts.items()}


@contextmanager
def open_blocks(source: BlockSource, plan: Plan) -> Iterator[Blocks]:
    """One pass of one Petastorm Reader; its threads have ended when the context does.

    Raises:
        DataError: files missing, unreadable, or with other row groups than the manifest; all of them at once.
    """
    if not plan.reads:
        yield Blocks(iter(()))
        return
    reader = _open_reader(source, plan)
    try:
        yield Blocks(reader)
    finally:
        reader.stop()
        reader.join()


def _open_reader(source: BlockSource, plan: Plan) -> Reader:
    # Fewer row groups than ranks: Petastorm refuses to shard them. The plan still says what this rank reads.
    sharded = len(source.groups) >= plan.world.size
    with warnings.catch_warnings():
        # Petastorm 0.13 is written against pyarrow's deprecated ParquetDataset; nothing a user could change.
        warnings.simplefilter("ignore", FutureWarning)
        try:
            return Reader(
                ArrowOpener(source.root),
                [source.root.path(file) for file in source.files],
                schema_fields=[f"{re.escape(column)}$" for column in source.columns],
                is_batched_reader=True,
                worker_class=_Workers(source, plan),
                reader_pool=ThreadPool(source.threads, results_queue_size=_RESULTS_PER_THREAD * source.threads),
                shuffle_row_groups=False,
                num_epochs=1,
                cur_shard=plan.world.rank if sharded else None,
                shard_count=plan.world.size if sharded else None,
            )
        except (OSError, pa.ArrowException, RuntimeError) as error:
            problems = _damage(source)
            if not problems:
                raise
            raise DataError(problems) from error


def _damage(source: BlockSource) -> list[Problem]:
    """What is wrong with the footers of a split's files, against the manifest."""
    missing, unreadable, different = [], [], []
    opener = ArrowOpener(source.root)
    for name in source.files:
        listed = [group.rows for group in source.groups if group.path == name]
        path = source.root.path(name)
        if not opener.isfile(path):
            missing.append(name)
            continue
        try:
            with opener.open(path) as opened, pq.ParquetFile(opened) as file:
                actual = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        except (OSError, pa.ArrowException) as error:
            unreadable.append(f"{name} ({error})")
            continue
        if actual != listed:
            different.append(
                f"{name} ({len(actual)} row groups of {sum(actual)} rows, not {len(listed)} of {sum(listed)})"
            )
    found = (("files missing", missing), ("files unreadable", unreadable), ("other row groups than listed", different))
    return [
        Problem(what=f"{what} below {source.root.url}", count=len(names), examples=names, remedy=_EXPORT_AGAIN)
        for what, names in found
        if names
    ]
