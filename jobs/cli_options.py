"""Options that several commands of `limelight` have, and what they say of themselves."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import typer

Warehouse = Annotated[str, typer.Option("--warehouse", "-w", help="URL or folder of the warehouse.")]
Place = Annotated[str, typer.Option(help="Which overlay of conf/base.yaml: local or cluster.")]
Overrides = Annotated[list[str], typer.Option("--set", help="One conf value, e.g. --set days.train=14.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with trainings that were cut off.")]
Force = Annotated[bool, typer.Option("--force", help="Compute also what is up to date.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for summary.json and report.html.")]
DEFAULT_WAREHOUSE = "build/warehouse"


def parse_day(text: str) -> datetime.date:
    """YYYY-MM-DD, or a message that says so."""
    try:
        return datetime.date.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a day; write YYYY-MM-DD") from error


Day = Annotated[datetime.date, typer.Option("--date", "-d", parser=parse_day, metavar="YYYY-MM-DD")]
From = Annotated[datetime.date | None, typer.Option("--from", parser=parse_day, metavar="YYYY-MM-DD")]
To = Annotated[datetime.date | None, typer.Option("--to", parser=parse_day, metavar="YYYY-MM-DD")]
