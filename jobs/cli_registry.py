"""Commands about published models: rollback, withdraw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli_options import DEFAULT_WAREHOUSE, Place, Warehouse
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
    for command in (rollback, withdraw):
        app.command()(command)
