"""What lazy updates cost in AUC: DeepFM on simulated logs, the table's optimisers side by side.

row_adagrad, lazy_adam   change the rows of the batch alone
dense_adam               torch's Adam over the whole table, the reference
row_adagrad by <values>  on two ranks, whose gradients of the table travel so; the same rows in each step
The network's optimiser, regularisation and all else are conf/models/deepfm.yaml's. Of the same five learning rates of
the table each takes the one with the best AUC on the validation day, mean of the seeds; its AUC on the gate day counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks import ceiling
from features.manifest import TRAINSET_FILE
from jobs.launch import launch, training_arguments
from jobs.settings import TrainingSettings
from pipeline.config import conf_folder
from training.config import TrainConf
from training.run import train

MODEL = "deepfm"
REFERENCE = "dense_adam"
LAZY = "row_adagrad"
RANKS = 2
OPTIMISERS: Mapping[str, Mapping[str, Any]] = {
    LAZY: {"kind": "adagrad"},
    "lazy_adam": {"kind": "adam"},
    REFERENCE: {"kind": "adam", "lazy": False},
}
LEARNING_RATES = (0.0003, 0.001, 0.003, 0.01, 0.03)
TASK = "enter"


def simulated(out: Path, impressions: int, told: Callable[[str], None]) -> Path:
    """The newest train set of the simulated logs that `make bench-accuracy` uses, too; made where there is none."""
    ceiling.measure(out, impressions, (MODEL,), told)
    sets = (out / "ceiling" / str(impressions) / "warehouse" / "trainsets" / "data").glob(f"*/{TRAINSET_FILE}")
    return max(sets, key=lambda file: file.stat().st_mtime).parent


@dataclass(frozen=True, kw_only=True)
class Arm:
    """An optimiser of the table, and what the gradients of two ranks travel as; one rank alone if None."""

    optimiser: str
    values: str | None = None

    @property
    def name(self) -> str:
        """In the JSON."""
        return self.optimiser if self.values is None else f"{self.optimiser} by {self.values}"

    def conf(self, rate: float, seed: int) -> TrainConf:
        """The model's own settings with another optimiser of the table."""
        values = TrainConf.load(conf_folder() / "models" / f"{MODEL}.yaml").model_dump(mode="json")
        values["optim"]["embedding"] |= {**OPTIMISERS[self.optimiser], "learning_rate": rate}
        if self.values not in (None, "full"):
            values["exchange"] = {"values": self.values}
        return TrainConf.of(values | {"seed": seed, "device": "cpu"})


def arms_of(values: Sequence[str]) -> list[Arm]:
    """The optimisers on one rank, then each way to travel on two."""
    return [*(Arm(optimiser=name) for name in OPTIMISERS), *(Arm(optimiser=LAZY, values=one) for one in values)]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training of the comparison, in a folder of its own: what is complete there is not repeated."""

    trainset: Path
    out: Path
    arm: Arm
    rate: float
    seed: int

    def auc(self) -> tuple[float, float]:
        """On the validation day and on the gate day.

        Raises:
            ValueError: a day has one class only.
        """
        conf, folder = self.arm.conf(self.rate, self.seed), str(self.out / f"{self.arm.name}-{self.rate:g}-{self.seed}")
        if self.arm.values is not None:
            settings = TrainingSettings(ranks=RANKS, launcher="horovodrun")
            launch(settings, training_arguments(conf, str(self.trainset), folder, resume=True))
        result = train(conf, str(self.trainset), folder, resume=True, show_progress=False)  # complete if there were two
        valid, gate = (result.metrics[split][TASK]["auc"] for split in ("valid", "gate"))
        if valid is None or gate is None:
            raise ValueError(f"{self.trainset}: {TASK} has one class only on the validation or the gate day: no AUC")
        return float(valid), float(gate)


def measure(
    trainset: Path,
    out: Path,
    arms: Sequence[Arm],
    seeds: Sequence[int],
    rates: Sequence[float],
    told: Callable[[str], None],
) -> dict[str, Any]:
    """Arm → its chosen rate, AUC on the gate day by seed and its mean, and how far that is above dense Adam's."""
    found: dict[str, Any] = {}
    for arm in arms:
        figures: dict[float, list[tuple[float, float]]] = {}
        for rate, seed in product(rates, seeds):
            valid, gate = Trial(trainset=trainset, out=out, arm=arm, rate=rate, seed=seed).auc()
            figures.setdefault(rate, []).append((valid, gate))
            told(f"{arm.name} {rate:g} seed {seed}: AUC {valid:.4f} valid, {gate:.4f} gate")
        by_rate = {rate: statistics.mean(valid for valid, _ in both) for rate, both in figures.items()}
        chosen = max(by_rate, key=lambda rate: by_rate[rate])
        on_gate = [gate for _, gate in figures[chosen]]
        found[arm.name] = {"learning_rate": chosen, "auc": statistics.mean(on_gate), "by_seed": on_gate}
        found[arm.name]["valid_by_rate"] = {f"{rate:g}": auc for rate, auc in by_rate.items()}
    for one in found.values():
        one["over_dense_adam"] = one["auc"] - found[REFERENCE]["auc"]
    return found
