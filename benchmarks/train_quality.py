"""What lazy updates cost in AUC: DeepFM on simulated logs, the table's optimisers side by side.

row_adagrad, lazy_adam   change the rows of the batch alone
dense_adam               torch's Adam over the whole table, the reference
The network's optimiser, regularisation and all else are conf/models/deepfm.yaml's. Of the same five learning rates of
the table each takes the one with the best AUC on the validation day, mean of the seeds; its AUC on the gate day counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import ceiling
from features.manifest import TRAINSET_FILE
from pipeline.config import conf_folder
from training.config import TrainConf
from training.run import train

MODEL = "deepfm"
REFERENCE = "dense_adam"
OPTIMISERS: Mapping[str, Mapping[str, Any]] = {
    "row_adagrad": {"kind": "adagrad"},
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


def measure(
    trainset: Path, out: Path, seeds: Sequence[int], rates: Sequence[float], told: Callable[[str], None]
) -> dict[str, Any]:
    """Optimiser → its chosen rate, AUC on the gate day by seed and its mean, and how far that is above dense Adam's.

    A training that is complete in `out` is not repeated.
    """
    found: dict[str, Any] = {}
    for name in OPTIMISERS:
        figures = {rate: [_trained(trainset, out, name, rate, seed, told) for seed in seeds] for rate in rates}
        chosen = max(figures, key=lambda rate: statistics.mean(valid for valid, _ in figures[rate]))
        on_gate = [gate for _, gate in figures[chosen]]
        found[name] = {"learning_rate": chosen, "auc": statistics.mean(on_gate), "by_seed": on_gate}
        found[name]["valid_by_rate"] = {
            str(rate): statistics.mean(valid for valid, _ in both) for rate, both in figures.items()
        }
    for one in found.values():
        one["over_dense_adam"] = one["auc"] - found[REFERENCE]["auc"]
    return found


def conf_of(optimiser: str, rate: float, seed: int) -> TrainConf:
    """The model's own settings with another optimiser of the table."""
    conf = TrainConf.load(conf_folder() / "models" / f"{MODEL}.yaml")
    values = conf.model_dump(mode="json")
    values["optim"]["embedding"] |= {**OPTIMISERS[optimiser], "learning_rate": rate}
    return TrainConf.of(values | {"seed": seed, "device": "cpu"})


def _trained(
    trainset: Path, out: Path, optimiser: str, rate: float, seed: int, told: Callable[[str], None]
) -> tuple[float, float]:
    """AUC on the validation day and on the gate day."""
    folder = out / f"{optimiser}-{rate:g}-{seed}"
    result = train(conf_of(optimiser, rate, seed), str(trainset), str(folder), resume=True, show_progress=False)
    valid, gate = (result.metrics[split][TASK]["auc"] for split in ("valid", "gate"))
    if valid is None or gate is None:
        raise ValueError(f"{trainset}: {TASK} has one class only on the validation or the gate day: no AUC")
    told(f"{optimiser} {rate:g} seed {seed}: AUC {valid:.4f} valid, {gate:.4f} gate")
    return float(valid), float(gate)
