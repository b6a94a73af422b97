"""`make bench-feed`: how fast rows come from Parquet into batches; → build/bench/feed.json.

Parts, each resumable, with arms that are interleaved and repeated:
  read      per shape of row: our shuffled feed, bare Arrow, and Petastorm's loaders (benchmarks/feed_arms.py), each arm
            in a process of its own on the same two cores; all must deliver the same rows, by checksum
  trained   DeepFM on two Horovod ranks, fed and on resident batches (benchmarks/fed_training.py)
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import fed_training, feed_passes
from benchmarks.features_report import keep, kept
from benchmarks.feed_arms import BATCHED, BATCHED_SMALL, BY_ROW, SMALL_QUEUE, Source, arms, same_shuffle
from benchmarks.feed_data import Shape, shapes, write_rows
from benchmarks.feed_report import READ, TRAINED, ratios, show

PARTS = (READ, TRAINED)
CORES = 2
TRAINED_SHAPE = "lists"
PACKAGES = ("petastorm", "pyarrow", "torch", "horovod", "numpy")
SOURCES = ("training/**/*.py", "benchmarks/feed_*.py", "benchmarks/fed_*.py")
ROOT = Path(__file__).resolve().parents[1]
console = Console(highlight=False)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all parts share."""

    out: Path
    repeats: int
    cores: tuple[int, ...]
    files_by_row: int | None
    left_out: tuple[str, ...]
    progress: Progress
    size: Mapping[str, Any]

    def keep(self, part: str, group: str, measured: Mapping[str, Any], **more: object) -> None:
        """Keep what was measured, so that it need not be measured again."""
        keep(self.out, part, group, {"size": self.size, "machine": _machine(self.cores), "arms": measured, **more})

    @contextmanager
    def told(self, title: str, total: int) -> Iterator[Callable[[str, str], None]]:
        """A bar of its own; gives the function that moves it on: an arm, and what is to be said of it."""
        task = self.progress.add_task(title, total=total)

        def done(name: str, what: str) -> None:
            self.progress.update(task, advance=1, description=f"{title}: {name} {what}")
            if not console.is_terminal:
                console.print(f"{title}: {name} {what}, load {os.getloadavg()[0]:.1f}")

        yield done


def data(bench: Bench, shape: Shape) -> Path:
    """The rows of a shape, written once."""
    task = bench.progress.add_task(f"rows of {shape.name}", total=shape.rows)
    return write_rows(shape, bench.out / "data" / "feed", lambda rows: bench.progress.advance(task, rows))


def read(bench: Bench, shape: Shape) -> None:
    """All arms that read, on one shape."""
    source = Source(root=str(data(bench, shape)))
    names = [name for name in arms(source, bench.files_by_row) if name not in bench.left_out]
    with ExitStack() as stack:
        done = stack.enter_context(bench.told(f"read {shape.name}", len(names) * (bench.repeats + 1)))
        readings = {
            name: stack.enter_context(feed_passes.reading_elsewhere(name, source, bench.files_by_row, bench.cores))
            for name in names
        }
        passes = feed_passes.interleaved(readings, repeats=bench.repeats, done=done)
    queues = {BATCHED: same_shuffle(source), BATCHED_SMALL: SMALL_QUEUE, BY_ROW: same_shuffle(source)}
    files = [path.stat().st_size for path in source.paths]
    bench.keep(
        READ,
        shape.name,
        {name: one.summary() for name, one in passes.items()},
        shape=vars(shape),
        queues=queues,
        file_bytes=sum(files),
        batch_size=source.batch_size,
    )


def trained(bench: Bench, shape: Shape) -> None:
    """DeepFM, fed and resident."""
    root = data(bench, shape)
    with bench.told("trained deepfm", len(fed_training.ARMS) * (bench.repeats + 1)) as done:
        out = bench.out / "data" / "feed" / "trained.json"
        measured = fed_training.launch(root, out, cores=bench.cores, repeats=bench.repeats, done=done)
    about = {"model": fed_training.MODEL, "batch_per_rank": fed_training.BATCH_PER_RANK, "ranks": fed_training.RANKS}
    bench.keep(TRAINED, "deepfm", measured, shape=vars(shape), **about)


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bench_feed", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--shapes", nargs="+", choices=tuple(shapes(1)), default=tuple(shapes(1)))
    parser.add_argument("--files-by-row", type=int, default=1, help="files that are loaded row by row; 0: all of them")
    parser.add_argument("--leave-out", nargs="+", default=(), help="arms not to measure")
    parser.add_argument("--report", action="store_true", help="measure nothing; put together what was measured")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="data and feed.json")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the data, measure part by part, put together what was measured, write and show."""
    options = options_of(arguments)
    out = options.out.resolve()
    cores = feed_passes.own_cores()[:CORES]
    if len(cores) < CORES:
        sys.exit(f"bench_feed: {CORES} cores are needed, this process may use {len(cores)}")
    size = {"rows": options.rows, "files_by_row": options.files_by_row, "code": code_fingerprint(ROOT)}
    if not options.report:
        bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        with bar as progress:
            bench = Bench(
                out=out,
                repeats=options.repeats,
                cores=tuple(cores),
                files_by_row=options.files_by_row or None,
                left_out=tuple(options.leave_out),
                progress=progress,
                size=size,
            )
            _measure(bench, shapes(options.rows), options.parts, options.shapes)
    parts = kept(out, size)
    found = {"size": size, "parts": parts, "ratios": ratios(parts)}
    (out / "feed.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    show(found, console)
    console.print(f"→ {out / 'feed.json'}", soft_wrap=True)
    return 0


def _measure(bench: Bench, known: Mapping[str, Shape], parts: Sequence[str], chosen: Sequence[str]) -> None:
    if READ in parts:
        for name in chosen:
            read(bench, known[name])
    if TRAINED in parts:
        trained(bench, known[TRAINED_SHAPE])


def code_fingerprint(root: Path) -> str:
    """Changes with any source file of the training side or of these arms."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in SOURCES for path in root.glob(pattern)):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _machine(cores: Sequence[int]) -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "pinned_to": list(cores),
        "platform": platform.platform(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "ended_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    sys.exit(main())
