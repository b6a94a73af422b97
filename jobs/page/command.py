"""`limelight page`: draws the page of a run again from committed facts; a retrain draws its own at its end."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

from rich.markup import escape

from features.errors import LimelightError, NotReadyError, Problem
from features.storage import write_whole
from jobs.console import console, errors
from jobs.evaluate import settings_of
from jobs.page.compose import KINDS, compose
from jobs.page.facts import RunFacts
from jobs.page.files import INDEX_FILE, page_of, written_pages
from jobs.page.gather import History, RunFolders, gather, open_registry
from jobs.page.model import State
from jobs.page.render import Listed, render, render_index
from jobs.settings import Settings
from jobs.summary import SUMMARY_FILE, Summary
from pipeline.tables import Warehouse


def draw_pages(warehouse_url: str, place: str, run: str | None, date: datetime.date | None) -> None:
    """Draw the page of a run, of every run of a date, or of the newest run.

    Raises:
        NotReadyError: when there is no such run.
    """
    warehouse = Warehouse(warehouse_url)
    settings, _ = settings_of(warehouse, place, ())
    history = open_registry(settings, warehouse)
    for name in chosen_runs(warehouse, settings, run, date):
        for path in draw_page(warehouse, settings, history, name):
            console.print(f"→ {path}", soft_wrap=True)


def chosen_runs(warehouse: Warehouse, settings: Settings, run: str | None, date: datetime.date | None) -> list[str]:
    """Names of the runs that were asked for, oldest first.

    Raises:
        NotReadyError: when there is none.
    """
    folders = RunFolders(settings.runs_folder(warehouse.url), warehouse.manifest)
    if run is not None:
        return [folders.require(run)]
    runs = sorted((folders.read(name) for name in folders.names()), key=lambda found: found.order)
    chosen = [found.name for found in runs if found.date == date] if date is not None else [r.name for r in runs[-1:]]
    if not chosen:
        what = f"there is no run of {date}" if date is not None else "there is no run yet"
        remedy = "`limelight daily` makes one"
        raise NotReadyError([Problem(table="runs", what=f"{what} in {folders.root}", remedy=remedy)])
    return chosen


def draw_page(warehouse: Warehouse, settings: Settings, history: History, run: str) -> tuple[Path, Path]:
    """Write the page of a run, and the index of all pages."""
    root = settings.runs_folder(warehouse.url)
    page = write_whole(page_of(root, run), render(compose(gather(warehouse, settings, history, run))))
    folders = RunFolders(root, warehouse.manifest)
    runs = sorted((folders.read(name) for name in written_pages(root)), key=lambda found: found.order, reverse=True)
    return page, write_whole(root / INDEX_FILE, render_index([_listed(found) for found in runs]))


def _listed(run: RunFacts) -> Listed:
    states: list[tuple[str, State]] = [
        (model, "passed" if verdict.passed else "stopped") for model, verdict in run.verdicts.items()
    ]
    title = f"{KINDS[run.kind]} of {run.date}" if run.date is not None else run.name
    return Listed(run=run.name, title=title, states=states)


def keep_and_draw(warehouse: Warehouse, settings: Settings, history: History, summary: Summary, run: str) -> list[Path]:
    """At the end of a retrain: its summary into its run's folder, and its page; see `draw_or_warn`."""

    def draw() -> Path:
        write_whole(settings.runs_folder(warehouse.url) / run / SUMMARY_FILE, summary.text)
        return draw_page(warehouse, settings, history, run)[0]

    return _or_warn(draw, warehouse, run)


def draw_or_warn(warehouse: Warehouse, settings: Settings, run: str) -> list[Path]:
    """The page of a run that a schedule took step by step: its path.

    A run that went well is not lost over its page: whatever goes wrong here is told as a warning.
    """
    return _or_warn(lambda: draw_page(warehouse, settings, open_registry(settings, warehouse), run)[0], warehouse, run)


def _or_warn(draw: Callable[[], Path], warehouse: Warehouse, run: str) -> list[Path]:
    try:
        return [draw()]
    except Exception as error:  # noqa: BLE001
        name = "" if isinstance(error, LimelightError) else f"{type(error).__name__}: "
        what = f"the page of {run} was not drawn: {name}{error}"
        again = f"limelight page -w {warehouse.url} --run {run}"
        errors.print(f"[yellow]warning[/] {escape(what)}; draw it with: {escape(again)}", soft_wrap=True)
        return []
