"""samples → the train set of a full retrain, by spark-submit; prints the jobs/train.py command of every model.

spark-submit jobs/trainset.py --warehouse URL --date 2026-01-19
spark-submit jobs/trainset.py --warehouse URL --date 2026-01-19 --retrain full    as `limelight daily` does
"""

from __future__ import annotations

import datetime
import shlex
import sys
from collections.abc import Sequence

from features.errors import ExitCode
from features.manifest import TrainSet
from jobs.console import Steps, console
from jobs.launch import training_arguments
from jobs.open_run import Run
from jobs.retrain_plan import RetrainPlan, plan_retrain
from jobs.settings import Settings, train_conf
from jobs.stage_door import a_day, door_parser, open_door, retrain_option
from pipeline.config import full_retrain_days
from pipeline.context import ONE_DAY, Context
from pipeline.trainset import TrainSetBuilder


def build(context: Context, settings: Settings, plan: RetrainPlan, steps: Steps) -> tuple[TrainSet, str]:
    """Fit artefacts, encode the splits and commit the train set of a plan; the URL of its folder too.

    Raises:
        NotReadyError: when samples of its days were not computed.
    """
    with steps.step("trainset") as step:
        builder = TrainSetBuilder(context.spark, context.warehouse, context.catalog, settings.pipeline, context.source)
        trainset, root = builder.build(plan.name, plan.days, plan.previous, warm=plan.warm, report=step.say)
        step.rows = sum(split.rows for split in trainset.splits.values())
        step.note = f"{plan.name}: {trainset.table_rows():,} embedding rows"
        if evicted := sum(trainset.evicted().values()):
            step.note += f", {evicted:,} of evicted keys"
    return trainset, root


def show_trainings(run: Run, trainset: TrainSet, root: str) -> None:
    """Write the training settings of every model beside where its run will be, and print how to start it."""
    warehouse = run.context.warehouse.url
    pair = run.facts.tasks.esmm if run.facts else None
    for model in run.settings.training.models:
        conf = train_conf(model, run.settings, warehouse, trainset, pair)
        if isinstance(conf, str):
            console.print(f"[yellow]{model} cannot be trained:[/] {conf}")
            continue
        arguments = training_arguments(conf, root, str(run.settings.runs_folder(warehouse) / trainset.name / model))
        # Not wrapped at the width of a terminal: the line is there to be pasted.
        console.print(f"jobs/train.py {shlex.join(arguments)}", soft_wrap=True)


def named_plan(run: Run, name: str, date: datetime.date, previous: str | None) -> RetrainPlan:
    """The train set of `daily --date D`, under any name and with the booster of any other."""
    days = full_retrain_days(date, run.settings.pipeline)
    return RetrainPlan(name=name, days=days, samples=days.all, previous=previous)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; errors made on purpose exit with theirs."""
    parser = door_parser("trainset", "Fit artefacts, encode the splits and commit a train set.")
    parser.add_argument("--date", required=True, type=a_day, metavar="YYYY-MM-DD", help="sees dt < date")
    parser.add_argument("--name", help="of the train set; full-<date> by default")
    parser.add_argument("--previous", help="name of the train set whose booster and normaliser are kept")
    retrain_option(parser, required=False)
    options = parser.parse_args(arguments)
    if options.retrain is not None and (options.name or options.previous):
        parser.error("--retrain decides the name and the booster: leave out --name and --previous")
    last_day = options.date - ONE_DAY if options.retrain is not None else None
    with open_door(options, "trainset", last_day=last_day) as run:
        if options.retrain is not None:
            plan = plan_retrain(options.retrain, options.date, run.context.warehouse, run.settings)
        else:
            plan = named_plan(run, options.name or f"full-{options.date}", options.date, options.previous)
        trainset, root = build(run.context, run.settings, plan, Steps())
        if options.retrain is None:
            show_trainings(run, trainset, root)
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
