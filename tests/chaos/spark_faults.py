"""Faults of the features' side: the driver killed, an executor killed, the disk full; the chain is raw logs → samples.

| kind | what happens |
|---|---|
| driver | SIGKILL to the driver and its JVM, at a random exclusive creation of a file, or at a random time |
| executor | SIGKILL to one of two executors, at a random time: Spark starts another one, and the run goes on |
| disk-features | no byte is left for the warehouse, at a random number of bytes |
"""

from __future__ import annotations

import random
import shutil
import threading
import time
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path

import psutil

from tests.chaos.driver import LOCAL_CLUSTER, Order, quick_session
from tests.chaos.driver_process import Driver, DriverFailedError
from tests.chaos.full_disk import ROOMY, resize, small_disk, used
from tests.chaos.inspection import Inspection
from tests.chaos.outcome import Found
from tests.chaos.trials import Chaos, State, differences, draw

EXECUTOR = "CoarseGrainedExecutorBackend"


class Features:
    """One session that looks at what was left, and the prepared warehouses; started when a kind asks for them."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self._running = ExitStack()

    @cached_property
    def chaos(self) -> Chaos:
        """Trials of drivers."""
        spark = self._running.enter_context(quick_session(self.scratch))
        chaos = Chaos(spark, self.scratch, ahead=False)
        self._running.callback(chaos.close)
        return chaos

    @cached_property
    def states(self) -> list[State]:
        """The prepared warehouses."""
        return list(self.chaos.states())

    def close(self) -> None:
        """End the session."""
        self._running.close()
        self._running = ExitStack()


class KilledDriver:
    """The driver is killed."""

    def __init__(self, features: Features) -> None:
        self._features = features
        self._features.states  # noqa: B018 - made before the first trial is timed

    def trial(self, rng: random.Random) -> Found | None:
        """One kill."""
        state = rng.choice(self._features.states)
        trial = self._features.chaos.trial(state, draw(rng, state))
        if trial is None:
            return None
        return Found(
            point=f"{trial.state}, {trial.point}",
            said=f"{trial.committed} committed, {trial.orphans} orphans, last {trial.last_step}",
            lost=list(trial.partial),
            diverged=list(trial.diverged),
        )

    def close(self) -> None:
        """The session is the features' own."""


class KilledExecutor:
    """An executor is killed while two of them compute."""

    def __init__(self, features: Features) -> None:
        self._features = features
        state = features.states[0]
        folder = features.chaos.copy(state.folder, "trial")
        driver = self._driver()
        begun = time.monotonic()
        ended, _ = driver.carry_out(Order(warehouse=str(folder), days=state.days))
        assert ended
        self._seconds = time.monotonic() - begun
        assert not differences(folder, state), "two executors write what one process writes"

    def trial(self, rng: random.Random) -> Found | None:
        """One kill; the run itself is to make it good, and a rerun finds nothing to do."""
        chaos, state = self._features.chaos, rng.choice(self._features.states)
        folder = chaos.copy(state.folder, "trial")
        driver = self._driver()
        seconds = rng.uniform(0, self._seconds)
        killed: list[str] = []

        def kill() -> None:
            executors = executors_of(driver.process.pid)
            if executors:
                victim = rng.choice(executors)
                with suppress(psutil.NoSuchProcess):
                    victim.kill()
                    killed.append(f"one of {len(executors)} executors")

        timer = threading.Timer(seconds, kill)
        try:
            ended, _ = driver.carry_out(Order(warehouse=str(folder), days=state.days), ordered=timer.start)
            said = "it ended well" if ended else "it was killed"
        except DriverFailedError as error:
            said = str(error)
        finally:
            timer.cancel()
            timer.join()
        if not killed:
            return None
        found = Found(point=f"{state.name}, {killed[0]} after {seconds:.2f} s", said=said)
        return made_good(found, chaos, folder, state)

    def _driver(self) -> Driver:
        return Driver(self._features.scratch / "drivers" / "cluster", master=LOCAL_CLUSTER)

    def close(self) -> None:
        """The session is the features' own."""


class FullDisk:
    """The disk of the warehouse is full while samples are computed."""

    def __init__(self, features: Features) -> None:
        self._features = features
        self._place = features.scratch / "disk" / "trial"
        self._grown: dict[str, int] = {}
        with small_disk(self._place):
            for state in features.states:
                self._clear()
                before = self._fill(state)
                features.chaos.compute(self._place, state.days)
                self._grown[state.name] = used(self._place) - before

    def trial(self, rng: random.Random) -> Found | None:
        """So many bytes are free, and then all there are."""
        chaos, state = self._features.chaos, rng.choice(self._features.states)
        driver = Driver(self._features.scratch / "drivers" / "disk")
        with small_disk(self._place):
            free = rng.randrange(4096, self._grown[state.name])
            resize(self._place, self._fill(state) + free)
            try:
                ended, _ = driver.carry_out(Order(warehouse=str(self._place), days=state.days))
                said = "it ended well" if ended else "it was killed"
            except DriverFailedError as error:
                ended, said = False, str(error)
            resize(self._place, ROOMY)
            if ended:
                return None
            found = Found(point=f"{state.name}, {free:,} of {self._grown[state.name]:,} bytes", said=said)
            return made_good(found, chaos, self._place, state)

    def _fill(self, state: State) -> int:
        shutil.copytree(state.folder, self._place, dirs_exist_ok=True)
        return used(self._place)

    def _clear(self) -> None:
        for folder in self._place.iterdir():
            shutil.rmtree(folder)

    def close(self) -> None:
        """The session is the features' own."""


def made_good(found: Found, chaos: Chaos, folder: Path, state: State) -> Found:
    """Look, run again, look again, and compare."""
    inspection = Inspection(chaos.spark)
    found.lost += inspection.look(folder)[2]
    try:
        chaos.compute(folder, state.days)
    except Exception as error:  # noqa: BLE001 - whatever stops the rerun is what the trial is to tell
        found.lost.append(f"the rerun failed: {type(error).__name__} {str(error)[:400]}")
        return found
    found.lost += [f"after the rerun: {problem}" for problem in inspection.look(folder)[2]]
    found.diverged += differences(folder, state)
    return found


def executors_of(driver: int) -> list[psutil.Process]:
    """JVMs of the executors that a driver's cluster has started."""
    found = []
    for process in psutil.Process(driver).children(recursive=True):
        with suppress(psutil.Error):
            if any(EXECUTOR in part for part in process.cmdline()) and process.name() == "java":
                found.append(process)
    return found
