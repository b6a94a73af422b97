"""DeepFM on two Horovod ranks, a core each: fed from Parquet, and on the same batches kept in memory.

    horovodrun -np 2 … python -m benchmarks.fed_training --root TRAINSET --out FILE --cores 0 1

Both arms take the same steps from the same weights: their losses must be the same to the last bit. Arms take turns
inside one start of the ranks; the first pass of each is not timed. Only ids are read and trained on: the less a model
computes per byte, the harder it is to feed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.feed_arms import SEED, SPLIT, Source
from benchmarks.feed_passes import pin
from features.errors import LimelightError
from features.manifest import TrainSet
from training import models
from training.batch import Batch
from training.exchange import Exchange, HorovodExchange
from training.feed import Feed
from training.memory import keep_freed_memory
from training.optim import OptimConf, Optimiser
from training.step import Learner

ROOT = Path(__file__).resolve().parents[1]
RANKS = 2
BATCH_PER_RANK = 4096
MODEL = {"embedding_dim": 16, "hidden": [400, 400, 400]}
FED, RESIDENT = "fed", "resident"
ARMS = (FED, RESIDENT)
PROGRESS = "progress: "


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One pass: rows over all ranks, seconds of the slowest rank, seconds that this rank waited for batches, loss."""

    rows: int
    seconds: float
    waiting: float
    loss: float


@dataclass(kw_only=True)
class Epochs:
    """Timed passes of one arm."""

    done: list[Epoch] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """For the JSON; `waiting` is the share of rank 0's time."""
        rates = [epoch.rows / epoch.seconds for epoch in self.done]
        return {
            "rows": self.done[0].rows,
            "rows_per_s": round(statistics.median(rates)),
            "range_rows_per_s": [round(min(rates)), round(max(rates))],
            "all_s": [round(epoch.seconds, 4) for epoch in self.done],
            "waiting": round(statistics.median(epoch.waiting / epoch.seconds for epoch in self.done), 4),
            "load": [round(value, 2) for value in self.loads],
            "loss": self.done[0].loss,
        }


class Trainer:
    """A model that can be put back to its first weights, and learns from batches as fast as they come."""

    def __init__(self, trainset: TrainSet, exchange: Exchange) -> None:
        model = models.build("deepfm", trainset, MODEL, SEED)
        optimiser = Optimiser(
            model.table, model.dense_parameters(), OptimConf(), regularised=model.regularised_parameters()
        )
        self._exchange = exchange
        self._learner = Learner(model, optimiser, exchange)
        self._weights = {name: value.clone() for name, value in model.state_dict().items()}
        self._state = {name: value.clone() for name, value in optimiser.state_dict().items()}

    def epoch(self, batches: Callable[[], Iterable[Batch]]) -> Epoch:
        """Learn from all batches, from the first weights; a collective call."""
        self._learner.model.load_state_dict(self._weights)
        self._learner.optimiser.load_state_dict(self._state)
        rows, loss, waiting = 0, torch.zeros((), dtype=torch.float64), 0.0
        self._exchange.barrier()
        started = asked = time.perf_counter()
        for batch in batches():
            waiting += time.perf_counter() - asked
            loss += self._learner.step(batch).sums.double().sum()
            rows += len(batch)
            asked = time.perf_counter()
        self._exchange.barrier()
        seconds = time.perf_counter() - started
        totals = self._exchange.sum_scalars({"rows": float(rows), "loss": float(loss)})
        return Epoch(rows=int(totals["rows"]), seconds=seconds, waiting=waiting, loss=totals["loss"])


def without_lists(trainset: TrainSet) -> TrainSet:
    """The same rows, as if their lists were not there."""
    used = {field.vocabulary for field in trainset.categorical}
    kept = tuple(vocabulary for vocabulary in trainset.vocabularies if vocabulary.name in used)
    return trainset.model_copy(update={"sequences": (), "vocabularies": kept})


def measure_on_ranks(options: argparse.Namespace) -> None:
    """What every rank does; rank 0 writes."""
    import horovod.torch as hvd

    hvd.init()
    pin([options.cores[hvd.local_rank()]])
    exchange = HorovodExchange()
    keep_freed_memory()
    source = Source(root=options.root, batch_size=BATCH_PER_RANK * hvd.size())
    trainset = without_lists(source.trainset)
    trainer = Trainer(trainset, exchange)

    def feed() -> Iterator[Batch]:
        world, batch = exchange.world, source.batch_size
        yield from Feed(trainset, source.root, split=SPLIT, batch_size=batch, world=world, seed=SEED).epoch(0)

    kept = list(feed())
    arms: Mapping[str, Callable[[], Iterable[Batch]]] = {FED: feed, RESIDENT: lambda: kept}
    measured = take_turns(trainer, arms, options.repeats, _tell if exchange.world.is_first else _keep_quiet)
    if exchange.world.is_first:
        summaries = {name: epochs.summary() for name, epochs in measured.items()}
        Path(options.out).write_text(json.dumps(summaries), encoding="utf-8")
    hvd.shutdown()


def take_turns(
    trainer: Trainer,
    arms: Mapping[str, Callable[[], Iterable[Batch]]],
    repeats: int,
    told: Callable[[str, Epoch], None],
) -> dict[str, Epochs]:
    """Every arm once to warm up, then `repeats` rounds, each beginning with another arm.

    Raises:
        ValueError: two passes came to different losses: they were not the same steps.
    """
    found = {name: Epochs() for name in arms}
    losses = set()
    names = list(arms)
    for number in range(repeats + 1):
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            epoch = trainer.epoch(arms[name])
            losses.add(epoch.loss)
            if len(losses) > 1:
                raise ValueError(f"{name}: passes over the same batches came to losses {sorted(losses)}")
            if number:
                found[name].done.append(epoch)
                found[name].loads.append(os.getloadavg()[0])
            told(name, epoch)
    return found


def _tell(name: str, epoch: Epoch) -> None:
    print(f"{PROGRESS}{name} {epoch.rows / epoch.seconds:,.0f}", flush=True)


def _keep_quiet(_name: str, _epoch: Epoch) -> None:
    pass


def launch(
    root: Path, out: Path, *, cores: Sequence[int], repeats: int, done: Callable[[str, str], None]
) -> dict[str, Any]:
    """Start the ranks and wait for them; arm → summary.

    Raises:
        LimelightError: a rank failed; its output is above.
    """
    executable = Path(sys.executable).with_name("horovodrun")
    rank = [sys.executable, "-m", "benchmarks.fed_training", "--root", str(root), "--out", str(out)]
    rank += ["--repeats", str(repeats), "--cores", *map(str, cores)]
    # A thread per rank: it has one core.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [str(executable), "-np", str(RANKS), "--gloo", "-H", f"localhost:{RANKS}", *rank]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            _, found, told = line.rstrip().partition(PROGRESS)
            if found:
                name, rate = told.split()
                done(name, f"{rate} rows/s")
            else:
                sys.stderr.write(line)
    if process.returncode != 0:
        raise LimelightError(f"training ended with exit code {process.returncode}; see the ranks' output above")
    summaries: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return summaries


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line of a rank."""
    parser = argparse.ArgumentParser(prog="fed_training", description=__doc__)
    parser.add_argument("--root", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cores", type=int, nargs=RANKS, required=True)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    measure_on_ranks(options_of(None))
