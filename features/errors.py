"""Errors written for people: what is wrong, where, how often, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from features.redaction import redacted

MAX_EXAMPLES = 5


class ExitCode(IntEnum):
    """Process exit codes of every Limelight door; stable, so that schedulers may branch on them."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    BAD_CONF = 3
    BAD_DATA = 4
    NOT_READY = 5
    HELD_BY_ANOTHER_RUN = 6
    GATE_STOPPED = 7
    NO_RESOURCES = 8
    SKIPPED = 9


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One kind of trouble found in one place.

    Attributes:
        what: the trouble in one clause, e.g. "repeated impression_id".
        remedy: what the reader should do next.
        table, day, column: where; None when it does not apply.
        count: number of rows (or keys, files, ...) concerned.
        examples: any number may be given, at most five are shown.
    """

    what: str
    remedy: str
    table: str | None = None
    day: str | None = None
    column: str | None = None
    count: int | None = None
    examples: Sequence[object] = field(default=())

    def __str__(self) -> str:
        place = " ".join(
            f"{label}={value}"
            for label, value in (("table", self.table), ("day", self.day), ("column", self.column))
            if value is not None
        )
        count = f" ({self.count:,})" if self.count is not None else ""
        shown = ", ".join(str(example) for example in self.examples[:MAX_EXAMPLES])
        examples = f"; e.g. {shown}" if shown else ""
        return f"{place + ': ' if place else ''}{self.what}{count}{examples}. {self.remedy}"


class LimelightError(Exception):
    """Base of every error raised on purpose; `exit_code` becomes the process's. Messages lose secrets in URLs."""

    exit_code: ExitCode = ExitCode.FAILURE

    def __init__(self, message: str = "") -> None:
        super().__init__(redacted(message))


class ConfError(LimelightError):
    """A conf key is unknown, or its value is out of range."""

    exit_code = ExitCode.BAD_CONF


class CatalogError(LimelightError):
    """A feature declaration contradicts itself or another one."""

    exit_code = ExitCode.BAD_CONF


class DataError(LimelightError):
    """Data breaks a contract. Carries every problem of the kind, not only the first.

    Raises:
        ValueError: if built without a problem.
    """

    exit_code = ExitCode.BAD_DATA

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        if not self.problems:
            raise ValueError("DataError needs at least one Problem")
        super().__init__("\n".join(str(problem) for problem in self.problems))


class DivergedError(DataError):
    """A loss, a weight or a score is not a number."""


class NotReadyError(DataError):
    """Input that should arrive later (a raw day without its marker, a table not yet computed)."""

    exit_code = ExitCode.NOT_READY


class HeldError(LimelightError):
    """Another live run holds the lease of a partition."""

    exit_code = ExitCode.HELD_BY_ANOTHER_RUN


class GateStoppedError(LimelightError):
    """The gate did not let a candidate through; the verdict file says by which rule."""

    exit_code = ExitCode.GATE_STOPPED


class ResourceError(LimelightError):
    """The machine or cluster lacks what the work needs (disk, slots, a compiler, a runtime)."""

    exit_code = ExitCode.NO_RESOURCES
