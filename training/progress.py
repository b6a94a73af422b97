"""A progress bar for people: rank 0's, over the rows of all epochs, with rows per second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from training.config import TrainConf
from training.feed import Feed


class _RowsPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f} rows/s", style="progress.data.speed")


@contextmanager
def progress_bar(feed: Feed, conf: TrainConf, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """A bar over the rows of all epochs, with rows/s; gives the function that moves it on."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _RowsPerSecond())
    with Progress(*columns, TimeRemainingColumn(), disable=not shown) as bar:
        task = bar.add_task(conf.model.name, total=conf.epochs * feed.steps_per_epoch * conf.batch_size)
        yield lambda rows: bar.advance(task, rows)
