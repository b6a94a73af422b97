"""What became of a fault, and how trials are dealt out over the kinds of faults."""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from features.manifest import Frozen


@dataclass(kw_only=True)
class Found:
    """What one trial saw.

    Attributes:
        point: where the fault came.
        said: how the disturbed run ended.
        lost: what was visible in part, or why the rerun did not complete.
        diverged: what differs from the undisturbed run at the end.
    """

    point: str
    said: str = ""
    lost: list[str] = field(default_factory=list)
    diverged: list[str] = field(default_factory=list)


class Outcome(Frozen):
    """A trial as it is kept; a function of kind, number and seed but for the machine's timing."""

    kind: str
    number: int
    seed: int
    point: str
    said: str
    lost: tuple[str, ...]
    diverged: tuple[str, ...]
    seconds: float

    @property
    def whole(self) -> bool:
        """Whether nothing was lost and nothing diverged."""
        return not self.lost and not self.diverged


class Kind(Protocol):
    """One kind of fault, with its undisturbed run; made once, tried often."""

    def trial(self, rng: random.Random) -> Found | None:
        """Fault, look, run again, compare; None when the run had ended before its fault came."""

    def close(self) -> None:
        """End what it keeps running."""


class UnableError(Exception):
    """This machine cannot bring about a kind of fault; says why."""


def dealt(trials: int, weights: Mapping[str, int]) -> list[tuple[str, int]]:
    """(kind, number) of so many trials: of every kind by its weight, and mixed, so that a run cut off has them all."""
    total = sum(weights.values())
    exact = {kind: trials * weight / total for kind, weight in weights.items()}
    counts = {kind: int(share) for kind, share in exact.items()}
    for kind in sorted(exact, key=lambda kind: counts[kind] - exact[kind])[: trials - sum(counts.values())]:
        counts[kind] += 1
    places = [((number + 0.5) / count, kind, number) for kind, count in counts.items() for number in range(count)]
    return [(kind, number) for _, kind, number in sorted(places)]


def summary(outcomes: Sequence[Outcome]) -> dict[str, object]:
    """Figures of all trials, and per kind."""

    def figures(some: Sequence[Outcome]) -> dict[str, int]:
        return {
            "trials": len(some),
            "lost": sum(bool(one.lost) for one in some),
            "diverged": sum(bool(one.diverged) for one in some),
        }

    kinds = dict.fromkeys(one.kind for one in outcomes)
    of_kind = {kind: [one for one in outcomes if one.kind == kind] for kind in kinds}
    return figures(outcomes) | {
        "kinds": {
            kind: figures(some) | {"seconds": round(statistics.median(one.seconds for one in some), 1)}
            for kind, some in of_kind.items()
        }
    }


def read(path: Path) -> list[Outcome]:
    """The trials that a run has kept so far; a last line that was cut off is none."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [Outcome.model_validate_json(line) for line in lines[:-1] if line]
