"""A progress bar for people: rank 0's, over the rows of all epochs, with rows per second."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from training.config import TrainConf
from training.feed import Feed

log = logging.getLogger(__name__)


class _RowsPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f} rows/s", style="progress.data.speed")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a training tells people.

    Attributes:
        advance: so many rows further.
        say: one line, which stays above the bar.
    """

    advance: Callable[[int], None]
    say: Callable[[str], None]


@contextmanager
def progress_bar(feed: Feed, conf: TrainConf, *, shown: bool) -> Iterator[Shown]:
    """A bar over the rows of all epochs, with rows/s; lines go to the log where it is not shown."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _RowsPerSecond())
    with Progress(*columns, TimeRemainingColumn(), disable=not shown) as bar:
        task = bar.add_task(conf.model.name, total=conf.epochs * feed.steps_per_epoch * conf.batch_size)
        yield Shown(
            advance=lambda rows: bar.advance(task, rows),
            say=(lambda text: bar.console.print(escape(text), soft_wrap=True)) if shown else log.info,
        )
