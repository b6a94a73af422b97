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
import random
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.run import compute_samples
from pipeline.tables import Warehouse
from tests.chaos.driver import Order
from tests.chaos.driver_process import Driver
from tests.chaos.inspection import Inspection
from tests.features.random_logs import LogShape
from tests.small_world import FIRST_DAY, context_of, digests, raw_folder, write_raw

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


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


@dataclass(frozen=True, kw_only=True)
class State:
    """A prepared warehouse.

    Attributes:
        days: whose samples are computed from it.
        digests, generations: of every partition after an undisturbed run from it.
        steps: exclusive creations of that run.
        seconds: how long a fresh driver took for it.
    """

    name: str
    folder: Path
    days: tuple[datetime.date, ...]
    digests: Mapping[str, str]
    generations: Mapping[str, int]
    steps: int
    seconds: float

    @classmethod
    def of(
        cls,
        name: str,
        folder: Path,
        undisturbed: Path,
        days: tuple[datetime.date, ...] = (DAY,),
        *,
        steps: int = 0,
        seconds: float = 0,
    ) -> State:
        """A prepared warehouse and what became of its copy when nobody disturbed the run."""
        return cls(
            name=name,
            folder=folder,
            days=days,
            digests=digests(undisturbed),
            generations=generations(undisturbed),
            steps=steps,
            seconds=seconds,
        )


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
        partial: what was visible in part, after the kill or the rerun; nothing, where all is as it has to be.
        diverged: partitions that are not those of a run that nobody disturbed; likewise.
    """

    state: str
    point: str
    last_step: str
    committed: int
    orphans: int
    seconds: float
    partial: tuple[str, ...]
    diverged: tuple[str, ...]


def draw(rng: random.Random, state: State) -> Point:
    """A point of a run: as often a step of the protocol as a moment of its time."""
    if rng.random() < 0.5:
        return Point(step=rng.randint(1, state.steps), moment=rng.choice(("before", "after")))
    return Point(seconds=rng.uniform(0, state.seconds))


class Chaos:
    """Trials in one scratch folder, verified by one session that is never killed.

    Args:
        ahead: start the driver of the next trial while one is verified.
    """

    def __init__(self, spark: SparkSession, scratch: Path, *, ahead: bool = True) -> None:
        self.spark, self._scratch, self._ahead = spark, scratch, ahead
        self._started = 0
        self._next: Driver | None = None

    def states(self) -> Iterator[State]:
        """The prepared warehouses."""
        raw = self.raw_alone()
        yield self._measured("raw alone", raw)
        eve = self.copy(raw, "eve")
        self.compute(eve, (EVE,))
        yield self._measured("the day before", eve)
        corrected = self.copy(eve, "corrected")
        self.compute(corrected, (DAY,))
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
        return State.of(name, folder, undisturbed, steps=len(steps), seconds=time.monotonic() - started)

    def compute(self, folder: Path, days: Sequence[datetime.date]) -> None:
        """Samples of some days, in the session that is never killed."""
        compute_samples(context_of(self.spark, folder), days, lambda _: None)

    def trial(self, state: State, point: Point) -> Trial | None:
        """One kill; None when the run had ended before it came."""
        started = time.monotonic()
        folder = self.copy(state.folder, "trial")
        order = Order(warehouse=str(folder), days=state.days, step=point.step, moment=point.moment)
        ended, steps = self._driver().carry_out(order, point.seconds)
        if ended:
            return None
        self._next = self._start() if self._ahead else None
        inspection = Inspection(self.spark)
        committed, orphans, problems = inspection.look(folder)
        self.compute(folder, state.days)
        problems += [f"after the rerun: {problem}" for problem in inspection.look(folder)[2]]
        return Trial(
            state=state.name,
            point=str(point),
            last_step=steps[-1] if steps else "",
            committed=committed,
            orphans=orphans,
            seconds=time.monotonic() - started,
            partial=tuple(problems),
            diverged=tuple(differences(folder, state)),
        )

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
