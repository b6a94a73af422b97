"""Kill a driver, look at what it left, let another run finish, compare.

Steps of a trial:
  1. state       a copy of a prepared warehouse: raw tables alone, or computed once and then corrected
  2. kill        SIGKILL to the driver and its JVM: at a random exclusive creation, or at a random time
  3. readable    every committed partition: manifest, files, rows, and the content digest taken anew from the rows
  4. rerun       in another driver, to the end: the same content digests as of a run that nobody disturbed
The next driver starts while 3 and 4 are done.
"""

from __future__ import annotations

import datetime
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from features import storage
from pipeline.manifests import PartitionManifest
from pipeline.observed import content_digest, observed_columns
from pipeline.run import compute_samples
from pipeline.tables import Warehouse
from tests.chaos.driver import DONE, READY, STEP, Order
from tests.features.random_logs import LogShape
from tests.small_world import FIRST_DAY, context_of, digests, raw_folder, write_raw

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ROOT = Path(__file__).resolve().parents[2]
DAYS = (datetime.date(2025, 3, 4),)
CORRECTED_DAY = datetime.date(2025, 3, 3)
SHAPE = LogShape(
    first_day=FIRST_DAY,
    days=6,
    users=20,
    anchors=6,
    rooms=15,
    impressions=240,
    quiet_share=0,
    sampled_negatives=False,
)
_DAY = "digested_day"


@dataclass(frozen=True, kw_only=True)
class State:
    """A prepared warehouse.

    Attributes:
        digests: of an undisturbed run from it.
        steps: exclusive creations of that run.
        seconds: how long a fresh driver took for it.
    """

    name: str
    folder: Path
    digests: Mapping[str, str]
    steps: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Point:
    """Where a driver is killed: at an exclusive creation, or so many seconds after its order."""

    step: int | None = None
    moment: Literal["before", "after"] = "before"
    seconds: float | None = None

    def __str__(self) -> str:
        return f"{self.moment} step {self.step}" if self.step is not None else f"after {self.seconds:.2f} s"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What became of one kill.

    Attributes:
        last_step: the last exclusive creation that was begun.
        committed: partitions that were readable after the kill.
        orphans: data files that no manifest names.
        problems: nothing, where all is as it has to be.
    """

    state: str
    point: str
    last_step: str
    committed: int
    orphans: int
    seconds: float
    problems: tuple[str, ...]


class Driver:
    """A driver process, started and waiting for its order."""

    def __init__(self, scratch: Path) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        self._log = (scratch / "driver.log").open("w")
        # Left by the parent's own session: with them the driver would take itself for a submitted one.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYSPARK_GATEWAY")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.driver", str(scratch)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )

    def carry_out(self, order: Order, kill_after: float | None = None) -> tuple[bool, list[str]]:
        """Give the order, and kill the driver after some seconds unless it has ended by then.

        Returns:
            Whether it came to its end by itself, and the files of its exclusive creations in order.

        Raises:
            RuntimeError: it failed by itself; where its log is.
        """
        stdin, stdout = _pipe(self.process.stdin), _pipe(self.process.stdout)
        if stdout.readline().strip() != READY:
            raise RuntimeError(f"the driver did not start; see {self._log.name}")
        stdin.write(order.model_dump_json() + "\n")
        stdin.flush()
        try:
            self.process.wait(timeout=kill_after)
        except subprocess.TimeoutExpired:
            self.kill()
        lines = stdout.read().splitlines()
        self.close()
        if self.process.returncode not in (0, -signal.SIGKILL):
            raise RuntimeError(f"the driver failed with {self.process.returncode}; see {self._log.name}")
        return DONE in lines, [line.split(" ", 2)[2] for line in lines if line.startswith(STEP)]

    def kill(self) -> None:
        """SIGKILL to the driver and its JVM at once."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """Kill it if it lives, and close its pipes."""
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout, self._log):
            _pipe(pipe).close()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def draw(rng: random.Random, state: State) -> Point:
    """A point of a run: as often a step of the protocol as a moment of its time."""
    if rng.random() < 0.5:
        return Point(step=rng.randint(1, state.steps), moment=rng.choice(("before", "after")))
    return Point(seconds=rng.uniform(0, state.seconds))


class Chaos:
    """Trials in one scratch folder, verified by one session that is never killed."""

    def __init__(self, spark: SparkSession, scratch: Path) -> None:
        self._spark, self._scratch = spark, scratch
        self._started = 0
        self._next: Driver | None = None

    def states(self) -> Iterator[State]:
        """The two prepared warehouses: nothing computed yet, and computed once before a raw day was corrected."""
        raw = self._scratch / "raw alone"
        write_raw(raw, shape=SHAPE)
        yield self._measured("raw alone", raw)
        corrected = self._copy(raw, "corrected")
        compute_samples(context_of(self._spark, corrected), DAYS, lambda _: None)
        correct(corrected)
        yield self._measured("corrected", corrected)

    def _measured(self, name: str, folder: Path) -> State:
        undisturbed = self._copy(folder, f"{name} undisturbed")
        driver = self._driver()
        started = time.monotonic()
        ended, steps = driver.carry_out(Order(warehouse=str(undisturbed), days=DAYS))
        assert ended
        return State(
            name=name,
            folder=folder,
            digests=digests(undisturbed),
            steps=len(steps),
            seconds=time.monotonic() - started,
        )

    def trial(self, state: State, point: Point) -> Trial | None:
        """One kill; None when the run had ended before it came."""
        started = time.monotonic()
        folder = self._copy(state.folder, "trial")
        order = Order(warehouse=str(folder), days=DAYS, step=point.step, moment=point.moment)
        ended, steps = self._driver().carry_out(order, point.seconds)
        if ended:
            return None
        self._next = self._start()
        committed, orphans, problems = self.look(folder)
        compute_samples(context_of(self._spark, folder), DAYS, lambda _: None)
        problems += [f"after the rerun: {problem}" for problem in self.look(folder)[2]]
        problems += differences(digests(folder), state.digests)
        return Trial(
            state=state.name,
            point=str(point),
            last_step=steps[-1] if steps else "",
            committed=committed,
            orphans=orphans,
            seconds=time.monotonic() - started,
            problems=tuple(problems),
        )

    def look(self, folder: Path) -> tuple[int, int, list[str]]:
        """Committed partitions, data files that none of them names, and what is wrong with those that are."""
        warehouse, count, named, problems = Warehouse(str(folder)), 0, set[str](), []
        for table in warehouse.tables():
            found: list[PartitionManifest] = []
            for partition in warehouse.partitions(table):
                count += 1
                manifest = warehouse.manifest(table, partition)
                assert manifest is not None
                found.append(manifest)
                named |= set(warehouse.file_urls(manifest))
            problems += self._problems(warehouse, found)
        written = {
            entry.url
            for table in storage.list_folders(warehouse.url)
            for entry in storage.list_files(f"{warehouse.url}/{table}/data", recursive=True)
            if entry.name.endswith(".parquet")
        }
        return count, len(written - named), problems

    def _problems(self, warehouse: Warehouse, manifests: list[PartitionManifest]) -> list[str]:
        """Manifests of one table against their files, all in one Spark job."""
        gone = [url for manifest in manifests for url in warehouse.file_urls(manifest) if not storage.exists(url)]
        if gone:
            return [f"{url} is named by a manifest and not there" for url in gone]
        stored = [manifest for manifest in manifests if manifest.files]
        wrong = [f"{m.table}/{m.partition}: no files, but {m.rows} rows" for m in manifests if not m.files and m.rows]
        if not stored:
            return wrong
        days = [datetime.date.fromisoformat(manifest.partition.removeprefix("dt=")) for manifest in stored]
        frames = [self._rows(warehouse, manifest, day) for manifest, day in zip(stored, days, strict=True)]
        columns = [name for name, _ in stored[0].schema_]
        union: DataFrame = reduce(lambda left, right: left.unionByName(right), frames)
        observed: dict[str, Any] = union.agg(*observed_columns(days, _DAY, columns, [])).collect()[0].asDict()
        return wrong + [
            f"{manifest.table}/{manifest.partition}: its rows have another digest than its manifest"
            for index, manifest in enumerate(stored)
            if content_digest(observed, index) != manifest.digest
        ]

    def _rows(self, warehouse: Warehouse, manifest: PartitionManifest, day: datetime.date) -> DataFrame:
        from pyspark.sql import functions as F

        ddl = ", ".join(f"`{name}` {sql_type}" for name, sql_type in manifest.schema_)
        rows = self._spark.read.schema(ddl).parquet(*warehouse.file_urls(manifest))
        return rows.withColumn(_DAY, F.lit(day))

    def _copy(self, folder: Path, name: str) -> Path:
        target = self._scratch / name
        shutil.rmtree(target, ignore_errors=True)
        return Path(shutil.copytree(folder, target))

    def _start(self) -> Driver:
        self._started += 1
        return Driver(self._scratch / "drivers" / str(self._started))

    def _driver(self) -> Driver:
        taken, self._next = self._next or self._start(), None
        return taken

    def close(self) -> None:
        """End the driver that waits."""
        if self._next is not None:
            self._next.close()


def correct(warehouse: Path) -> None:
    """Replace the actions of a day: one of them is gone."""
    file = raw_folder(warehouse, "actions", CORRECTED_DAY) / "part-0.parquet"
    actions: pa.Table = pq.read_table(file, partitioning=None)
    pq.write_table(actions.slice(1), file)


def differences(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Partitions whose content is not that of an undisturbed run."""
    return [
        f"{name}: digest {found.get(name)} after the rerun, {wanted.get(name)} undisturbed"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]


def run_trials(chaos: Chaos, kills: int, seed: int, done: Callable[[Trial], None]) -> tuple[list[Trial], int]:
    """Kill so many drivers.

    Returns:
        The trials, and how many runs had ended before their kill came; those are drawn again.
    """
    rng = random.Random(seed)
    states = list(chaos.states())
    trials: list[Trial] = []
    survived = 0
    while len(trials) < kills:
        state = states[len(trials) % len(states)]
        trial = chaos.trial(state, draw(rng, state))
        if trial is None:
            survived += 1
            continue
        trials.append(trial)
        done(trial)
    return trials, survived
