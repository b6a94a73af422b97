"""Faults of a training and of its publication: each is brought about, looked at, and made good by a plain rerun.

| kind | what happens | to |
|---|---|---|
| file | SIGKILL before a random file is opened, linked or renamed, or at a random time | training and publication |
| checkpoint | cut off at a random byte: one file of the newest checkpoint, or of all | a training that was killed |
| parquet | a flipped bit, zeros, or the end missing, at a random place | of the train set, the gate day's samples |
| disk | no byte is left, at a random number of bytes | training and publication |
| mlflow | refused, silent, or its database locked, at a random request or time | training and publication |
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from features.errors import ExitCode
from tests.chaos.full_disk import ROOMY, resize, small_disk, used
from tests.chaos.mlflow_server import Line, mlflow_server
from tests.chaos.outcome import Found
from tests.chaos.training_inspection import Looked, differences, look
from tests.chaos.training_process import Order, new_database, output_of, started
from tests.chaos.training_world import write_world
from training.mlflow_access import quiet_client

END_S = 300.0  # of any run here; 5 to 15 s on idle cores
# MLflow's own variables: its seven tries take four minutes.
IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "3",
}


class Trainings:
    """The prepared folder, where trials have their copy of it, and the one-rank run that nobody disturbs.

    Attributes:
        place: always the same path: train set and database name files by it.
        events, events_again, training_events: files that an undisturbed run opened, linked or renamed, in order: of a
            training and its publication; of the same command run once more; of a training alone.
        seconds: that the first took.
        end, training_end: what training and publication came to, and a training alone.
    """

    def __init__(self, scratch: Path) -> None:
        self.place, self._prepared = scratch / "trial", scratch / "prepared"
        self._published = scratch / "published"
        self.place.mkdir(parents=True)
        write_world(self.place)
        self._database = new_database(self.place / "mlflow")
        self.place.rename(self._prepared)
        self.copy()
        self.events, self.seconds = self._undisturbed(self.order(log=str(scratch / "events.log")))
        self.end = self.look(self.order()).contents
        shutil.copytree(self.place, self._published)
        self.events_again, _ = self._undisturbed(self.order(log=str(scratch / "events again.log")))
        self.copy()
        self.training_events, _ = self._undisturbed(self.training(log=str(scratch / "training events.log")))
        self.training_end = self.look(self.training()).contents

    def _undisturbed(self, order: Order) -> tuple[list[str], float]:
        """The files of an order that nobody disturbs, and its seconds."""
        begun = time.monotonic()
        code = ended(started(order))
        if code != 0 or order.log is None:
            raise RuntimeError(f"the undisturbed run ended with {code}: {told(order)}")
        return Path(order.log).read_text(encoding="utf-8").splitlines(), time.monotonic() - begun

    def copy(self, *, published: bool = False) -> None:
        """The prepared folder at its place, or one in which all was done before."""
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self._published if published else self._prepared, self.place)

    def fill(self) -> None:
        """Likewise, where the place is a mounted disk."""
        shutil.copytree(self._prepared, self.place, dirs_exist_ok=True)

    def order(self, **changes: Any) -> Order:
        """To train with one rank and to publish, on the database in the folder."""
        uri, artifacts = self._database
        return Order(**({"folder": str(self.place), "registry": uri, "artifacts": artifacts} | changes))

    def training(self, **changes: Any) -> Order:
        """To train alone."""
        return self.order(**({"registry": None, "artifacts": None} | changes))

    def look(self, order: Order, *, damaged_checkpoints: bool = False) -> Looked:
        """At what an order has left."""
        return look(order.folder, order.registry, order.artifacts, damaged_checkpoints=damaged_checkpoints)

    def made_good(self, found: Found, order: Order, end: dict[str, Any]) -> Found:
        """Run an order again, to its end, and compare."""
        code = ended(started(order))
        if code != 0:
            found.lost.append(f"the rerun ended with {code}: {told(order)}")
            return found
        seen = self.look(order)
        found.lost += [f"after the rerun: {what}" for what in seen.partial]
        found.diverged += differences(seen.contents, end)
        return found


def ended(process: ForkServerProcess, seconds: float = END_S) -> int | None:
    """Its exit code; None when it did not end and was killed."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    return process.exitcode


def told(order: Order, characters: int = 600) -> str:
    """The end of what a forked process said."""
    return output_of(order).read_text(encoding="utf-8", errors="replace")[-characters:].strip()


class File:
    """A training and its publication are killed at a file, or at a moment; some have been through it all before."""

    def __init__(self, trainings: Trainings) -> None:
        self._trainings = trainings

    def trial(self, rng: random.Random) -> Found | None:
        own, again = self._trainings, rng.random() < 0.3
        own.copy(published=again)
        events = own.events_again if again else own.events
        if rng.random() < 0.7:
            step = rng.randint(1, len(events))
            process, point = started(own.order(step=step)), f"before {shortened(events[step - 1])}"
            code = ended(process)
        else:
            seconds = rng.uniform(0, own.seconds)
            process, point = started(own.order()), f"after {seconds:.2f} s"
            process.join(seconds)
            process.kill()
            code = ended(process)
        if code == 0:
            return None
        found = Found(point=f"{point}{', a second time' if again else ''}", said=f"exit code {code}")
        if code != -signal.SIGKILL:
            found.lost.append(f"ended by itself: {told(own.order())}")
        found.lost += own.look(own.order()).partial
        return own.made_good(found, own.order(), own.end)

    def close(self) -> None:
        """Nothing is kept running."""


def shortened(event: str) -> str:
    """Without what is drawn anew in every run."""
    return re.sub(r"[0-9a-f]{16,}", "…", event)


class Checkpoint:
    """A killed training's checkpoints are cut off."""

    STATES = 4

    def __init__(self, trainings: Trainings, scratch: Path) -> None:
        self._trainings, self._scratch = trainings, scratch / "cut off"
        self._scratch.mkdir()
        self._states: list[Path] = []

    def trial(self, rng: random.Random) -> Found | None:
        own = self._trainings
        state = self._state(rng)
        shutil.rmtree(own.place)
        shutil.copytree(state, own.place)
        folder = own.training().run / "checkpoints"
        every = rng.random() < 0.25
        pointers = sorted(folder.glob("checkpoint.????????.json"))
        point = "; ".join(_cut_one_of(pointer, rng) for pointer in (pointers if every else pointers[-1:]))
        found = Found(point=point)
        found.lost += own.look(own.training(), damaged_checkpoints=True).partial
        if every:
            code = ended(started(own.training()))
            said = told(own.training())
            found.said = f"exit code {code}"
            if code != ExitCode.BAD_DATA or "no whole checkpoint" not in said:
                found.lost.append(f"no checkpoint was whole, and it ended with {code}: {said}")
        # The remedy that the message names, where no checkpoint is left.
        return own.made_good(found, own.training(resume=not every), own.training_end)

    def _state(self, rng: random.Random) -> Path:
        """A training that was killed behind its second checkpoint, or later."""
        if len(self._states) < self.STATES:
            own = self._trainings
            pointers = [n for n, event in enumerate(own.training_events, start=1) if "checkpoints/checkpoint." in event]
            links = [step for step in pointers if own.training_events[step - 1].startswith("os.link")]
            own.copy()
            code = ended(started(own.training(step=rng.choice(links[2:]))))
            assert code == -signal.SIGKILL, told(own.training())
            self._states.append(Path(shutil.copytree(own.place, self._scratch / str(len(self._states)))))
        return rng.choice(self._states)

    def close(self) -> None:
        """Nothing is kept running."""


def _cut_one_of(pointer: Path, rng: random.Random) -> str:
    """Cut a random file of a checkpoint off at a random byte."""
    generation = pointer.name.split(".")[1]
    files = [pointer, *sorted(pointer.parent.glob(f"attempt.{generation}.*/*.safetensors"))]
    file = rng.choice(files)
    size = file.stat().st_size
    left = rng.randrange(size)
    os.truncate(file, left)
    return f"{file.name} of {generation}: {left} of {size} bytes"


class Parquet:
    """A Parquet file is damaged; the message names it, and once the file is as it was the run ends as ever."""

    def __init__(self, trainings: Trainings) -> None:
        self._trainings = trainings

    def trial(self, rng: random.Random) -> Found | None:
        own = self._trainings
        own.copy()
        file = rng.choice([*sorted((own.place / "trainset").glob("*/part-*.parquet")), _samples(own.place)])
        whole = file.read_bytes()
        order, end = (own.order(), own.end) if file == _samples(own.place) else (own.training(), own.training_end)
        # Nobody has taken checksums of the samples: of what can happen to them, Parquet itself notices a lost end.
        kind = "cut off" if file == _samples(own.place) else rng.choice(("bit flipped", "zeros", "cut off"))
        at = rng.randrange(len(whole) - 64)
        file.write_bytes(DAMAGES[kind](whole, at))
        name = str(file.relative_to(own.place))
        code = ended(started(order))
        said = told(order, 3000)
        found = Found(point=f"{name}: {kind} at byte {at:,}", said=f"exit code {code}")
        if file.read_bytes() == whole:
            return None
        named = file.name in said
        if (code != ExitCode.BAD_DATA or not named) and not _harmless(code, own.look(order), end):
            found.lost.append(f"exit code {code}, and it {'is' if named else 'is not'} named: {said[-600:]}")
        found.lost += own.look(order).partial
        file.write_bytes(whole)
        return own.made_good(found, order, end)

    def close(self) -> None:
        """Nothing is kept running."""


def _harmless(code: int | None, seen: Looked, end: dict[str, Any]) -> bool:
    """Whether the damage changed nothing: it lay in bytes that nobody reads."""
    return code == 0 and not differences(seen.contents, end)


def _samples(place: Path) -> Path:
    return place / "samples" / "gate.parquet"


DAMAGES: dict[str, Callable[[bytes, int], bytes]] = {
    "bit flipped": lambda whole, at: whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :],
    "zeros": lambda whole, at: whole[:at] + bytes(64) + whole[at + 64 :],
    "cut off": lambda whole, at: whole[:at],
}


class Disk:
    """The disk fills up while a training writes; then there is room again."""

    def __init__(self, trainings: Trainings) -> None:
        self._trainings = trainings
        with small_disk(trainings.place):
            trainings.fill()
            before = used(trainings.place)
            assert ended(started(trainings.order())) == 0, told(trainings.order())
            self._grown = used(trainings.place) - before

    def trial(self, rng: random.Random) -> Found | None:
        own = self._trainings
        with small_disk(own.place):
            own.fill()
            free = rng.randrange(4096, self._grown)
            resize(own.place, used(own.place) + free)
            code = ended(started(own.order()))
            if code == 0:
                return None
            found = Found(
                point=f"{free:,} of about {self._grown:,} bytes", said=f"exit code {code}: {told(own.order(), 200)}"
            )
            resize(own.place, ROOMY)
            found.lost += own.look(own.order()).partial
            return own.made_good(found, own.order(), own.end)

    def close(self) -> None:
        """Nothing is kept running."""


class Mlflow:
    """MLflow cannot be reached, from a random request on; then it can."""

    def __init__(self, trainings: Trainings, scratch: Path) -> None:
        self._trainings = trainings
        self._running = ExitStack()
        self._line = Line(self._running.enter_context(mlflow_server(scratch / "mlflow server")))
        self._forget()
        trainings.copy()
        code = ended(started(self._order()))
        if code != 0:
            self.close()
            raise RuntimeError(f"the training on an MLflow server ended with {code}: {told(self._order())}")
        self._chunks = self._line.chunks
        self._end = trainings.look(self._order()).contents

    def trial(self, rng: random.Random) -> Found | None:
        way = rng.choice(("refused", "refused", "silent", "locked"))
        return self._locked(rng) if way == "locked" else self._cut(rng, refuses=way == "refused")

    def _cut(self, rng: random.Random, *, refuses: bool) -> Found | None:
        own = self._trainings
        self._forget()
        own.copy()
        chunk = rng.randint(1, self._chunks)
        self._line.cut_at(chunk, refuses=refuses)
        code = ended(started(self._order()))
        self._line.mend()
        if code == 0:
            return None
        found = Found(
            point=f"{'refused' if refuses else 'silent'} from message {chunk} of {self._chunks}",
            said=f"exit code {code}: {told(self._order(), 200)}",
        )
        found.lost += own.look(self._order()).partial
        return own.made_good(found, self._order(), self._end)

    def _locked(self, rng: random.Random) -> Found | None:
        own = self._trainings
        own.copy()
        seconds = rng.uniform(0, own.seconds)
        process = started(own.order())
        process.join(seconds)
        with _locked(own.place / "mlflow" / "mlflow.db"):
            code = ended(process)
        if code == 0:
            return None
        found = Found(
            point=f"database locked after {seconds:.2f} s", said=f"exit code {code}: {told(own.order(), 200)}"
        )
        found.lost += own.look(own.order()).partial
        return own.made_good(found, own.order(), own.end)

    def _order(self) -> Order:
        return self._trainings.order(registry=self._line.url, artifacts=None, environment=IMPATIENT)

    def _forget(self) -> None:
        """The server's memory of the trial before."""
        client = quiet_client(self._line.url)
        for model in client.search_registered_models():
            client.delete_registered_model(model.name)

    def close(self) -> None:
        """End the server."""
        self._line.close()
        self._running.close()


@contextmanager
def _locked(database: Path) -> Iterator[None]:
    """Nobody else may read or write it."""
    connection = sqlite3.connect(database, timeout=30, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()
