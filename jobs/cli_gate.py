"""The command `limelight gate`: what the gate said of a training, or of a published version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from features.errors import ConfError, ExitCode
from jobs.cli_options import DEFAULT_WAREHOUSE, Place, Warehouse
from jobs.console import console, people_first

if TYPE_CHECKING:
    from training.verdict import Verdict


def gate(
    verdict_file: Annotated[
        Path | None, typer.Argument(help="verdict.json of a training, or the folder it is in.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A published model instead: the verdict on its champion.")] = None,
    version: Annotated[str | None, typer.Option(help="With --model: on this version.")] = None,
    in_full: Annotated[
        bool, typer.Option("--explain", help="Every task, every segment, every rule with figure and limit.")
    ] = False,
    warehouse: Warehouse = DEFAULT_WAREHOUSE,
    place: Place = "local",
) -> None:
    """Show a verdict: figures, intervals and reasons. Exits non-zero when it stopped the model."""
    if (verdict_file is None) == (model is None) or (version is not None and model is None):
        raise typer.BadParameter("name either a verdict.json or its folder, or --model and, if you like, --version")
    from training.verdict_table import explain, explain_in_full

    with people_first():
        if model is not None:
            verdict = _published(model, version, warehouse, place)
        else:
            assert verdict_file is not None
            verdict = _of_training(verdict_file)
        console.print(explain_in_full(verdict) if in_full else explain(verdict))
        raise typer.Exit(int(ExitCode.OK if verdict.passed else ExitCode.GATE_STOPPED))


def _of_training(place: Path) -> Verdict:
    from training.verdict import VERDICT_FILE, read_verdict

    path = place / VERDICT_FILE if place.is_dir() else place
    if not path.exists():
        raise ConfError(f"there is no verdict at {path}; look below <warehouse>/runs/<train set>/<model>")
    return read_verdict(path.read_text(encoding="utf-8"), str(path))


def _published(model: str, version: str | None, warehouse: str, place: str) -> Verdict:
    from jobs.settings import Settings
    from training.registry import Registry

    return Registry.open(*Settings.load(place).tracking(warehouse)).verdict(model, version)


def add_to(app: typer.Typer) -> None:
    """Give an application this command."""
    app.command()(gate)
