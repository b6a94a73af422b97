"""The end of a scheduled retrain: gives back the turn to retrain, writes down what became of its decision, and draws
the page of what was retrained.

python jobs/close.py --warehouse URL --holder NAME --run full-2026-01-19                    nobody had to decide
python jobs/close.py --warehouse URL --holder NAME --run full-2026-01-19 --decision --failed  of jobs/decide.py; failed
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from features.errors import ExitCode
from jobs.console import console, people_first
from jobs.evaluate import settings_of
from jobs.page.command import draw_or_warn
from jobs.page.gather import RunFolders
from jobs.stage_door import choose_conf, door_parser
from jobs.trigger import conclude
from jobs.turn import turn
from pipeline.ledger import Ledger
from pipeline.tables import Warehouse


def close_step(url: str, holder: str, place: str, overrides: Sequence[str], *, decision: bool, failed: bool) -> str:
    """Give back what is kept for `holder`; a lease that ends without having been kept again is free.

    Raises:
        HeldError: when another run has taken it: nothing was kept for this one.
    """
    warehouse = Warehouse(url)
    with turn(warehouse, holder):
        if not decision:
            return "the turn to retrain is given back"
        settings, _ = settings_of(warehouse, place, overrides)
        ledger = Ledger(warehouse)
        with ledger.lease(holder):
            record = conclude(ledger, settings, failed=failed)
    if record is None:
        return "no decision is open; the turn to retrain is given back"
    return f"{record.decision.action} of {record.date} is {record.state}: {record.why}"


def drawn(url: str, run: str | None, place: str, overrides: Sequence[str]) -> list[Path]:
    """The page of a run, if anything was trained in it."""
    warehouse = Warehouse(url)
    settings, _ = settings_of(warehouse, place, overrides)
    if run is None or run not in RunFolders(settings.runs_folder(url), warehouse.manifest).names():
        return []
    return draw_or_warn(warehouse, settings, run)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; errors made on purpose exit with theirs."""
    parser = door_parser("gate", "Give back the turn to retrain at the end of a scheduled run.")
    parser.prog = "jobs/close.py"
    parser.add_argument("--decision", action="store_true", help="the run carries out a decision of jobs/decide.py")
    parser.add_argument("--run", metavar="TRAINSET", help="whose page is drawn, e.g. full-2026-01-19")
    parser.add_argument("--failed", action="store_true", help="a step has failed for good")
    options = parser.parse_args(arguments)
    if options.holder is None:
        parser.error("--holder is missing: whose turn ends?")
    with people_first():
        choose_conf(options.conf_dir)
        told = close_step(
            options.warehouse, options.holder, options.place, options.overrides,
            decision=options.decision, failed=options.failed,
        )  # fmt: skip
        console.print(told, soft_wrap=True, markup=False)
        for page in drawn(options.warehouse, options.run, options.place, options.overrides):
            console.print(f"→ {page}", soft_wrap=True, markup=False)
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
