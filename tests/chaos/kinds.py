"""The kinds of faults by name, each made when its first trial comes: what it prepares serves all of them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

from tests.chaos.mlflow_faults import Mlflow
from tests.chaos.outcome import Kind
from tests.chaos.rank_faults import Ranks
from tests.chaos.spark_faults import Features, FullDisk, KilledDriver, KilledExecutor
from tests.chaos.training_faults import Checkpoint, Disk, File, Parquet
from tests.chaos.trainings import Trainings
from tests.chaos.two_dailies import TwoDailies

WEIGHTS: Mapping[str, int] = {
    "driver": 8,
    "executor": 5,
    "rank": 9,
    "launcher": 9,
    "stopped": 6,
    "file": 20,
    "checkpoint": 24,
    "parquet": 20,
    "disk": 7,
    "disk-features": 5,
    "dailies": 5,
    "mlflow": 7,
}
"""How often each is tried, of so many in all: the cheap ones more often."""
FEATURES = ("driver", "executor", "disk-features")


class Kinds:
    """Kinds in one scratch folder; those of one side share what they have prepared.

    Args:
        kept: of what takes minutes to prepare, and may serve a later run; the scratch folder by default.
    """

    def __init__(self, scratch: Path, kept: Path | None = None) -> None:
        self._scratch = scratch
        self._made: dict[str, Kind] = {}
        ranks = scratch / "trainings"
        self._makers: Mapping[str, Callable[[], Kind]] = {
            "driver": lambda: KilledDriver(self._features),
            "executor": lambda: KilledExecutor(self._features),
            "disk-features": lambda: FullDisk(self._features),
            "rank": lambda: Ranks(self._trainings, ranks, "rank", signal.SIGKILL),
            "launcher": lambda: Ranks(self._trainings, ranks, "launcher", signal.SIGKILL),
            "stopped": lambda: Ranks(self._trainings, ranks, "rank", signal.SIGSTOP),
            "file": lambda: File(self._trainings),
            "checkpoint": lambda: Checkpoint(self._trainings, ranks),
            "parquet": lambda: Parquet(self._trainings),
            "disk": lambda: Disk(self._trainings),
            "mlflow": lambda: Mlflow(self._trainings, ranks),
            "dailies": lambda: TwoDailies(kept or scratch),
        }

    def kind(self, name: str) -> Kind:
        """The kind of that name.

        Raises:
            UnableError: this machine cannot bring it about.
        """
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    def close(self) -> None:
        """End all that the kinds keep running."""
        for kind in self._made.values():
            kind.close()
        if "_features" in vars(self):
            self._features.close()

    @cached_property
    def _features(self) -> Features:
        folder = self._scratch / "features"
        folder.mkdir()
        return Features(folder)

    @cached_property
    def _trainings(self) -> Trainings:
        return Trainings(self._scratch / "trainings")
