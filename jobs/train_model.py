"""One model of a train set, trained on the ranks that conf names: a step of `limelight daily`, or of a schedule.

python jobs/train_model.py --warehouse URL --retrain full --date 2026-01-19 --model deepfm
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from features.errors import ExitCode, NotReadyError, Problem
from features.manifest import TRAINSET_FILE, TrainSet
from jobs.console import Steps, console, people_first
from jobs.evaluate import settings_of
from jobs.launch import launch, training_arguments
from jobs.open_run import session
from jobs.retrain_plan import Kind, champion_cards, trainset_name
from jobs.settings import TrainingSettings, train_conf
from jobs.stage_door import a_day, choose_conf, door_parser, retrain_option
from jobs.turn import turn_of_run
from pipeline.tables import Warehouse
from pipeline.trainset import load
from training.config import TrainConf
from training.registry import Registry
from training.result import TrainResult, read_result
from training.storage import Folder


def train_model(
    model: str,
    conf: TrainConf,
    trainset: TrainSet,
    root: str,
    folder: Path,
    settings: TrainingSettings,
    *,
    start: str | None,
    resume: bool,
) -> TrainResult:
    """Train on all ranks and wait.

    Args:
        root: URL of the train set's folder.
        folder: of this training.
        start: folder of the training to start warm from.
        resume: go on with a training in `folder` that was cut off, if it was of the same rows.

    Raises:
        NotReadyError: when it was interrupted.
        LimelightError: when a rank failed.
    """
    goes_on = resume and is_same_trainset(folder, trainset)
    launch(settings, training_arguments(conf, root, str(folder), resume=goes_on, init_from=start))
    result = read_result(Folder(str(folder)))
    if result is None:
        raise NotReadyError([Problem(table="runs", what=f"{model} was interrupted", remedy="Run the command again")])
    return result


def is_same_trainset(run_folder: Path, trainset: TrainSet) -> bool:
    """Whether a training that was cut off read the same rows, encoded alike: only then may it go on."""
    path = run_folder / TRAINSET_FILE
    if not path.exists():
        return False
    earlier = TrainSet.model_validate_json(path.read_text(encoding="utf-8"))
    return earlier.model_dump(exclude={"splits"}) == trainset.model_dump(exclude={"splits"})


def train_step(
    warehouse: Warehouse,
    kind: Kind,
    date: datetime.date,
    model: str,
    place: str,
    overrides: Sequence[str],
    *,
    resume: bool,
) -> str | None:
    """Train one model of a retrain whose train set is there.

    Returns:
        Why there is nothing to train, or None once it is trained.

    Raises:
        NotReadyError: when the train set is not there, or nobody is champion yet and the start should be warm.
    """
    settings, facts = settings_of(warehouse, place, overrides)
    trainset, root = load(warehouse, trainset_name(kind, date))
    start = None
    if kind == "incremental":
        cards = champion_cards(Registry.open(*settings.tracking(warehouse.url)), settings.training.models)
        if model not in cards:
            return "it has no champion to start from"
        if cards[model]["trainset"] == trainset.name:
            return f"its champion was trained on {trainset.name} already"
        start = cards[model]["run_folder"]
    pair = facts.tasks.esmm if facts else None
    conf = train_conf(model, settings, warehouse.url, trainset, pair, incremental=start is not None)
    if isinstance(conf, str):
        return conf
    folder = settings.runs_folder(warehouse.url) / trainset.name / model
    with Steps().step(f"train {model}", live=False) as step:
        result = train_model(model, conf, trainset, root, folder, settings.training, start=start, resume=resume)
        step.rows = result.steps * conf.batch_size
        step.note = f"{result.pace}, on {result.world_size} ranks"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 trained, 9 when there is nothing to train; errors made on purpose exit with theirs."""
    parser = door_parser("train", "Train one model of a retrain, on the ranks and by the launcher of conf training.")
    retrain_option(parser, required=True)
    parser.add_argument("--date", required=True, type=a_day, metavar="YYYY-MM-DD", help="sees dt < date")
    parser.add_argument("--model", required=True, help="one of conf training.models")
    parser.add_argument("--resume", action="store_true", help="go on with a training that was cut off")
    options = parser.parse_args(arguments)
    with people_first():
        choose_conf(options.conf_dir)
        where = (options.warehouse, options.place, options.overrides)
        settings, _ = settings_of(Warehouse(options.warehouse), options.place, options.overrides)
        on_spark = settings.training.launcher == "spark"  # the ranks are tasks of this application
        with (
            turn_of_run(options.warehouse, options.holder, options.place, options.overrides),
            session(f"train {options.model}", *where) if on_spark else nullcontext(),
        ):
            why = train_step(
                Warehouse(options.warehouse), options.retrain, options.date, options.model, options.place,
                options.overrides, resume=options.resume,
            )  # fmt: skip
    if why is not None:
        console.print(f"{options.model} is not trained: {why}", soft_wrap=True, markup=False)
        return int(ExitCode.SKIPPED)
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
