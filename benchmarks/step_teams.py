"""Arms in processes of their own that take turns within one run, each in its side's environment.

A team is the process, or the processes, of one arm: one alone, two that know nothing of each other, or two ranks.
    start        its process connects to a socket of ours and builds its arm
    one round    every team takes one step that is not timed, then `count` steps; each round begins with another team
    rate         rows per second: of the processes of a team together
A rank's Horovod keeps asking the other ranks for work: teams of ranks are stopped (SIGSTOP) while others take turns.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from benchmarks.step_arms import ArmSpec

ROOT = Path(__file__).resolve().parents[1]
PEERS_PYTHON = ROOT / ".venv-parity" / "bin" / "python"
START_TIMEOUT_S, ANSWER_TIMEOUT_S, END_TIMEOUT_S = 600.0, 1200.0, 10.0
POLL_S = 0.5
SHOWN_LOG = 4000
MOST_STEPS = 400
"""Of a turn: a tiny arm ends, too."""


class ArmError(RuntimeError):
    """An arm's process failed; the message has what it said."""


class _Member:
    """A process of a team, by its socket."""

    def __init__(self, link: socket.socket) -> None:
        link.settimeout(ANSWER_TIMEOUT_S)
        self._link = link
        self._lines: IO[str] = link.makefile("rw", encoding="utf-8")
        hello = self.hear()
        self.pid, self.rank = int(hello["pid"]), int(hello["rank"])

    def tell(self, request: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # that it is gone is seen when it does not answer
            print(json.dumps(request), file=self._lines, flush=True)

    def hear(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise EOFError
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        with suppress(OSError):
            self._lines.close()
        self._link.close()


class Team:
    """The processes of an arm.

    Attributes:
        spec: of the first of them.
    """

    def __init__(self, spec: ArmSpec, name: str, log: Path, *, is_stopped_between: bool = False) -> None:
        self.spec, self.name, self._log = spec, name, log
        self._stops = is_stopped_between
        self._members: list[_Member] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def size(self) -> int:
        """Processes that take steps."""
        return len(self._members)

    def ask(self, do: str, **arguments: Any) -> list[dict[str, Any]]:
        """Every process does it, at the same time: their answers, by rank.

        Raises:
            ArmError: one of them failed, or is gone.
        """
        self._signal(signal.SIGCONT)
        for member in self._members:
            member.tell({"do": do, **arguments})
        answers = []
        for member in self._members:
            try:
                answers.append(member.hear())
            except (EOFError, OSError) as error:
                raise self._failed(f"ended or fell silent while it was to do {do!r}") from error
        # All are heard first: when one rank fails, what the others say is only that it is gone.
        if errors := [answer["error"] for answer in answers if "error" in answer]:
            raise self._failed(f"failed to do {do!r}:\n" + "\n".join(errors))
        self._signal(signal.SIGSTOP)
        return answers

    def rate(self, count: int) -> float:
        """Rows per second of all processes together, over `count` steps."""
        seconds = [float(answer["seconds"]) for answer in self.ask("steps", count=count)]
        return sum(self.spec.batch * count / each for each in seconds)

    def begin(self, process: subprocess.Popen[bytes], links: socket.socket, members: int) -> None:
        """Take over a process that was just started, once its `members` have connected.

        Raises:
            ArmError: they have not in time, or it ended.
        """
        self._processes.append(process)
        deadline = time.monotonic() + START_TIMEOUT_S
        expected = len(self._members) + members
        while len(self._members) < expected:
            with suppress(TimeoutError):
                self._members.append(_Member(links.accept()[0]))
            if process.poll() is not None or time.monotonic() > deadline:
                raise self._failed("did not start")
        self._members.sort(key=lambda member: member.rank)

    def close(self) -> None:
        """End its processes."""
        self._signal(signal.SIGCONT)
        for member in self._members:
            member.close()
        for process in self._processes:
            try:
                process.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _signal(self, number: signal.Signals) -> None:
        for member in self._members if self._stops else ():
            with suppress(ProcessLookupError):
                os.kill(member.pid, number)

    def _failed(self, what: str) -> ArmError:
        said = self._log.read_text(encoding="utf-8", errors="replace")[-SHOWN_LOG:] if self._log.is_file() else ""
        return ArmError(f"arm {self.name!r} {what}\n{said}")


class Teams:
    """A socket that arms connect to; a context, at whose end all of them are gone."""

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="bench-train-"))
        self._links = socket.socket(socket.AF_UNIX)
        self._links.bind(str(self._folder / "link"))
        self._links.listen()
        self._links.settimeout(POLL_S)
        self.all: list[Team] = []
        return self

    def __exit__(self, *_: object) -> None:
        for team in self.all:
            team.close()
        self._links.close()
        shutil.rmtree(self._folder)

    def start(self, *specs: ArmSpec, ranks: int = 1, name: str = "", is_built: bool = True) -> Team:
        """A team of a process per spec, each alone; of one spec as `ranks` ranks if that is above 1.

        Raises:
            ArmError: a process does not come up.
        """
        name = name or specs[0].name
        team = Team(specs[0], name, self._folder / f"{len(self.all)}.log", is_stopped_between=ranks > 1)
        self.all.append(team)
        for spec in specs:
            command = [*(_horovodrun(ranks) if ranks > 1 else ()), *self._command(spec)]
            with team._log.open("ab") as log:
                process = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=_environment(spec),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            team.begin(process, self._links, ranks)
        if is_built:
            team.ask("build")
        return team

    def _command(self, spec: ArmSpec) -> list[str]:
        python = str(PEERS_PYTHON) if spec.side in ("deepctr", "fuxictr") else sys.executable
        return [python, "-m", "benchmarks.step_worker", str(self._folder / "link"), json.dumps(spec.as_dict())]


def _horovodrun(ranks: int) -> list[str]:
    horovodrun = Path(sys.executable).with_name("horovodrun")
    return [str(horovodrun), "-np", str(ranks), "--gloo", "-H", f"localhost:{ranks}"]


def _environment(spec: ArmSpec) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": str(spec.threads), "PYTHONPATH": str(ROOT)}


@dataclass(kw_only=True)
class Rates:
    """Rows per second of an arm, one per round, and the load of the machine (1 minute) after each."""

    values: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """For the JSON."""
        return {
            "median": round(statistics.median(self.values), 1),
            "range": [round(min(self.values), 1), round(max(self.values), 1)],
            "all": [round(value, 1) for value in self.values],
            "load": [round(value, 2) for value in self.loads],
        }


def in_turns(
    teams: Sequence[Team], *, repeats: int, turn_s: float, done: Callable[[str, float], None]
) -> dict[str, Rates]:
    """Rates of all teams, which take turns of about `turn_s` seconds, `repeats` rounds of them after one to warm up."""
    counts = {team.name: _steps_of(team, turn_s, done) for team in teams}
    rates = {team.name: Rates() for team in teams}
    for number in range(repeats):
        turn = number % len(teams)
        for team in (*teams[turn:], *teams[:turn]):
            team.rate(1)
            found = rates[team.name]
            found.values.append(team.rate(counts[team.name]))
            found.loads.append(os.getloadavg()[0])
            done(team.name, found.values[-1])
    return rates


def _steps_of(team: Team, turn_s: float, done: Callable[[str, float], None]) -> int:
    """Steps of a turn: at least two."""
    team.rate(1)
    rate = team.rate(2)
    done(team.name, rate)
    return min(MOST_STEPS, max(2, math.ceil(turn_s * rate / (team.spec.batch * team.size))))
