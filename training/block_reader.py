"""Petastorm's Reader, made to hand out whole row groups as packed, shuffled blocks.

Petastorm gives the sharding, the pool of threads and the pass over the row groups. A `BlockWorker` reads one
row group, of a file that stays open, packs its columns into few matrices and publishes them under the row group's
number. Petastorm hands out its pieces in file order; the worker reads the row group that the plan put in a piece's
place, and publishes nothing for a piece that the plan does not need. So row groups arrive in the order in which
they are wanted, and what is held is what was begun, and what waits in `training.reader_pool`'s window.
"""

from __future__ import annotations

import threading
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from petastorm.arrow_reader_worker import ArrowReaderWorker
from petastorm.reader import Reader
from petastorm.workers_pool import EmptyResultError

from features.errors import ConfError, DataError, Problem
from training.blocks import Block, Part, Rows, pack
from training.feed_plan import Plan, RowGroup, Slice
from training.open_files import EXPORT_AGAIN, OpenFiles
from training.reader_pool import AHEAD_PER_THREAD, WatchedPool, Window
from training.storage import ArrowOpener, Folder
from training.streams import Need, most_held

_OPENING = threading.Lock()  # warnings.catch_warnings belongs to the process, not to a thread


@dataclass(frozen=True, kw_only=True)
class BlockSource:
    """Where the row groups of a split lie, which of their columns are wanted, and what may be held of them.

    Attributes:
        threads: that read.
        held: row groups that may be in memory at once; as many as are begun at once and four per thread if None.
    """

    root: Folder
    groups: tuple[RowGroup, ...]
    parts: tuple[Part, ...]
    threads: int
    held: int | None = None

    @property
    def columns(self) -> list[str]:
        """The columns to read."""
        return [column for part in self.parts for column in part.columns]

    @property
    def files(self) -> list[str]:
        """The split's files in manifest order."""
        return list(dict.fromkeys(group.path for group in self.groups))

    def window(self, plan: Plan) -> Window:
        """Room for the row groups of a plan.

        Raises:
            ConfError: `held` is less than the plan has begun at once.
        """
        least = most_held(plan.needs)
        if self.held is not None and self.held < least:
            raise ConfError(
                f"feed_row_groups={self.held}: rank {plan.world.rank} of {plan.world.size} reads from {least} row "
                f"groups at once. Set it to {least} or more, or train with more ranks."
            )
        return Window(least + AHEAD_PER_THREAD * self.threads if self.held is None else self.held)


class BlockWorker(ArrowReaderWorker):  # type: ignore[misc]
    """Reads and packs one row group at a time, in one of Petastorm's threads."""

    def __init__(
        self, worker_id: int, publish: Any, arguments: Any, source: BlockSource, plan: Plan, window: Window
    ) -> None:
        super().__init__(worker_id, publish, arguments)
        self._source = source
        self._plan = plan
        self._window = window
        self.files = OpenFiles(source.root, source.columns)
        self._places = {piece: place for place, piece in enumerate(plan.reads)}

    def piece_places(self) -> list[tuple[str, int]]:
        """(file, row group in it) of each of Petastorm's pieces."""
        return [(piece.path, piece.row_group) for piece in self._split_pieces]

    def process(self, piece_index: int, **_ventilated: Any) -> None:
        """Publish the block that the plan put in the place of a piece; or the error, which ends the reader."""
        number = self._plan.reads.get(piece_index)
        if number is None or not self._window.enter(self._places[piece_index]):
            return
        group = self._source.groups[number]
        try:
            parts = pack(self._read_row_group(group), self._source.parts, self._plan.row_order(group))
        except DataError as error:
            self.publish_func(DataError(replace(problem, what=_at(group, problem.what)) for problem in error.problems))
        except (OSError, pa.ArrowException) as error:
            self.publish_func(
                DataError([Problem(what=_at(group, f"unreadable: {_in_one_line(error)}"), remedy=EXPORT_AGAIN)])
            )
        except Exception as error:
            error.add_note(f"while reading {group.path}, row group {group.ordinal}")
            raise
        else:
            self.publish_func(Block(row_group=number, parts=parts))

    def _read_row_group(self, group: RowGroup) -> pa.Table:
        file = self.files.get(group.path)
        actual = file.metadata.row_group(group.ordinal).num_rows
        if actual != group.rows:
            what = f"{actual} rows, the manifest says {group.rows}"
            raise DataError([Problem(what=what, remedy=EXPORT_AGAIN)])
        return file.read_row_group(group.ordinal, columns=self._source.columns, use_threads=False)


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())


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
    window: Window
    made: list[BlockWorker] = field(default_factory=list)

    def __call__(self, worker_id: int, publish: Any, arguments: Any) -> BlockWorker:
        worker = BlockWorker(worker_id, publish, arguments, self.source, self.plan, self.window)
        self.made.append(worker)
        if worker.piece_places() != [(self.source.root.path(g.path), g.ordinal) for g in self.source.groups]:
            raise DataError(_damage(self.source))
        return worker

    @staticmethod
    def new_results_queue_reader() -> _BlockQueue:
        return _BlockQueue()

    def close(self) -> None:
        """Close the files of all workers, whose threads have ended."""
        for worker in self.made:
            worker.files.close()


class Blocks:
    """Blocks by row group, pulled from Petastorm until the wanted one is there."""

    def __init__(self, arriving: Iterator[Block], needs: Iterable[Need], window: Window) -> None:
        self._arriving = arriving
        self._window = window
        self._held: dict[int, Block] = {}
        self._untaken = {need.row_group: need.rows for need in needs}
        self._finished: int | None = None

    def take(self, wanted: Slice, *, of: RowGroup) -> Rows:
        """Rows of a block: views, to be copied before the next call, which lets a block go that was taken whole.

        Raises:
            DataError: whatever a worker met; or the pass ended without the row group.
        """
        self._let_go()
        while wanted.row_group not in self._held:
            block = next(self._arriving, None)
            if block is None:
                raise DataError([Problem(what=_at(of, "never came out of Petastorm"), remedy=EXPORT_AGAIN)])
            self._held[block.row_group] = block
        self._untaken[wanted.row_group] -= wanted.rows
        self._finished = None if self._untaken[wanted.row_group] else wanted.row_group
        return self._held[wanted.row_group].rows(wanted.start, wanted.stop)

    def _let_go(self) -> None:
        if self._finished is not None:
            del self._held[self._finished]
            self._finished = None
            self._window.let_go()


@contextmanager
def open_blocks(source: BlockSource, plan: Plan) -> Iterator[Blocks]:
    """One pass of one Petastorm Reader; its threads have ended when the context does.

    Raises:
        ConfError: `source.held` is too small for the plan.
        DataError: files missing, unreadable, or with other row groups than the manifest; all of them at once.
    """
    window = source.window(plan)
    if not plan.reads:
        yield Blocks(iter(()), (), window)
        return
    workers = _Workers(source, plan, window)
    reader = _open_reader(workers)
    try:
        yield Blocks(reader, plan.needs, window)
    finally:
        reader.stop()
        reader.join()
        workers.close()


def _open_reader(workers: _Workers) -> Reader:
    source, plan, window = workers.source, workers.plan, workers.window
    with _OPENING, warnings.catch_warnings():
        # Petastorm 0.13 is written against pyarrow's deprecated ParquetDataset; nothing a user could change.
        warnings.simplefilter("ignore", FutureWarning)
        try:
            return Reader(
                ArrowOpener(source.root),
                [source.root.path(file) for file in source.files],
                # Which columns are read, the worker knows; Petastorm would match every name against every column.
                schema_fields=None,
                is_batched_reader=True,
                worker_class=workers,
                reader_pool=WatchedPool(source.threads, window),
                shuffle_row_groups=False,
                num_epochs=1,
                cur_shard=plan.world.rank if plan.sharded else None,
                shard_count=plan.world.size if plan.sharded else None,
            )
        except (OSError, pa.ArrowException, RuntimeError) as error:
            problems = _damage(source)
            if not problems:
                raise
            # Petastorm leaves a pool of threads that looked at the footers; they end when no frame knows it any more
            traceback.clear_frames(error.__traceback__)
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
            unreadable.append(f"{name}, row groups 0 to {len(listed) - 1} ({error})")
            continue
        if actual != listed:
            different.append(
                f"{name} ({len(actual)} row groups of {sum(actual)} rows, not {len(listed)} of {sum(listed)})"
            )
    found = (("files missing", missing), ("files unreadable", unreadable), ("other row groups than listed", different))
    return [
        Problem(what=f"{what} below {source.root.url}", count=len(names), examples=names, remedy=EXPORT_AGAIN)
        for what, names in found
        if names
    ]
