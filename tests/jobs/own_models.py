"""A comparison of two tiny models on somebody's samples, trained in this process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs import fit
from jobs.compare import CompareOptions, compare
from jobs.comparison import Comparison
from jobs.console import Steps
from jobs.settings import TrainingSettings
from jobs.train import run_rank
from tests.training.samples.own_files import write
from training.run import INTERRUPTED_EXIT_CODE

TINY = {
    "batch_size": 128,
    "epochs": 1,
    "threads": 1,
    "optim": {"embedding": {"learning_rate": 0.2}, "dense": {"learning_rate": 0.05}},
}
CONFS: dict[str, dict[str, Any]] = {
    "lr": {"model": {"name": "lr", "task": "enter"}},
    "entire": {
        "model": {"name": "esmm", "parent": "enter", "child": "gift", "embedding_dim": 4, "hidden": [4]},
        "calibration": {"kind": "platt"},
    },
}


class Launched:
    """Stands in for `jobs.launch.launch`: trains here and notes the out folders; `stops` ends the next ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs: list[str] = []
        self.resumed: list[str] = []
        monkeypatch.setattr(fit, "launch", self)

    def __call__(self, settings: TrainingSettings, arguments: Sequence[str]) -> None:
        name = Path(arguments[arguments.index("--out") + 1]).parent.name
        self.runs.append(name)
        self.resumed += [name] if "--resume" in arguments else []
        assert run_rank(arguments).interrupted is False, INTERRUPTED_EXIT_CODE


def options_in(folder: Path, **changes: Any) -> CompareOptions:
    """Of samples and confs that are written there if they are not yet."""
    samples, confs = folder / "own", folder / "confs"
    if not samples.exists():
        write(samples, train=600, valid=400, test=300)
        confs.mkdir()
        for name, values in CONFS.items():
            write_conf(confs, name, values)
    options = CompareOptions(
        train=str(samples / "train"),
        valid=str(samples / "valid"),
        test=str(samples / "test"),
        schema=samples / "schema.yaml",
        models=("lr", "entire"),
        confs=confs,
        task=None,
        out=folder / "out",
        ranks=1,
    )
    return replace(options, **changes)


def write_conf(confs: Path, name: str, values: dict[str, Any]) -> None:
    """JSON is YAML, too."""
    (confs / f"{name}.yaml").write_text(json.dumps(TINY | values))


def compared(folder: Path) -> Comparison:
    """The two, trained."""
    with pytest.MonkeyPatch.context() as patch:
        Launched(patch)
        return compare(options_in(folder), Steps())
