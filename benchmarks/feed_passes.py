"""Passes over the rows, timed: each arm in a process of its own, which stays, so that a timed pass is a warm one.

The first pass of an arm is not timed: it adds up a checksum of all values (`Checksum`). Timed passes add up row ids
only, which must come to the same sum.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from benchmarks.feed_arms import OF_PETASTORM, ReadPass, Source, arms, bare_arrow
from training.batch import Batch
from training.memory import keep_freed_memory

BYTES_PER_MB = 1_000_000
INTEGERS = {4: torch.int32, 8: torch.int64}
TRIES = 10


@dataclass(frozen=True, kw_only=True)
class Checksum:
    """Of a set of rows, whatever their order and however they were cut into batches; checksums add up.

    For every column the sum over rows of the bits of the value times (2·row_id + 1), in integers modulo 2⁶⁴: a value in
    another row, or in another column, changes it.
    """

    rows: int = 0
    sums: tuple[int, ...] = ()

    @classmethod
    def of(cls, batch: Batch, chosen: Tensor | None = None) -> Checksum:
        """Of a batch, or of the rows of it where `chosen` [n] holds."""
        matrices = [batch.ids, batch.dense, batch.labels, batch.label_mask, batch.group, batch.row_id]
        matrices += [batch.sequences[name] for name in sorted(batch.sequences)]
        weights = 2 * batch.row_id + 1
        weights = weights if chosen is None else weights * chosen
        sums = [_weighted(matrix, weights) for matrix in matrices]
        return cls(rows=int(len(batch) if chosen is None else chosen.sum()), sums=tuple(torch.cat(sums).tolist()))

    def __add__(self, other: Checksum) -> Checksum:
        if not self.sums or not other.sums:
            return self if self.sums else other
        sums = torch.tensor([self.sums, other.sums]).sum(dim=0)
        return Checksum(rows=self.rows + other.rows, sums=tuple(sums.tolist()))


def _weighted(matrix: Tensor, weights: Tensor) -> Tensor:
    """[n, …] → one sum per column, of the bits as integers."""
    bits = matrix.contiguous().view(INTEGERS[matrix.element_size()]).reshape(len(matrix), -1)
    return (bits.to(torch.int64) * weights.unsqueeze(1)).sum(dim=0)


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """What a pass gave: rows, the sum of their row ids, seconds from opening the files to closing them."""

    rows: int
    row_ids: int
    seconds: float
    peak_mb: float


def timed_pass(batches: Iterable[Batch]) -> Delivered:
    """Take all batches; of each only the row ids are looked at."""
    rows = row_ids = 0
    started = time.perf_counter()
    for batch in batches:
        rows += len(batch)
        row_ids += int(batch.row_id.sum())
    seconds = time.perf_counter() - started
    return Delivered(rows=rows, row_ids=row_ids, seconds=seconds, peak_mb=_peak_mb())


def _peak_mb() -> float:
    """The most that this process has held; `getrusage` would count its parent's, too, as it was when it started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    kilobytes = next(line.split()[1] for line in status if line.startswith("VmHWM"))
    return int(kilobytes) * 1024 / BYTES_PER_MB


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What an arm gives, looked at value by value.

    Attributes:
        whole: checksum of all rows of its source.
        dropped: rows behind the last full batch, which it does not deliver.
        row_ids: sum of those that it delivers.
    """

    whole: Checksum
    dropped: int
    row_ids: int

    @property
    def rows(self) -> int:
        """Those that it delivers."""
        return self.whole.rows - self.dropped


def checked_pass(batches: Iterable[Batch], source: Source) -> Checked:
    """Hold what an arm delivers against the rows that bare Arrow finds in the same files.

    Raises:
        ValueError: values differ, or a row came twice.
    """
    given, ids = Checksum(), [torch.empty(0, dtype=torch.int64)]
    for batch in batches:
        given = given + Checksum.of(batch)
        ids.append(batch.row_id)
    delivered = torch.cat(ids).sort().values
    whole, absent = Checksum(), Checksum()
    for batch in bare_arrow(source, 0):
        whole = whole + Checksum.of(batch)
        absent = absent + Checksum.of(batch, ~_among(batch.row_id, delivered))
    if given + absent != whole:
        raise ValueError(f"{given.rows} rows of other values than the {whole.rows - absent.rows} of the files")
    return Checked(whole=whole, dropped=absent.rows, row_ids=int(delivered.sum()))


def _among(row_ids: Tensor, ascending: Tensor) -> Tensor:
    """[n] whether each is one of those."""
    if not len(ascending):
        return torch.zeros_like(row_ids, dtype=torch.bool)
    places = torch.searchsorted(ascending, row_ids).clamp(max=len(ascending) - 1)
    return ascending[places] == row_ids


@dataclass(frozen=True, kw_only=True)
class Reading:
    """An arm that can be asked for passes.

    Attributes:
        rows: of its source.
        ask: for a pass by its number; see `answer`.
    """

    rows: int
    ask: Callable[[int], Any]


def answer(read: ReadPass, source: Source, number: int) -> Checked | Delivered:
    """Pass 0 is checked, all others are timed."""
    return timed_pass(read(source, number)) if number else checked_pass(read(source, 0), source)


@contextmanager
def reading_elsewhere(name: str, source: Source, files_by_row: int | None, cores: Sequence[int]) -> Iterator[Reading]:
    """An arm in a process of its own."""
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_serve, args=(there, name, source, files_by_row, tuple(cores)), daemon=True)
    process.start()
    there.close()

    def ask(number: int) -> Any:
        here.send(number)
        told = here.recv()
        if isinstance(told, Exception):
            raise told
        return told

    try:
        yield Reading(rows=arms(source, files_by_row)[name][1].rows, ask=ask)
    finally:
        here.close()
        process.join()


def _serve(line: Connection, name: str, source: Source, files_by_row: int | None, cores: Sequence[int]) -> None:
    """Answer until the line is closed."""
    # Petastorm 0.13 is written against pyarrow's deprecated ParquetDataset, and gives torch read-only arrays.
    for category in (FutureWarning, UserWarning):
        warnings.filterwarnings("ignore", category=category, module="petastorm")
    pin(cores)
    keep_freed_memory()  # as every training does: or bare Arrow, which allocates most, would be the slower for it
    read, own = arms(source, files_by_row)[name]
    while True:
        try:
            number = line.recv()
        except EOFError:
            return
        try:
            line.send(answer(read, own, number))
        except Exception as error:
            line.send(error)
            raise


def own_cores() -> list[int]:
    """Cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


def pin(cores: Sequence[int]) -> None:
    """This process on these cores, and a thread per core in the pools of torch and Arrow."""
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))
    pa.set_cpu_count(len(cores))
    pa.set_io_thread_count(len(cores))


@dataclass(kw_only=True)
class Passes:
    """Timed passes of one arm.

    Attributes:
        rows: of one pass; dropped: rows behind the last full batch, not among them.
        row_ids: sum of those of a pass.
        cut_short: passes that Petastorm ended before all rows were there; they were made again (`whole`).
        peak_mb: of the whole process, the interpreter and its libraries among it.
    """

    rows: int
    dropped: int
    row_ids: int
    cut_short: int = 0
    seconds: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    peak_mb: float = 0.0

    @property
    def rates(self) -> list[float]:
        """Rows per second of each pass."""
        return [self.rows / seconds for seconds in self.seconds]

    def add(self, seen: Delivered) -> None:
        """Count a pass in.

        Raises:
            ValueError: it delivered other rows than the first one. (A shuffled epoch may drop others.)
        """
        if seen.rows != self.rows or (seen.row_ids != self.row_ids and not self.dropped):
            raise ValueError(f"{seen.rows} rows with ids of sum {seen.row_ids}, not {self.rows} and {self.row_ids}")
        self.seconds.append(seen.seconds)
        self.loads.append(os.getloadavg()[0])
        self.peak_mb = max(self.peak_mb, seen.peak_mb)

    def summary(self) -> dict[str, Any]:
        """For the JSON: rows per second, median, range and every pass; load of the machine (1 minute) after each."""
        return {
            "rows": self.rows,
            "dropped": self.dropped,
            "cut_short": self.cut_short,
            "rows_per_s": round(statistics.median(self.rates)),
            "range_rows_per_s": [round(min(self.rates)), round(max(self.rates))],
            "all_s": [round(value, 4) for value in self.seconds],
            "load": [round(value, 2) for value in self.loads],
            "peak_mb": round(self.peak_mb),
        }


def interleaved(
    readings: Mapping[str, Reading], *, repeats: int, done: Callable[[str, str], None]
) -> dict[str, Passes]:
    """Every arm once checked, then `repeats` rounds of all arms, each round beginning with another one.

    Raises:
        ValueError: arms that read equally many rows delivered other ones, or a pass of an arm others than its first.
    """
    names = list(readings)
    checked: dict[str, Checked] = {}
    cut_short = dict.fromkeys(names, 0)
    for name in names:
        checked[name], cut_short[name] = whole(name, readings[name], 0)
        done(name, "checked")
    require_equal({name: one.whole for name, one in checked.items()})
    passes = {
        name: Passes(rows=one.rows, dropped=one.dropped, row_ids=one.row_ids, cut_short=cut_short[name])
        for name, one in checked.items()
    }
    for number in range(1, repeats + 1):
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            arm = passes[name]
            seen, cut = whole(name, readings[name], number)
            arm.add(seen)
            arm.cut_short += cut
            done(name, f"{arm.rates[-1]:,.0f} rows/s")
    return passes


def whole(name: str, reading: Reading, number: int) -> tuple[Any, int]:
    """A pass of an arm, and how many before it were cut short.

    Petastorm's pool asks first whether work is in flight, and second whether more is to come. Pieces handed out in
    between are overlooked, and the epoch ends without them: seen on a busy machine, a few passes in a hundred. Such a
    pass of Petastorm's own loaders is made again. (Ours asks in the other order.)

    Raises:
        ValueError: it was cut short every time.
    """
    for tries in range(TRIES):
        seen = reading.ask(number)
        if name not in OF_PETASTORM or seen.rows == reading.rows:
            return seen, tries
    raise ValueError(f"{name}: Petastorm has ended {TRIES} passes before all rows were there")


def require_equal(checked: Mapping[str, Checksum]) -> None:
    """Raises ValueError when arms that read equally many rows have different checksums."""
    for rows in {checksum.rows for checksum in checked.values()}:
        alike = {name: checksum.sums[:3] for name, checksum in checked.items() if checksum.rows == rows}
        if len({checked[name] for name in alike}) > 1:
            raise ValueError(f"arms delivered other rows: checksums begin with {alike}")
