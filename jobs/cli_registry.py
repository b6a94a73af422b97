"""Commands about published models: rollback, withdraw, score."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli_options import DEFAULT_WAREHOUSE, Place, Warehouse, parse_day
from jobs.console import console, people_first

if TYPE_CHECKING:
    from training.registry import Registry

ModelName = Annotated[str, typer.Argument(help="Name of the model in the registry.")]
Why = Annotated[str, typer.Option(help="For the history.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def rollback(
    model: ModelName, why: Why, warehouse: Warehouse = DEFAULT_WAREHOUSE, place: Place = "local", yes: Yes = False
) -> None:
    """Make the champion's predecessor champion again."""
    with people_first():
        registry = _registry_to_change(
            model, f"Make the predecessor of {model}'s champion champion again?", warehouse, place, yes=yes
        )
        console.print(f"[green]✓[/] {model}: version {registry.rollback(model, why=why)} is champion")


def withdraw(
    model: ModelName, why: Why, warehouse: Warehouse = DEFAULT_WAREHOUSE, place: Place = "local", yes: Yes = False
) -> None:
    """Leave a model without a champion: its next candidate passes by the floors alone."""
    with people_first():
        registry = _registry_to_change(model, f"Leave {model} without a champion?", warehouse, place, yes=yes)
        version = registry.withdraw(model, why=why)
        console.print(f"[green]✓[/] {model}: version {version} is withdrawn; there is no champion")


def score(
    rows: Annotated[
        str | None, typer.Argument(help="Raw features: a .parquet file, a folder of them, or .jsonl; path or URL.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File of the scores: .parquet or .jsonl, with the rows' ids.")
    ] = None,
    folder: Annotated[str | None, typer.Option(help="A published folder; path or URL.")] = None,
    model: Annotated[str | None, typer.Option(help="Instead: the champion of this name in the registry.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="No rows: verify the folder, and the scores of its examples.")
    ] = False,
    day: Annotated[
        datetime.date | None,
        typer.Option(parser=parse_day, metavar="YYYY-MM-DD", help="Whose vocabulary counts; each row's dt by default."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Rows in memory at once.")] = 8192,
    requests: Annotated[
        str | None, typer.Option(help="Instead of rows: user_id, room_id, ts; joined with the serving tables.")
    ] = None,
    serving: Annotated[
        str | None, typer.Option(help="--requests: warehouse with the serving tables; --warehouse by default.")
    ] = None,
    date: Annotated[
        datetime.date | None,
        typer.Option(
            "--date", "-d", parser=parse_day, metavar="YYYY-MM-DD", help="--requests: the tables' day; newest."
        ),
    ] = None,
    max_age_days: Annotated[
        int, typer.Option(min=0, help="--requests: how many days after the tables' day a request may be.")
    ] = 0,
    warehouse: Warehouse = DEFAULT_WAREHOUSE,
    place: Place = "local",
) -> None:
    """Score raw features, or (user, room, time), with a published model, or check it; without torch or Spark."""
    given = (rows is not None) + (requests is not None) + check
    if given != 1 or check != (out is None):
        raise typer.BadParameter("give either --check, or --out and one of rows and --requests")
    if requests is None and (serving is not None or date is not None or max_age_days):
        raise typer.BadParameter("--serving, --date and --max-age-days are about --requests")
    from jobs.score import Chosen
    from jobs.score import check as check_folder
    from jobs.score import score as score_rows

    with people_first():
        chosen = Chosen(folder=folder, model=model, warehouse=warehouse, place=place)
        if out is None:
            check_folder(chosen)
        elif rows is not None:
            score_rows(rows, out, chosen, day=day, rows_at_once=batch)
        elif requests is not None:
            from jobs.score_requests import Served, score_requests

            served = Served(warehouse=serving or warehouse, date=date, max_age_days=max_age_days)
            score_requests(requests, out, chosen, served, day=day, rows_at_once=batch)


def _registry_to_change(model: str, question: str, warehouse: str, place: str, *, yes: bool) -> Registry:
    """The registry, once the user has seen the model's versions and agreed; `yes` does not ask."""
    from jobs.settings import Settings
    from jobs.status import version_table
    from training.registry import Registry

    registry = Registry.open(*Settings.load(place).tracking(warehouse))
    if not yes:
        console.print(version_table(registry, [model]))
        typer.confirm(question, abort=True)
    return registry


def add_to(app: typer.Typer) -> None:
    """Give an application these commands."""
    for command in (rollback, withdraw, score):
        app.command()(command)
