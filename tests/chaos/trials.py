"""Kill a driver, look at what it left, let another run finish, compare.

Steps of a trial:
  1. state       a copy of a prepared warehouse: raw tables alone; the day before computed; the day itself computed, and
                 then a raw day corrected
  2. kill        SIGKILL to the driver and its JVM: at a random exclusive creation, or at a random time
  3. readable    every committed partition: manifest, files, rows, and the content digest taken anew from the rows
  4. rerun       in another driver, to the end: the same content digests as of a run that nobody disturbed, and nothing
                 that the killed run had committed is computed again
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
from py4j.protocol import Py4JJavaError
from pyspark.sql import functions as F

from features import storage
from features.spark.window_state import state_layout, stored_entities
from pipeline.context import Context
from pipeline.manifests import PartitionManifest
from pipeline.observed import content_digest, observed_columns
from pipeline.profile_state import state_of
from pipeline.run import compute_samples
from pipeline.stages.names import profile_table
from pipeline.tables import Warehouse
from tests.chaos.driver import DONE, READY, ROOT, STEP, Order
from tests.features.random_logs import LogShape
from tests.small_world import FIRST_DAY, context_of, digests, raw_folder, write_raw

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


DAY = datetime.date(2025, 3, 5)
EVE = datetime.date(2025, 3, 4)
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
        digests, generations: of every partition after an undisturbed run from it.
        steps: exclusive creations of that run.
        seconds: how long a fresh driver took for it.
    """

    name: str
    folder: Path
    digests: Mapping[str, str]
    generations: Mapping[str, int]
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
        self._verified: set[tuple[str, str, str]] = set()
        self._next: Driver | None = None

    def states(self) -> Iterator[State]:
        """The prepared warehouses."""
        raw = self.raw_alone()
        yield self._measured("raw alone", raw)
        eve = self.copy(raw, "eve")
        self._compute(eve, EVE)
        yield self._measured("the day before", eve)
        corrected = self.copy(eve, "corrected")
        self._compute(corrected, DAY)
        correct(corrected)
        yield self._measured("corrected", corrected)

    def raw_alone(self) -> Path:
        """A warehouse with raw tables of some days."""
        folder = self._scratch / "raw alone"
        write_raw(folder, shape=SHAPE)
        return folder

    def _measured(self, name: str, folder: Path) -> State:
        """With a driver that nobody disturbs."""
        undisturbed = self.copy(folder, f"{name} undisturbed")
        driver = self._driver()
        started = time.monotonic()
        ended, steps = driver.carry_out(Order(warehouse=str(undisturbed), days=(DAY,)))
        assert ended
        return self.state(name, folder, undisturbed, steps=len(steps), seconds=time.monotonic() - started)

    def state(self, name: str, folder: Path, undisturbed: Path, *, steps: int = 0, seconds: float = 0) -> State:
        """A prepared warehouse and what became of its copy when nobody disturbed the run."""
        return State(
            name=name,
            folder=folder,
            digests=digests(undisturbed),
            generations=generations(undisturbed),
            steps=steps,
            seconds=seconds,
        )

    def _compute(self, folder: Path, day: datetime.date) -> None:
        compute_samples(context_of(self._spark, folder), [day], lambda _: None)

    def trial(self, state: State, point: Point) -> Trial | None:
        """One kill; None when the run had ended before it came."""
        started = time.monotonic()
        folder = self.copy(state.folder, "trial")
        self.forget()
        order = Order(warehouse=str(folder), days=(DAY,), step=point.step, moment=point.moment)
        ended, steps = self._driver().carry_out(order, point.seconds)
        if ended:
            return None
        self._next = self._start()
        committed, orphans, problems = self.look(folder)
        self._compute(folder, DAY)
        problems += [f"after the rerun: {problem}" for problem in self.look(folder)[2]]
        problems += differences(folder, state)
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
        """Committed partitions, data files that none of them names, and what is wrong with those that are.

        Files are never changed once they are named: what was found whole is not read again after the rerun.
        """
        context = context_of(self._spark, folder)
        warehouse, count, named, problems = context.warehouse, 0, set[str](), list[str]()
        for table in warehouse.tables():
            found: list[PartitionManifest] = []
            for partition in warehouse.partitions(table):
                count += 1
                manifest = warehouse.manifest(table, partition)
                assert manifest is not None
                if (table, partition, manifest.attempt) not in self._verified:
                    found.append(manifest)
                named |= set(warehouse.file_urls(manifest))
            wrong = self._problems(context, found)
            problems += wrong
            self._verified |= set() if wrong else {(table, m.partition, m.attempt) for m in found}
        written = {
            entry.url
            for table in storage.list_folders(warehouse.url)
            for entry in storage.list_files(f"{warehouse.url}/{table}/data", recursive=True)
            if entry.name.endswith(".parquet")
        }
        return count, len(written - named), problems

    def forget(self) -> None:
        """Read everything again at the next look."""
        self._verified.clear()

    def _problems(self, context: Context, manifests: list[PartitionManifest]) -> list[str]:
        """Manifests of one table against their files, all in one Spark job."""
        warehouse = context.warehouse
        gone = [url for manifest in manifests for url in warehouse.file_urls(manifest) if not storage.exists(url)]
        if gone:
            return [f"{url} is named by a manifest and not there" for url in gone]
        stored = [manifest for manifest in manifests if manifest.files]
        wrong = [f"{m.table}/{m.partition}: no files, but {m.rows} rows" for m in manifests if not m.files and m.rows]
        if not stored:
            return wrong
        days = [datetime.date.fromisoformat(manifest.partition.removeprefix("dt=")) for manifest in stored]
        frames = [self._digested(context, manifest, day) for manifest, day in zip(stored, days, strict=True)]
        columns = frames[0].columns
        marked = [frame.withColumn(_DAY, F.lit(day)) for frame, day in zip(frames, days, strict=True)]
        union: DataFrame = reduce(lambda left, right: left.unionByName(right), marked)
        try:
            observed: dict[str, Any] = union.agg(*observed_columns(days, _DAY, columns, [])).collect()[0].asDict()
        except Py4JJavaError as error:
            return [f"{stored[0].table} cannot be read: {str(error.java_exception).splitlines()[0]}"]
        return wrong + [
            f"{manifest.table}/{manifest.partition}: its rows have another digest than its manifest"
            for index, manifest in enumerate(stored)
            if content_digest(observed, index) != manifest.digest
        ]

    def _digested(self, context: Context, manifest: PartitionManifest, day: datetime.date) -> DataFrame:
        """The rows and columns that the digest of a partition is over: of profiles the keys and the merged state."""
        entities = {profile_table(entity): entity for entity in stored_entities(context.catalog)}
        if manifest.table in entities:
            layout = state_layout(entities[manifest.table], context.catalog)
            state = state_of(context, entities[manifest.table], {day: manifest})
            return state.select(*layout.keys, *layout.columns)
        ddl = ", ".join(f"`{name}` {sql_type}" for name, sql_type in manifest.schema_)
        return self._spark.read.schema(ddl).parquet(*context.warehouse.file_urls(manifest))

    def copy(self, folder: Path, name: str) -> Path:
        """A copy of a warehouse in the scratch folder; modification marks of its raw files are kept."""
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


def generations(warehouse: Path) -> dict[str, int]:
    """`table/partition` → its newest generation."""
    opened = Warehouse(str(warehouse))
    return {
        f"{table}/{partition}": opened.generations(table, partition)[-1]
        for table in opened.tables()
        for partition in opened.partitions(table)
    }


def differences(warehouse: Path, state: State) -> list[str]:
    """Partitions whose content is not that of an undisturbed run, or that were computed once more than there."""
    found, again = digests(warehouse), generations(warehouse)
    return [
        f"{name}: digest {found.get(name)} after the rerun, {state.digests.get(name)} undisturbed"
        for name in sorted(found.keys() | state.digests.keys())
        if found.get(name) != state.digests.get(name)
    ] + [
        f"{name}: generation {again[name]} after the rerun, {state.generations[name]} undisturbed"
        for name in sorted(again.keys() & state.generations.keys())
        if again[name] > state.generations[name]
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
