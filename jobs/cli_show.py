"""Commands that show: what is in a warehouse, the page of a run, conf, catalog and plan."""

from __future__ import annotations

import datetime
import json
from typing import Annotated

import typer
import yaml
from rich.table import Table

from jobs.cli_options import DEFAULT_WAREHOUSE, Overrides, Place, Warehouse, parse_day
from jobs.console import console, people_first


def status(
    warehouse: Warehouse = DEFAULT_WAREHOUSE,
    place: Place = "local",
    checks: Annotated[bool, typer.Option("--checks", help="Every figure of the border checks instead.")] = False,
    table: Annotated[str | None, typer.Option(help="With --checks: only this table.")] = None,
    day: Annotated[
        datetime.date | None,
        typer.Option(parser=parse_day, metavar="YYYY-MM-DD", help="With --checks: this day, not the newest."),
    ] = None,
) -> None:
    """What is in the warehouse, what its border checks found, and which versions are published."""
    from jobs.status import show_checks, show_status

    with people_first():
        if checks or table is not None or day is not None:
            show_checks(warehouse, table, day)
        else:
            show_status(warehouse, place)


def page(
    warehouse: Warehouse = DEFAULT_WAREHOUSE,
    run: Annotated[str | None, typer.Option("--run", help="Name of the run: that of its train set.")] = None,
    date: Annotated[
        datetime.date | None,
        typer.Option("--date", "-d", parser=parse_day, metavar="YYYY-MM-DD", help="Every run of this date instead."),
    ] = None,
    place: Place = "local",
) -> None:
    """Draw the page of a run again, by default of the newest: verdict, figures, drift, lineage, as one HTML file."""
    if run is not None and date is not None:
        raise typer.BadParameter("give either --run or --date")
    from jobs.page.command import draw_pages

    with people_first():
        draw_pages(warehouse, place, run, date)


def conf(place: Place = "local", overrides: Overrides = []) -> None:  # noqa: B006
    """Print the conf in force, checked."""
    from jobs.settings import Settings

    with people_first():
        settings = Settings.load(place, overrides)
        console.print(yaml.safe_dump(json.loads(settings.model_dump_json()), sort_keys=False), end="")


def features(name: Annotated[str | None, typer.Argument(help="Only names that contain this.")] = None) -> None:
    """List the catalog: every feature with its type, meaning and encoding."""
    from features.schema import load_catalog
    from features.spec import canonical

    table = Table("name", "type", "meaning", "encoding", "what it is")
    for feature in load_catalog().features:
        if name is None or name in feature.name:
            meaning, encoding = canonical(feature.op), canonical(feature.encoding)
            table.add_row(feature.name, feature.dtype.value, meaning, encoding, feature.doc)
    console.print(table)


def plan(
    warehouse: Annotated[
        str | None, typer.Option("--warehouse", "-w", help="List what is stale in this warehouse, and why.")
    ] = None,
    place: Place = "local",
    overrides: Overrides = [],  # noqa: B006
    as_json: Annotated[
        bool, typer.Option("--json", help="With --warehouse: the DAGs of its schedule instead, for dags/.")
    ] = False,
) -> None:
    """The stages in order: reads, writes, days. With --warehouse: what is stale there, in the order of a rebuild."""
    if as_json:
        if warehouse is None:
            raise typer.BadParameter("--json is the schedule of a warehouse: give --warehouse")
        from jobs.plan_command import schedule_of

        with people_first():
            print(schedule_of(warehouse, place, overrides).model_dump_json(indent=1))
        return
    if warehouse is not None:
        from jobs.stale import show_plan

        with people_first():
            raise typer.Exit(show_plan(warehouse, place, overrides))
    from pipeline.plan import PLAN

    table = Table("stage", "reads", "writes", "days", "door")
    for stage in PLAN:
        table.add_row(stage.name, "\n".join(stage.reads), "\n".join(stage.writes), stage.span, stage.door)
    console.print(table)


def add_to(app: typer.Typer) -> None:
    """Add `status`, `page`, `conf`, `features` and `plan`."""
    for command in (status, page, conf, features, plan):
        app.command()(command)
