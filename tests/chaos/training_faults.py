"""Faults of a training and of its publication: each is brought about, looked at, and made good by a plain rerun.

| kind | what happens | to |
|---|---|---|
| file | SIGKILL before a random file is opened, linked or renamed, or soon after | a training; half are published too |
| checkpoint | cut off at a random byte: one file of the newest checkpoint, or of all | a training that was killed |
| parquet | a flipped bit, zeros, or the end missing, at a random place | of the train set, the gate day's samples |
| disk | no byte is left, at a random number of bytes | training and publication |
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from features.errors import ExitCode
from tests.chaos.full_disk import ROOMY, resize, small_disk, used
from tests.chaos.outcome import Found
from tests.chaos.training_inspection import Looked, differences
from tests.chaos.training_process import Order, started
from tests.chaos.trainings import Trainings, Undisturbed, ended, shortened, told, wait_for_file, with_log


class File:
    """A training is killed at a file, or at a moment; half are published, too, and some have been through all of it."""

    def __init__(self, trainings: Trainings) -> None:
        self._trainings = trainings

    def trial(self, rng: random.Random) -> Found | None:
        own, way = self._trainings, rng.choice(("trained", "trained", "published", "published again"))
        again = way == "published again"
        order = own.training() if way == "trained" else own.order()
        undisturbed = own.trained if way == "trained" else own.published_again if again else own.published
        own.copy(published=again)
        events = undisturbed.events
        number = rng.randint(1, len(events))
        point = shortened(events[number - 1]) + (", a second time" if again else "")
        if rng.random() < 0.7:
            found = Found(point=f"before {point}")
            code = ended(started(order.model_copy(update={"step": number})))
        else:
            late = rng.uniform(0, 0.2)
            found = Found(point=f"{late:.3f} s after {point}")
            code = self._killed_behind(order, number, late)
        if code == 0:
            return None
        found.said = f"exit code {code}"
        if code != -signal.SIGKILL:
            found.lost.append(f"ended by itself: {told(order)}")
        found.lost += own.look(order).partial
        return own.made_good(found, order, undisturbed)

    @staticmethod
    def _killed_behind(order: Order, number: int, seconds: float) -> int | None:
        """Killed some time after its n-th file, wherever it then is; its exit code."""
        logged = with_log(order)
        process = started(logged)
        wait_for_file(process, logged, number)
        process.join(seconds)
        process.kill()
        return ended(process)

    def close(self) -> None:
        """Nothing is kept running."""


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
        return own.made_good(found, own.training(resume=not every), own.trained)

    def _state(self, rng: random.Random) -> Path:
        """A training that was killed behind its second checkpoint, or later."""
        if len(self._states) < self.STATES:
            own = self._trainings
            pointers = [n for n, event in enumerate(own.trained.events, start=1) if "checkpoints/checkpoint." in event]
            links = [step for step in pointers if own.trained.events[step - 1].startswith("os.link")]
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
        own, of_samples = self._trainings, rng.random() < 0.1
        undisturbed = own.published if of_samples else own.trained
        order = own.order() if of_samples else own.training()
        own.copy()
        files = sorted((own.place / "trainset").glob("*/part-*.parquet"))
        file = own.place / "samples" / "gate.parquet" if of_samples else rng.choice(files)
        whole = file.read_bytes()
        # Nobody has taken checksums of the samples: of what can happen to them, Parquet itself notices a lost end.
        kind = "cut off" if of_samples else rng.choice(("bit flipped", "zeros", "cut off"))
        at = rng.randrange(len(whole) - 64)
        file.write_bytes(DAMAGES[kind](whole, at))
        name = str(file.relative_to(own.place))
        code = ended(started(order))
        said = told(order, 3000)
        found = Found(point=f"{name}: {kind} at byte {at:,}", said=f"exit code {code}")
        if file.read_bytes() == whole:
            return None
        named = file.name in said
        if (code != ExitCode.BAD_DATA or not named) and not _harmless(code, own.look(order), undisturbed):
            found.lost.append(f"exit code {code}, and it {'is' if named else 'is not'} named: {said[-600:]}")
        found.lost += own.look(order).partial
        file.write_bytes(whole)
        return own.made_good(found, order, undisturbed)

    def close(self) -> None:
        """Nothing is kept running."""


def _harmless(code: int | None, seen: Looked, undisturbed: Undisturbed) -> bool:
    """Whether the damage changed nothing: it lay in bytes that nobody reads."""
    return code == 0 and not differences(seen.contents, undisturbed.end)


DAMAGES: dict[str, Callable[[bytes, int], bytes]] = {
    "bit flipped": lambda whole, at: whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :],
    "zeros": lambda whole, at: whole[:at] + bytes(64) + whole[at + 64 :],
    "cut off": lambda whole, at: whole[:at],
}


class Disk:
    """The disk fills up while a training writes; then there is room again."""

    def __init__(self, trainings: Trainings) -> None:
        self._trainings, self._undisturbed = trainings, trainings.published
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
            return own.made_good(found, own.order(), self._undisturbed)

    def close(self) -> None:
        """Nothing is kept running."""
