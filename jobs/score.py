"""`limelight score`: raw features in, scores of a published model out."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from features.errors import ConfError, NotReadyError, Problem
from jobs.console import console, errors
from jobs.settings import Settings
from training.raw_rows import Rows, open_rows
from training.registry import Registry
from training.scorer import MAX_EXAMPLE_DIFFERENCE, Scorer
from training.scoring import FileScorer


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Which model scores: a published folder (path or URL), or the champion of a name in a warehouse's registry."""

    folder: str | None
    model: str | None
    warehouse: str
    place: str

    def url(self) -> str:
        """The folder.

        Raises:
            ConfError: both or neither were named.
            NotReadyError: the name has no champion.
        """
        if (self.folder is None) == (self.model is None):
            raise ConfError("name the model by --folder (a published folder) or by --model (of the registry)")
        if self.folder is not None:
            return self.folder
        assert self.model is not None
        champion = Registry.open(*Settings.load(self.place).tracking(self.warehouse)).champion(self.model)
        if champion is None:
            remedy = "See `limelight status` for the versions there are"
            raise NotReadyError([Problem(table="registry", what=f"{self.model} has no champion", remedy=remedy)])
        errors.print(f"[dim]version {champion[0]} of {self.model}[/]")
        return str(champion[1])


def check(chosen: Chosen) -> None:
    """Verify a published folder: every file is as it was published, and its examples get the scores they must get."""
    scorer = Scorer.open(chosen.url(), examples=True)
    files = len(scorer.contents.files)
    console.print(
        f"[green]✓[/] {scorer.contents.model}: {files} files as published; the examples get their scores of "
        f"{', '.join(scorer.tasks)} within {MAX_EXAMPLE_DIFFERENCE:g}"
    )


def score(rows: str, out: Path, chosen: Chosen, *, day: datetime.date | None, rows_at_once: int) -> None:
    """Score a file, or a folder of Parquet files, after the model's examples."""
    scorer = Scorer.open(chosen.url(), examples=True)
    score_rows(open_rows(rows), out, scorer, day=day, rows_at_once=rows_at_once)


def score_rows(source: Rows, out: Path, scorer: Scorer, *, day: datetime.date | None, rows_at_once: int) -> None:
    """Score rows, and say how far it is."""
    columns = (TextColumn("score"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task("score", total=source.total)
        done = FileScorer(
            scorer=scorer,
            rows_at_once=rows_at_once,
            day=day,
            told=note,
            advance=lambda count: bar.advance(task, count),
        ).score(source, out)
    console.print(f"[green]✓[/] {done:,} rows scored by {scorer.contents.model} → {out}", soft_wrap=True)


def note(line: str) -> None:
    """Something that people should know, and no error."""
    errors.print(f"[yellow]note[/] {escape(line)}", soft_wrap=True)
