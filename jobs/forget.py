"""`limelight forget`: where a user is, which models learned from it, and, when asked, out with it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from rich.table import Table

from jobs.console import console
from jobs.open_run import Run, open_run, session
from pipeline.erasure import Eraser, Findings
from pipeline.stages.names import TRAINSETS
from pipeline.tables import Warehouse
from pipeline.user_files import rows_of_user
from training.published import MODEL_FILE
from training.registry import Registry


def forget_user(warehouse: str, user: int, place: str, overrides: Sequence[str], *, apply: bool) -> None:
    """Show where a user is; with `apply`, take it out of everything derived.

    Raises:
        HeldError: when a live run works in the warehouse.
    """
    with session("forget", warehouse, place, overrides) as spark:
        run = open_run(spark, warehouse, place, overrides)
        eraser = Eraser(run.context, user)
        found = eraser.find()
        console.print(places_table(found))
        console.print(models_table(run, found))
        if not apply:
            console.print("nothing was changed; --apply takes the user out")
            return
        made = eraser.erase(found)
        console.print(f"[green]✓[/] user {user} is out: {len(made)} partitions have a new generation")
    if found.raw:
        console.print(
            f"[yellow]{len(found.raw)} raw partitions still hold the user:[/] they are yours to change; "
            "whatever is computed again from them brings the user back"
        )
    if found.trainsets:
        console.print("train the next models in full (`limelight daily`): what a warm start would need is gone")


def places_table(found: Findings) -> Table:
    """Every table that holds the user: partitions, rows, what becomes of it."""
    table = Table("where", "partitions", "rows", "first", "last", "what becomes of it", title=f"user {found.user}")
    for name in dict.fromkeys(manifest.table for manifest in found.touched):
        partitions = sorted(m.partition.removeprefix("dt=") for m in found.touched if m.table == name)
        rows = sum(held.rows or 0 for held in found.current if held.table == name)
        fate = "a new generation without the user"
        table.add_row(name, str(len(partitions)), f"{rows:,}", partitions[0], partitions[-1], fate)
    if found.unnamed:
        rows = sum(held.rows or 0 for held in found.unnamed)
        fate = f"{len(found.unnamed)} superseded or left-over files are deleted"
        table.add_row("older generations", "", f"{rows:,}", "", "", fate)
    for name in found.trainsets:
        table.add_row(
            f"{TRAINSETS}/name={name}", "1", "", "", "", "deleted whole: rows, vocabularies and booster are one"
        )
    if found.predictions:
        table.add_row("runs", "", "", "", "", f"{len(found.predictions)} files of predictions are deleted")
    for name in dict.fromkeys(partition.split("/")[0] for partition in found.raw):
        days = sorted(part.split("/")[1].removeprefix("dt=") for part in found.raw if part.split("/")[0] == name)
        rows = sum(count for part, count in found.raw.items() if part.split("/")[0] == name)
        table.add_row(f"raw/{name}", str(len(days)), f"{rows:,}", days[0], days[-1], "[yellow]yours to change[/]")
    return table


def models_table(run: Run, found: Findings) -> Table:
    """Versions that were trained on rows of the user, or whose train set is gone, so that nobody can tell."""
    table = Table("model", "version", "state", "trained on rows of the user")
    registry = Registry.open(*run.settings.tracking(run.context.warehouse.url))
    for model in run.settings.training.models:
        for version in registry.history(model):
            why = learned_from(registry.fetch(model, version.version), found, trainsets_of(run.context.warehouse))
            if why is not None:
                table.add_row(model, version.version, version.state, why)
    return table


def trainsets_of(warehouse: Warehouse) -> set[str]:
    """Names of the train sets that are there."""
    return {partition.removeprefix("name=") for partition in warehouse.partitions(TRAINSETS)}


def learned_from(folder: Path, found: Findings, trainsets: Collection[str]) -> str | None:
    """Why a published folder must be taken for one that learned from the user; None when it did not."""
    name = str(json.loads((folder / MODEL_FILE).read_text(encoding="utf-8"))["trainset"])
    reasons = list(_reasons(folder, name, found))
    if not reasons and name not in trainsets:
        return f"not checkable: its train set {name} is gone, and its vocabulary does not have the user"
    return "; ".join(reasons) or None


def _reasons(folder: Path, name: str, found: Findings) -> Iterator[str]:
    if name in found.trainsets:
        yield f"its train set {name} holds the user"
    vocabulary = folder / "vocabularies" / "user.parquet"
    if vocabulary.exists() and rows_of_user(str(vocabulary), "key", found.user):
        yield "its published vocabulary has the user"
