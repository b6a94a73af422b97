"""A trained model → exported, proven equal, judged against its champion and published, by spark-submit.

spark-submit jobs/gate.py --warehouse URL --trainset full-2026-01-19 --model deepfm --model esmm

`limelight gate --explain` shows the verdict that this leaves behind.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from features.errors import ExitCode, NotReadyError, Problem
from features.paths import require_name
from jobs.console import Steps, console
from jobs.open_run import Run
from jobs.release import Release, release
from jobs.stage_door import door_parser, open_door
from pipeline.trainset import load
from training.registry import Registry
from training.result import read_result
from training.storage import Folder
from training.verdict_table import explain


def judge(run: Run, trainset: str, models: Sequence[str]) -> list[Release]:
    """Release every model of `runs/<trainset>/`.

    Raises:
        NotReadyError: names every model without a complete training; none is judged then.
    """
    warehouse = run.context.warehouse
    root = load(warehouse, trainset)[1]
    runs = run.settings.runs_folder(warehouse.url) / trainset
    folders = {model: runs / require_name(model) for model in models}
    untrained = [model for model, folder in folders.items() if read_result(Folder(str(folder))) is None]
    if untrained:
        remedy = f"Train them with jobs/train.py --out {runs}/<model>, or name others by --model"
        what = f"models have no complete training on {trainset}"
        raise NotReadyError([Problem(table="runs", what=what, count=len(untrained), examples=untrained, remedy=remedy)])
    registry = Registry.open(*run.settings.tracking(warehouse.url))
    found = []
    for model, folder in folders.items():
        with Steps().step(f"gate {model}") as step:
            found.append(release(model, folder, root, registry, run.settings.gate))
            step.rows, step.note = found[-1].verdict.rows, f"version {found[-1].version or 'none: not published'}"
        console.print(explain(found[-1].verdict))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when every model passed, 7 when one was stopped; errors made on purpose exit with theirs."""
    parser = door_parser("gate", "Judge trained models on their gate day, and publish those that pass.")
    parser.add_argument("--trainset", required=True, help="name of the train set that they were trained on")
    parser.add_argument("--model", action="append", help="name of a model; all of conf training.models by default")
    options = parser.parse_args(arguments)
    with open_door(options, "gate") as run:
        found = judge(run, options.trainset, options.model or run.settings.training.models)
    return int(ExitCode.OK if all(entry.verdict.passed for entry in found) else ExitCode.GATE_STOPPED)


if __name__ == "__main__":
    sys.exit(main())
