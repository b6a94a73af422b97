"""The command `trigger`: one decision, for cron, or rounds until a signal."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import typer

from jobs.cli_options import DEFAULT_WAREHOUSE, Out, Overrides, Place, Warehouse, parse_day
from jobs.console import people_first


def trigger(
    warehouse: Warehouse = DEFAULT_WAREHOUSE,
    date: Annotated[
        datetime.date | None,
        typer.Option("--date", "-d", parser=parse_day, metavar="YYYY-MM-DD", help="Sees dt < date; default: today."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide and explain; change nothing.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until SIGTERM or SIGINT.")] = False,
    every: Annotated[
        int | None, typer.Option(min=1, help="Seconds between rounds of --watch; conf trigger.every_seconds.")
    ] = None,
    out: Out = Path("build/trigger"),
    place: Place = "local",
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Is it time to retrain? Evaluates the champions on new days, tells every reason, and retrains if one asks."""
    if watch and (date is not None or dry_run):
        raise typer.BadParameter("--watch goes by today's date and acts; leave out --date and --dry-run")
    if every is not None and not watch:
        raise typer.BadParameter("--every is for --watch")
    from jobs.trigger_command import TriggerOptions, explain, run_once, run_watch

    options = TriggerOptions(warehouse=warehouse, out=out, place=place, overrides=tuple(overrides))
    with people_first():
        if watch:
            raise typer.Exit(run_watch(options, every))
        raise typer.Exit(explain(options, date) if dry_run else run_once(options, date))


def add_to(app: typer.Typer) -> None:
    """Give an application this command."""
    app.command()(trigger)
