"""Is it time to retrain? One decision for a schedule, which then runs the retrain step by step. Needs no Spark.

python jobs/decide.py --warehouse URL --date 2026-01-19 --holder RUN

Prints the decision, and as the last line `incremental 2026-01-19` or `full 2026-01-19`: which retrain of which morning
is to be run. The turn to retrain and the ledger are then kept for RUN until jobs/close.py gives them back.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Sequence

from features.errors import ExitCode
from jobs.champions import Champions
from jobs.console import people_first
from jobs.evaluate import settings_of
from jobs.stage_door import a_day, choose_conf, door_parser
from jobs.trigger import Trigger
from jobs.trigger_command import show
from jobs.turn import turn
from pipeline.decision import Action
from pipeline.ledger import Ledger
from pipeline.tables import Warehouse
from training.registry import Registry


def decide_step(
    url: str, date: datetime.date, holder: str, place: str, overrides: Sequence[str]
) -> tuple[Action, datetime.date] | None:
    """Which retrain of which morning; None when it is time for none, and nothing is kept then.

    Raises:
        HeldError: when another run decides or retrains.
    """
    warehouse = Warehouse(url)
    settings, _ = settings_of(warehouse, place, overrides)
    keep = datetime.timedelta(hours=settings.scheduler.keep_hours)
    champions = Champions(Registry.open(*settings.tracking(warehouse.url)))
    with turn(warehouse, holder) as turn_lease, Ledger(warehouse).lease(holder) as ledger_lease:
        outcome = Trigger(warehouse, settings, champions, None, tell=show).begin(date)
        if outcome.record.state != "started":
            return None
        turn_lease.keep(keep)
        ledger_lease.keep(keep)
        return outcome.record.decision.action, outcome.record.date


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when there is something to do, 9 when not; errors made on purpose exit with theirs."""
    parser = door_parser("evaluate", "Evaluate the champions on new days and decide whether to retrain.")
    parser.prog = "jobs/decide.py"
    parser.add_argument("--date", required=True, type=a_day, metavar="YYYY-MM-DD", help="sees dt < date")
    options = parser.parse_args(arguments)
    if options.holder is None:
        parser.error("--holder is missing: the turn to retrain is kept under that name")
    with people_first():
        choose_conf(options.conf_dir)
        found = decide_step(options.warehouse, options.date, options.holder, options.place, options.overrides)
    if found is None:
        return int(ExitCode.SKIPPED)
    print(*found)
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
