"""How far models get towards what can be known at all: simulated logs, the true probabilities beside them.

limelight ingest simulate      raw logs, and the true probability of every label                          once
limelight daily                features, samples, a train set (and LR, whose training takes least)        once
<root>/models/<name>-<conf>/   a training on that train set, two at a time, one core each                 resumable
<root>/histories/              the same rows without what else is known of a user: only the histories tell; for LR,
                               pooling and DIN
share of the way               (AUC − 0.5) / (ceiling − 0.5) of `enter` on the gate day; the ceiling is the AUC of the
                               true probability on the rows that the model was judged on
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from features.errors import ExitCode
from features.manifest import TRAINSET_FILE, TrainSet
from jobs.ceiling import heat_of, probabilities_of_truth, references
from jobs.console import Steps
from jobs.fit import conf_for, train_below
from jobs.release import read_gate_samples
from jobs.settings import model_values
from pipeline.tables import Warehouse
from pipeline.trainset import load
from training.config import TrainConf
from training.result import METRICS_FILE

DATE = "2025-03-19"
"""The morning after the simulator's 18 days."""
GATE_DAY = "2025-03-17"
"""The last day whose labels are mature then."""
TASK = "enter"
AT_ONCE = 2
OF_USERS = "user_"
HISTORIES = ("lr", "dnn", "din")
DONE = (ExitCode.OK, ExitCode.GATE_STOPPED)
SETTINGS: Mapping[str, Any] = {"epochs": 6}
"""What all models have instead of the settings in conf/models, which are for 130,000 rows."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Simulated logs, and the train set made of them.

    Attributes:
        root: folder of the trainings.
        trainset_root: folder that the train set's paths are relative to.
        heat, truth: see `jobs.ceiling`, of the gate day.
    """

    root: Path
    trainset: TrainSet
    trainset_root: Path
    heat: pa.Table
    truth: pa.Table


def measure(out: Path, impressions: int, models: Sequence[str], told: Callable[[str], None]) -> dict[str, Any]:
    """Model → AUC, ceiling and share of the way; `<model>, histories` → the same where only histories are known."""
    world = _world(out, impressions)
    histories = of_histories(world)
    asked = [(world, name, name) for name in models]
    asked += [(histories, name, f"{name}, histories") for name in HISTORIES if name in models]
    steps = Steps()
    found = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        judged = [(title, pool.submit(_judged, of, name, steps)) for of, name, title in asked]
        for title, future in judged:
            found[title] = future.result()
            told(f"{title}: AUC {found[title]['auc']:.4f}, {found[title]['ratio']:.3f} of the way to the ceiling")
    return found


def logs(out: Path, impressions: int) -> tuple[Path, Path, str]:
    """Folder of the raw tables, folder of the truth, and the gate day of `measure`; written if they are not there."""
    root = out / "ceiling" / str(impressions)
    if not (root / "ingested").is_file():
        _limelight("ingest", "simulate", *_paths(root), "--impressions", str(impressions))
        (root / "ingested").touch()
    return root / "warehouse" / "raw", root / "truth", GATE_DAY


def _world(out: Path, impressions: int) -> World:
    logs(out, impressions)
    root = out / "ceiling" / str(impressions)
    paths = _paths(root)
    if not (root / "daily" / "summary.json").is_file():
        _limelight("daily", *paths, "--date", DATE, "--out", str(root / "daily"), "--set", "training.models=[lr]")
    trainset, url = load(Warehouse(str(root / "warehouse")), f"full-{DATE}")
    return World(
        root=root / "models",
        trainset=trainset,
        trainset_root=Path(url.removeprefix("file://")),
        heat=heat_of(read_gate_samples(trainset)),
        truth=probabilities_of_truth(str(root / "truth"), GATE_DAY),
    )


def of_histories(world: World) -> World:
    """The same rows; of a user no id, no profile and no leaf."""
    root = world.root.with_name("histories")
    (root / "trainset").mkdir(parents=True, exist_ok=True)
    for entry in world.trainset_root.iterdir():
        if entry.name != TRAINSET_FILE and not (root / "trainset" / entry.name).exists():
            (root / "trainset" / entry.name).symlink_to(entry)
    whole = world.trainset
    known = {
        "categorical": tuple(
            field for field in whole.categorical if field.kind != "leaf" and not field.name.startswith(OF_USERS)
        ),
        "dense": tuple(field for field in whole.dense if not field.name.startswith(OF_USERS)),
        "leaves": None,
    }
    trainset = whole.model_copy(update=known)
    (root / "trainset" / TRAINSET_FILE).write_text(trainset.model_dump_json(indent=1), encoding="utf-8")
    return replace(world, root=root / "models", trainset=trainset, trainset_root=root / "trainset")


def settings_of(model: str, trainset: TrainSet) -> TrainConf:
    """A model's training conf in this benchmark."""
    return conf_for(model_values(model) | dict(SETTINGS) | {"judge_train": False}, trainset)


def _judged(world: World, model: str, steps: Steps) -> dict[str, float]:
    """Train, go on with a training of the same settings that was cut off, or take over what is there."""
    conf = settings_of(model, world.trainset)
    run = world.root / f"{model}-{hashlib.sha256(conf.model_dump_json().encode()).hexdigest()[:8]}"
    with steps.step(f"train {model}", live=False) as step:
        train_below(run, conf, world.trainset_root, 1, step, resume=True)
    predicted = run / "predictions-gate.parquet"
    ceiling = references(predicted, {TASK: (TASK,)}, world.heat, world.truth)[TASK].ceiling
    assert ceiling is not None, "simulated logs have a truth"
    metrics = json.loads((run / METRICS_FILE).read_text(encoding="utf-8"))["gate"][TASK]
    auc = float(metrics["auc"])
    ratio = (auc - 0.5) / (ceiling - 0.5)
    return {"auc": auc, "logloss": metrics["logloss"], "pcoc": metrics["pcoc"], "ceiling": ceiling, "ratio": ratio}


def _paths(root: Path) -> list[str]:
    return ["--warehouse", str(root / "warehouse"), "--truth", str(root / "truth")]


def _limelight(*arguments: str) -> None:
    """Run a command; its output stays on the terminal."""
    command = [sys.executable, "-m", "jobs.cli", *arguments]
    code = subprocess.run(command, check=False).returncode
    if code not in DONE:
        sys.exit(f"bench_accuracy: `limelight {' '.join(arguments)}` ended with exit code {code}")
