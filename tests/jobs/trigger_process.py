"""A trigger in a process of its own, which ends by SIGKILL at an exclusive creation of a file that is named."""

from __future__ import annotations

import datetime
import multiprocessing
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Literal

from features import storage
from features.errors import HeldError
from jobs.champions import Champions, Published, read_published
from jobs.settings import Settings
from jobs.trigger import Trigger
from pipeline.tables import Warehouse
from tests.jobs.trigger_world import MODEL

RETRAINS_FILE, CREATED_FILE = "retrains.log", "created.log"
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.jobs.trigger_process"])


class OneChampion(Champions):
    """Of a folder, without a registry: asking one costs more than all the rest of a round."""

    def __init__(self, folder: str) -> None:
        self._published = read_published(MODEL, "1", "digest", Path(folder))

    def of(self, models: Iterable[str]) -> dict[str, Published | None]:
        return dict.fromkeys(models, self._published)


@dataclass(frozen=True, kw_only=True)
class Order:
    """A round, and where it dies: before or after its n-th exclusive creation, counted from 1; None lives.

    `in_retrain` dies in the retrain, once that has left its mark.
    """

    warehouse: str
    folder: str
    overrides: tuple[str, ...]
    date: datetime.date
    step: int | None = None
    moment: Literal["before", "after"] = "before"
    in_retrain: bool = False


def run(order: Order) -> None:
    """One round; its retrain leaves one line."""
    root = Path(order.warehouse)

    def retrain(action: str, date: datetime.date, resume: bool) -> int:
        with (root / RETRAINS_FILE).open("a") as log:
            log.write(f"{action} {date}\n")
        if order.in_retrain:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    _die_at(order)
    settings = Settings.load("local", order.overrides)
    Trigger(Warehouse(order.warehouse), settings, OneChampion(order.folder), retrain, tell=lambda _: None).round(
        order.date
    )


def started(order: Order, barrier: Barrier | None = None) -> ForkServerProcess:
    """The round in a process; with a barrier it begins when the others are there, and ends with 6 when it is held."""
    process = _CONTEXT.Process(target=_entry, args=(order, barrier))
    process.start()
    return process


def new_barrier(parties: int) -> Barrier:
    """For processes of this kind."""
    return _CONTEXT.Barrier(parties)


def _entry(order: Order, barrier: Barrier | None) -> None:
    if barrier is not None:
        barrier.wait()
    try:
        run(order)
    except HeldError as held:
        os._exit(int(held.exit_code))


def _die_at(order: Order) -> None:
    link, count = os.link, 0

    def counted(source: str, target: str) -> None:
        nonlocal count
        count += 1
        with (Path(order.warehouse) / CREATED_FILE).open("a") as log:
            log.write(f"{Path(target).relative_to(order.warehouse)}\n")
        if count == order.step and order.moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        link(source, target)
        if count == order.step:
            os.kill(os.getpid(), signal.SIGKILL)

    storage.os.link = counted  # type: ignore[attr-defined]
