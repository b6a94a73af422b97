"""What the spark-submit scripts of the stages share: parse, load conf, call one function.

spark-submit --py-files build/dist/limelight.zip --properties-file conf/spark/standalone.conf \
    jobs/tiles.py --warehouse URL --from 2026-01-01 --to 2026-01-07

conf is looked for in this order: --conf-dir, $LIMELIGHT_CONF, conf/ beside the folder of the script, conf/ beside
the packages (which an archive of --py-files cannot offer: it is no folder).
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from features.errors import ConfError, ExitCode
from jobs.console import Steps, people_first
from jobs.open_run import Run, open_run, session
from jobs.retrain_plan import plan_retrain
from jobs.stage_lines import tell_unread
from jobs.turn import turn_of_run
from pipeline.config import CONF_FOLDER_VARIABLE, day_range
from pipeline.context import ONE_DAY
from pipeline.plan import Stage, stage
from pipeline.run import days_of, run_stages

OfMorning = Callable[[Run, datetime.date], None]


def a_day(text: str) -> datetime.date:
    """YYYY-MM-DD; argparse turns the error into its own."""
    try:
        return datetime.date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day; write YYYY-MM-DD") from error


def door_parser(name: str, description: str) -> argparse.ArgumentParser:
    """The options that every stage's script has."""
    entry = stage(name)
    parser = argparse.ArgumentParser(
        prog=entry.door,
        description=description,
        epilog=f"reads {', '.join(entry.reads)}; writes {', '.join(entry.writes)}; days: {entry.span}",
    )
    parser.add_argument("--warehouse", required=True, help="URL or folder of the warehouse")
    parser.add_argument(
        "--place", default="cluster", help="which overlay of conf/base.yaml: cluster (default) or local"
    )
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="one conf value"
    )
    parser.add_argument("--conf-dir", help="folder of base.yaml and its overlays; else $LIMELIGHT_CONF")
    parser.add_argument("--holder", help="of a schedule: name of the run that this is a step of (docs/airflow.md)")
    return parser


def retrain_option(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Which retrain of a morning a door works for."""
    kinds = ("full", "incremental")
    parser.add_argument("--retrain", choices=kinds, required=required, help="the retrain of --date that this is for")


@contextmanager
def open_door(
    options: argparse.Namespace, name: str, *, force: bool = False, last_day: datetime.date | None = None
) -> Iterator[Run]:
    """A session and everything that stages share; errors made on purpose end the process with their exit code.

    Args:
        last_day: nothing that arrived later is seen.
    """
    with people_first():
        choose_conf(options.conf_dir)
        where = (options.warehouse, options.place, options.overrides)
        with (
            turn_of_run(options.warehouse, options.holder, options.place, options.overrides),
            session(name, *where) as spark,
        ):
            yield open_run(spark, *where, force=force, last_day=last_day)


def run_days(name: str, arguments: Sequence[str] | None = None, *, of_morning: OfMorning | None = None) -> int:
    """Run one day-by-day stage of the plan, for the days from --from to --to or for those of a retrain.

    What is up to date is left alone.

    Args:
        of_morning: what is done for a retrain, where that is not the days of its samples.

    Returns:
        Exit code 0; errors made on purpose exit with theirs.
    """
    entry = stage(name)
    parser = door_parser(name, f"Compute the stage {name}: one partition per day, committed when all are written.")
    parser.add_argument("--from", dest="first", type=a_day, metavar="YYYY-MM-DD", help="first day")
    parser.add_argument("--to", dest="last", type=a_day, metavar="YYYY-MM-DD", help="last day")
    retrain_option(parser, required=False)
    parser.add_argument("--date", type=a_day, metavar="YYYY-MM-DD", help="of the retrain: sees dt < date")
    parser.add_argument("--force", action="store_true", help="compute also what is up to date")
    options = parser.parse_args(arguments)
    of_days, of_retrain = [options.first, options.last], [options.retrain, options.date]
    if (None in of_days) == (None in of_retrain) or (any(of_days) and any(of_retrain)):
        parser.error("give either --from and --to, or --retrain and --date")
    if options.date is not None:
        return _run_for_retrain(entry, options, of_morning)
    if options.last < options.first:
        parser.error(f"--from {options.first} is after --to {options.last}")
    with open_door(options, name, force=options.force) as run:
        run_stage(entry, run, day_range(options.first, options.last))
    return int(ExitCode.OK)


def _run_for_retrain(entry: Stage, options: argparse.Namespace, of_morning: OfMorning | None) -> int:
    """The days that a retrain needs of this stage, alone on the days of its samples, as `limelight daily` is."""
    with open_door(options, entry.name, force=options.force, last_day=options.date - ONE_DAY) as run:
        if of_morning is not None:
            of_morning(run, options.date)
            return int(ExitCode.OK)
        plan = plan_retrain(options.retrain, options.date, run.context.warehouse, run.settings)
        run_stage(entry, run, days_of(entry, plan.samples, run.context), held=plan.samples)
    return int(ExitCode.OK)


def run_stage(entry: Stage, run: Run, days: Sequence[datetime.date], held: Sequence[datetime.date] = ()) -> None:
    """Run a day-by-day stage for some days, and say what it did.

    Args:
        held: days that no other run may work on meanwhile.
    """
    if entry.run is None:
        raise ConfError(f"{entry.door} does not work day by day")
    with Steps().step(entry.name) as step:
        result = run_stages(run.context, {entry: days}, held, step.say)[0].result
        step.rows = result.rows
        counted = [f"{name} {value:,}" for name, value in result.counts.items() if value]
        done = f"{len(result.computed)} days computed, {len(result.skipped)} up to date"
        step.note = "; ".join([done, *counted])
    tell_unread(run.context)


def choose_conf(given: str | None) -> None:
    """Say where conf is: a folder that was given, else what the environment names, else beside the script's folder."""
    if given is not None:
        os.environ[CONF_FOLDER_VARIABLE] = given
    beside_script = Path(sys.argv[0]).resolve().parent.parent / "conf"
    if CONF_FOLDER_VARIABLE not in os.environ and (beside_script / "base.yaml").exists():
        os.environ[CONF_FOLDER_VARIABLE] = str(beside_script)
