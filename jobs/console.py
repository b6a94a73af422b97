"""How commands speak: one line per finished step, the step under way with its clock, errors for people."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from features.errors import LimelightError
from jobs.summary import StageTime

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


class Steps:
    """Times steps and shows them; what it recorded becomes `stages` of summary.json."""

    def __init__(self) -> None:
        self.done: list[StageTime] = []
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the command began."""
        return time.monotonic() - self._started

    @contextmanager
    def step(self, name: str, *, live: bool = True) -> Iterator[Step]:
        """One step; `live=False` leaves the terminal to whoever runs inside (a progress bar of its own)."""
        started = time.monotonic()
        with self.watch(name, live=live) as step:
            yield step
        self.record(StageTime(name=name, seconds=time.monotonic() - started, rows=step.rows), step.note)

    @contextmanager
    def watch(self, name: str, *, live: bool = True) -> Iterator[Step]:
        """What is under way, shown with its clock and not recorded: its parts are."""
        status = console.status(name) if live and console.is_terminal else None
        with status or nullcontext():
            yield Step(name, status)

    def record(self, stage: StageTime, note: str = "") -> None:
        """Take down a finished step and say so."""
        self.done.append(stage)
        rows = f"{stage.rows:>12,} rows" if stage.rows else " " * 17
        console.print(
            f"[green]✓[/] {stage.name:<18} {stage.seconds:>7.1f} s {rows}  [dim]{escape(note)}[/]", soft_wrap=True
        )


class Step:
    """What runs inside a step says here what it does and what it made."""

    def __init__(self, name: str, status: Status | None) -> None:
        """`status` shows what is said; None shows nothing."""
        self.name, self.rows, self.note = name, 0, ""
        self._status = status

    def say(self, text: str) -> None:
        """What is being done now."""
        if self._status is not None:
            self._status.update(f"{self.name}: {escape(text)}")


@contextmanager
def people_first() -> Iterator[None]:
    """Turn errors made on purpose into a message and their exit code; all others keep their traceback."""
    try:
        yield
    except LimelightError as error:
        errors.print(f"[bold red]error[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(int(error.exit_code))


Report = Callable[[str], None]
