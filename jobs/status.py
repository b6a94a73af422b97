"""`limelight status`: days of every table, train sets, versions of every model."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from rich.table import Table

from features.errors import ConfError
from features.storage import list_folders
from jobs.console import console
from jobs.page.files import INDEX_FILE, written_pages
from jobs.settings import Settings
from jobs.status_checks import columns_table, findings_table, shown_manifests
from pipeline.stages.names import TRAINSETS
from pipeline.tables import Warehouse
from training.registry import Registry


def show_status(warehouse_url: str, place: str) -> None:
    """Print the warehouse's tables and the registry's versions."""
    warehouse = Warehouse(warehouse_url)
    console.print(raw_table(warehouse))
    console.print(derived_table(warehouse))
    console.print(findings_table([*shown_manifests(warehouse)]))
    settings = Settings.load(place)
    registry = Registry.open(*settings.tracking(warehouse.url))
    console.print(version_table(registry, settings.training.models))
    console.print(pages_line(warehouse, settings), markup=False, soft_wrap=True)


def pages_line(warehouse: Warehouse, settings: Settings) -> str:
    """Where the pages of the runs are; `limelight page` where there are none."""
    try:
        root = settings.runs_folder(warehouse.url)
    except ConfError:
        return "pages of runs: the warehouse is not local, and conf training.runs names no folder"
    runs = len(written_pages(root))
    if not runs:
        return "pages of runs: none; a retrain draws one at its end, `limelight page` draws it again"
    return f"pages of {runs} run{'s' if runs > 1 else ''}: {(root / INDEX_FILE).as_uri()}"


def show_checks(warehouse_url: str, table: str | None, day: datetime.date | None) -> None:
    """Print every figure of the border checks: of the newest partition of each table, unless one is named."""
    for manifest in shown_manifests(Warehouse(warehouse_url), table, day):
        console.print(columns_table(manifest))
        for found in manifest.checks.findings if manifest.checks is not None else ():
            console.print(f"  {found.column or manifest.table}: {found.what}", markup=False, soft_wrap=True)


def raw_table(warehouse: Warehouse) -> Table:
    """Days of the raw tables, as their folders say."""
    table = Table("raw table", "days", "first", "last", title=warehouse.url)
    for name in list_folders(f"{warehouse.url}/raw"):
        days = [folder for folder in list_folders(f"{warehouse.url}/raw/{name}") if folder.startswith("dt=")]
        if days:
            first, last = min(days).removeprefix("dt="), max(days).removeprefix("dt=")
            table.add_row(name, str(len(days)), first, last)
    return table


def derived_table(warehouse: Warehouse) -> Table:
    """Partitions of the derived tables, with rows, generation and digest of the newest."""
    table = Table("table", "partitions", "first", "last", "rows of last", "generation", "digest", "counted", "made at")
    for name in warehouse.tables():
        partitions = warehouse.partitions(name)
        newest = warehouse.manifest(name, max(partitions))
        if newest is None:
            continue
        first, last = (part.partition("=")[2] for part in (min(partitions), max(partitions)))
        counted = ", ".join(f"{key} {value:,}" for key, value in newest.counts.items() if value)
        made = newest.created_at.isoformat(sep=" ", timespec="seconds")
        table.add_row(
            name, str(len(partitions)), first, last, f"{newest.rows:,}", str(newest.generation), newest.digest[:16],
            counted if name != TRAINSETS else counted.replace("_rows", ""), made,
        )  # fmt: skip
    return table


def version_table(registry: Registry, models: Iterable[str]) -> Table:
    """Versions of some models, newest first: state, who made it champion, why and when."""
    table = Table("model", "version", "state", "who", "why", "when", "folder")
    for model in models:
        for version in registry.history(model):
            move = version.promotion
            who, why, when = (move.who, move.why, move.when) if move else ("", "", "")
            table.add_row(model, version.version, version.state, who, why, when, version.uri)
    return table
