"""What the arms of `daily_arms` come to: gaps of AUC with an interval, and what an incremental retrain costs.

One record per (arm, morning) is kept as a line of JSON when it is done: a run that was cut off goes on with the next.
"""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from features.manifest import Frozen
from training.bootstrap import Interval, Judged, Resamples, interval, require_same_rows

FULL, INCREMENTAL, NEVER = "full", "incremental", "never"
ROUNDS, SEED, LEVEL = 400, 7, 0.95


class ArmDay(Frozen):
    """One arm on one morning.

    Attributes:
        judged_on: its gate day.
        fingerprint: of the settings.
        trainset: name of the train set, of which the training has the name too; of the arm `never` its only one.
        auc: of the main task.
        train_rows: of the train split; a training goes over them `epochs` times.
        trainset_s, training_s: wall seconds; trainset_cpu_s, training_cpu_s: of all processors; None: not
            measured.
        ids_added: vocabulary → ids that a warm start added.
    """

    arm: str
    date: datetime.date
    judged_on: datetime.date
    model: str
    fingerprint: str
    trainset: str
    auc: float
    judged_rows: int
    train_rows: int = 0
    epochs: int = 0
    trainset_s: float = 0.0
    trainset_cpu_s: float | None = None
    training_s: float = 0.0
    training_cpu_s: float | None = None
    ids_added: Mapping[str, int] = Field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Wall seconds of train set and training."""
        return self.trainset_s + self.training_s

    @property
    def cpu_seconds(self) -> float | None:
        """Processor seconds of train set and training; None: not measured."""
        if self.trainset_cpu_s is None or self.training_cpu_s is None:
            return None
        return self.trainset_cpu_s + self.training_cpu_s

    @property
    def trained_rows(self) -> int:
        """Rows that went through the model."""
        return self.train_rows * self.epochs


class Kept:
    """What is done, in a file that only grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith("\n")]  # a killed run may leave half a line
        if len(whole) < len(lines):
            path.write_text("".join(whole), encoding="utf-8")
        self.records = [ArmDay.model_validate_json(line) for line in whole]

    def find(self, arm: str, date: datetime.date, model: str, fingerprint: str) -> ArmDay | None:
        """What an arm did on a morning with these settings, if that is done."""
        wanted = (arm, date, model, fingerprint)
        found = [one for one in self.records if (one.arm, one.date, one.model, one.fingerprint) == wanted]
        return found[-1] if found else None

    def newest(self, arm: str, model: str) -> list[ArmDay]:
        """An arm's mornings with the settings that it ran with last, in their order."""
        of_arm = [one for one in self.records if (one.arm, one.model) == (arm, model)]
        same = [one for one in of_arm if one.fingerprint == of_arm[-1].fingerprint]
        return sorted(same, key=lambda one: one.date)

    def add(self, record: ArmDay) -> ArmDay:
        """Keep it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as sink:
            sink.write(record.model_dump_json() + "\n")
        self.records.append(record)
        return record


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One morning of two arms, on the same rows in the same order."""

    full: Judged
    other: Judged


def gap_interval(pairs: Sequence[Pair], rounds: int = ROUNDS) -> Interval | None:
    """AUC(full) − AUC(other), mean over mornings, with the interval of resampled users.

    A user who is drawn is drawn on all days: somebody's days are not independent either.

    Raises:
        ValueError: the arms of a morning were not judged on the same rows.
    """
    for pair in pairs:
        require_same_rows(pair.full, pair.other)
    group = np.concatenate([pair.full.group for pair in pairs])
    morning = np.repeat(np.arange(len(pairs)), [len(pair.full.group) for pair in pairs])
    draws = Resamples.draw(group, rounds=rounds, seed=SEED)
    everybody = Resamples(codes=draws.codes, multiplicity=np.ones((1, draws.multiplicity.shape[1]), np.uint16))

    def mean_gap(drawn: Resamples) -> npt.NDArray[np.float64]:
        gaps = []
        for number, pair in enumerate(pairs):
            of_morning = drawn.of(morning == number)
            gaps.append(of_morning.auc(pair.full) - of_morning.auc(pair.other))
        return np.asarray(np.mean(gaps, axis=0), dtype=np.float64)

    return interval(float(mean_gap(everybody)[0]), mean_gap(draws), LEVEL)


def gaps(full: Iterable[ArmDay], other: Iterable[ArmDay]) -> dict[str, Any]:
    """AUC(full) − AUC(other): mean and range over the mornings that both have.

    Raises:
        ValueError: the arms of a morning were judged on different days.
    """
    by_date = {one.date: one for one in full}
    found = []
    for one in other:
        if (against := by_date.get(one.date)) is not None:
            if against.judged_on != one.judged_on:
                raise ValueError(
                    f"{one.date}: {against.arm} was judged on {against.judged_on}, {one.arm} on {one.judged_on}"
                )
            found.append(against.auc - one.auc)
    return {"mean": statistics.fmean(found), "range": [min(found), max(found)], "by_morning": found}


FIGURES = ("seconds", "trainset_s", "training_s", "cpu_seconds", "trainset_cpu_s", "training_cpu_s", "trained_rows")


def costs(full: Sequence[ArmDay], other: Sequence[ArmDay]) -> dict[str, Any]:
    """What the other arm costs as a share of the full retrains, all mornings together, and the median of each arm.

    A figure is of the mornings on which both arms have it; without any it is left out.
    """
    found: dict[str, Any] = {"share": {}, "median": {one[0].arm: {} for one in (full, other)}, "mornings": {}}
    for figure in FIGURES:
        both = [(getattr(a, figure), getattr(b, figure)) for a, b in zip(full, other, strict=True)]
        both = [pair for pair in both if None not in pair]
        if both:
            found["mornings"][figure] = len(both)
            found["share"][figure] = sum(b for _, b in both) / sum(a for a, _ in both)
            found["median"][full[0].arm][figure] = statistics.median(a for a, _ in both)
            found["median"][other[0].arm][figure] = statistics.median(b for _, b in both)
    by_morning = [b.seconds / a.seconds for a, b in zip(full, other, strict=True)]
    return {**found, "range": [min(by_morning), max(by_morning)]}
