"""Faults of real ranks under horovodrun: SIGKILL of a rank or of what started it, SIGSTOP of a rank.

Half of the points are a checkpoint that a rank has just written, the others are moments of the run's time. The rerun
begins at once, whatever of the disturbed run is still there.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.outcome import Found
from tests.chaos.training_inspection import differences
from tests.chaos.training_process import Order
from tests.chaos.training_world import CHECKPOINT_STEPS, EPOCHS, TRAIN_ROWS, TRAINING
from tests.chaos.trainings import END_S, Trainings

POLL_S = 0.01
MARK = "LIMELIGHT_CHAOS_TRIAL"
ROOT = Path(__file__).resolve().parents[2]
STEPS = EPOCHS * (TRAIN_ROWS // TRAINING["batch_size"])


class Ranks:
    """Two ranks under horovodrun, and a signal to one of the processes.

    Args:
        to: the processes that may be sent it: `rank`, or `launcher`.
    """

    def __init__(self, trainings: Trainings, scratch: Path, to: str, sent: signal.Signals) -> None:
        self._trainings, self._to, self._sent = trainings, to, sent
        self._log = scratch / "ranks.log"
        # One undisturbed run serves all kinds of these: it is kept beside the trainings.
        self._seconds, self._end = _undisturbed_ranks(trainings, self._log)

    def trial(self, rng: random.Random) -> Found | None:
        own = self._trainings
        own.copy()
        order = own.training(ranks=2)
        with _command(order, self._log) as command:
            point = self._wait(command, order, rng)
            victim = self._victim(command, rng)
            if victim is None:
                return None
            point = f"{point}: {command.name_of(victim)}"
            if not _send(victim, self._sent):
                return None
            code = _ended(command)
            if code is None:
                return Found(point=point, lost=[f"it had not ended after {END_S:.0f} s"])
            if code == 0:
                return None
            found = Found(point=point, said=f"exit code {code}")
            found.lost += own.look(order).partial
            left = [process for process in command.processes() if process.pid != command.process.pid]
            found.said += f", {len(left)} processes still there" if left else ""
            with _command(order, self._log) as again:
                code = _ended(again)
            if code != 0:
                found.lost.append(f"the rerun ended with {code}: {self._log.read_text()[-1500:]}")
                return found
        found.lost += [f"after the rerun: {what}" for what in own.look(order).partial]
        found.diverged += differences(own.look(order).contents, self._end)
        return found

    def _wait(self, command: Command, order: Order, rng: random.Random) -> str:
        """Until the point of the fault; says where it is."""
        if rng.random() < 0.3:
            seconds = rng.uniform(0, self._seconds)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline and command.process.poll() is None:
                time.sleep(POLL_S)
            return f"after {seconds:.2f} s"
        number = rng.randrange(STEPS // CHECKPOINT_STEPS + EPOCHS - 4)
        pointer = order.run / "checkpoints" / f"checkpoint.{number:08d}.json"
        further = rng.uniform(0, 0.05)
        while not pointer.exists() and command.process.poll() is None:
            time.sleep(POLL_S)
        time.sleep(further)
        return f"{further:.3f} s after checkpoint {number}"

    def _victim(self, command: Command, rng: random.Random) -> psutil.Process | None:
        """One of the processes; of the ranks the first that are there."""
        while command.process.poll() is None:
            found = command.ranks() if self._to == "rank" else command.launchers()
            if found:
                return rng.choice(found)
            time.sleep(POLL_S)
        return None

    def close(self) -> None:
        """Nothing is kept running."""


class Command:
    """`training_process` as a command, and all that it has started, known by a variable of their environment."""

    def __init__(self, process: subprocess.Popen[bytes], mark: str) -> None:
        self.process, self._mark = process, mark

    def processes(self) -> list[psutil.Process]:
        """Those that are alive."""
        return [process for process in psutil.process_iter() if _environment(process).get(MARK) == self._mark]

    def ranks(self) -> list[psutil.Process]:
        """By rank."""
        found = {}
        for process in self.processes():
            rank = _environment(process).get("HOROVOD_RANK")
            if rank is not None and _is_python(process):
                found[rank] = process
        return [found[rank] for rank in sorted(found)]

    def launchers(self) -> list[psutil.Process]:
        """The command itself, and horovodrun."""
        try:
            own = psutil.Process(self.process.pid)
            return [own, *own.children()]
        except psutil.NoSuchProcess:
            return []

    def name_of(self, process: psutil.Process) -> str:
        """What it is to the training."""
        if process.pid == self.process.pid:
            return "the command"
        rank = _environment(process).get("HOROVOD_RANK")
        return "horovodrun" if rank is None else f"rank {rank}"


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return dict(process.environ())
    except (psutil.Error, OSError):
        return {}


def _is_python(process: psutil.Process) -> bool:
    try:
        return "jobs.train" in process.cmdline()
    except psutil.Error:
        return False


def _send(process: psutil.Process, sent: signal.Signals) -> bool:
    try:
        process.send_signal(sent)
    except psutil.NoSuchProcess:
        return False
    return True


@contextmanager
def _command(order: Order, log: Path) -> Iterator[Command]:
    """Start it; whatever it has left is killed at the end."""
    mark = uuid.uuid4().hex
    environment = os.environ | {MARK: mark, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.training_process", order.model_dump_json()],
            cwd=ROOT, env=environment, stdout=sink, stderr=sink, start_new_session=True,
        )  # fmt: skip
    command = Command(process, mark)
    try:
        yield command
    finally:
        while left := [one for one in command.processes() if one.status() != psutil.STATUS_ZOMBIE]:
            for one in left:
                _send(one, signal.SIGKILL)
            psutil.wait_procs(left, timeout=5)
        process.wait()


def _ended(command: Command) -> int | None:
    """Its exit code; None when it has not ended."""
    try:
        return command.process.wait(END_S)
    except subprocess.TimeoutExpired:
        return None


_RANKS_END: dict[Path, tuple[float, dict[str, Any]]] = {}


def _undisturbed_ranks(trainings: Trainings, log: Path) -> tuple[float, dict[str, Any]]:
    """Seconds and end of the two-rank run that nobody disturbs, made once."""
    if trainings.place not in _RANKS_END:
        trainings.copy()
        begun = time.monotonic()
        order = trainings.training(ranks=2)
        with _command(order, log) as command:
            code = command.process.wait(END_S)
        if code != 0:
            raise RuntimeError(f"the undisturbed ranks ended with {code}: {log.read_text()[-2000:]}")
        _RANKS_END[trainings.place] = time.monotonic() - begun, trainings.look(order).contents
    return _RANKS_END[trainings.place]
