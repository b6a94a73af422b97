"""`limelight gc`: what is no longer needed in a warehouse, how large it is, and why the rest is kept."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from features.schema import load_catalog
from jobs.console import console
from jobs.settings import Settings
from pipeline.retention import Need, Retention, Thing, sweep
from pipeline.tables import Warehouse
from training.published import MODEL_FILE
from training.registry import Registry
from training.version_history import Version


def collect(warehouse_url: str, place: str, overrides: Sequence[str], *, apply: bool) -> None:
    """Show what may go; with `apply`, delete it.

    Raises:
        ConfError: on conf that would delete what kept days are made from.
        HeldError: when a live run works on a partition that loses a manifest.
    """
    settings = Settings.load(place, overrides)
    warehouse = Warehouse(warehouse_url)
    conf = settings.pipeline.retention
    registry = Registry.open(*settings.tracking(warehouse.url))
    needs = [need for model in settings.training.models for need in needs_of(registry, model, conf.rollbacks)]
    now = datetime.datetime.now(datetime.UTC)
    things = Retention(warehouse, conf, now=now, longest_window=load_catalog().max_days()).plan(needs)
    console.print(fates_table(things))
    doomed = sum(thing.bytes for thing in things if not thing.kept)
    if not apply:
        console.print(f"nothing was deleted; --apply deletes {size_words(doomed)}")
        return
    deleted = sweep(warehouse, things, holder=f"gc-{now:%Y%m%dT%H%M%S}")
    console.print(f"[green]✓[/] {size_words(deleted)} deleted")


def needs_of(registry: Registry, model: str, rollbacks: int) -> Iterator[Need]:
    """The train sets that a model's champion and its predecessors, as many as conf keeps, were trained on."""
    for place, version in enumerate(line_of(registry.history(model))[: rollbacks + 1]):
        card = json.loads((registry.fetch(model, version.version) / MODEL_FILE).read_text(encoding="utf-8"))
        role = "champion" if place == 0 else f"rollback {place}"
        yield Need(trainset=str(card["trainset"]), why=f"{model} version {version.version}, {role}")


def line_of(versions: Sequence[Version]) -> list[Version]:
    """The champion, its predecessor, that one's predecessor, and so on: where rollbacks lead."""
    by_number = {version.version: version for version in versions}
    line: list[Version] = []
    at = next((version for version in versions if version.state == "champion"), None)
    while at is not None and at not in line:
        line.append(at)
        at = by_number.get(at.promotion.previous or "") if at.promotion else None
    return line


@dataclass(frozen=True, kw_only=True, order=True)
class Row:
    """What things of one table share."""

    table: str
    kept: bool
    what: str
    why: str


def fates_table(things: Sequence[Thing]) -> Table:
    """Things of one table and fate in one row: how many, how large, why."""
    rows: dict[Row, list[Thing]] = {}
    for thing in things:
        rows.setdefault(Row(table=thing.table, kept=thing.kept, what=thing.what, why=thing.why), []).append(thing)
    table = Table("table", "", "what", "number", "bytes", "why")
    for row, its_things in sorted(rows.items()):
        mark = "[green]keep[/]" if row.kept else "[red]delete[/]"
        size = size_words(sum(thing.bytes for thing in its_things))
        table.add_row(row.table, mark, row.what, f"{len(its_things):,}", size, escape(row.why))
    return table


def size_words(size: int) -> str:
    """Bytes as people say them."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:,.1f} {unit}"
    return f"{size} B"
