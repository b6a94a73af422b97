"""The training that is disturbed: prepared, run undisturbed, copied, looked at, and run again."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from tests.chaos.outcome import Found
from tests.chaos.training_inspection import Looked, differences, look
from tests.chaos.training_process import Order, new_database, output_of, started
from tests.chaos.training_world import write_world

DATABASE = "mlflow"
POLL_S = 0.01
END_S = 300.0  # of any run here; 5 to 15 s on idle cores


@dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """A run that nobody disturbed: the files that it opened, linked or renamed, in order, and what it came to."""

    events: list[str]
    end: dict[str, Any]


class Trainings:
    """The prepared folder, and where trials have their copy of it: always the same path, as files are named by it."""

    def __init__(self, scratch: Path) -> None:
        self.place, self._prepared = scratch / "trial", scratch / "prepared"
        self._published = scratch / "published"
        self.place.mkdir(parents=True)
        write_world(self.place)
        self.place.rename(self._prepared)

    @cached_property
    def trained(self) -> Undisturbed:
        """A training alone. It is run at the trials' place when it is first asked for; so are the other two."""
        self.copy()
        return self._undisturbed(self.training())

    @cached_property
    def published(self) -> Undisturbed:
        """A training and its publication, on a database that the prepared folder has from now on."""
        self.copy()
        new_database(self.order())
        shutil.copytree(self.place / DATABASE, self._prepared / DATABASE)
        run = self._undisturbed(self.order())
        shutil.copytree(self.place, self._published)
        return run

    @cached_property
    def published_again(self) -> Undisturbed:
        """The same command once more."""
        end = self.published.end
        self.copy(published=True)
        again = self._undisturbed(self.order())
        assert not differences(again.end, end)
        return again

    def _undisturbed(self, order: Order) -> Undisturbed:
        logged = with_log(order)
        code = ended(started(logged))
        if code != 0:
            raise RuntimeError(f"the undisturbed run ended with {code}: {told(order)}")
        return Undisturbed(events=files_of(logged), end=self.look(order).contents)

    def copy(self, *, published: bool = False) -> None:
        """The prepared folder at its place, or one in which all was done before."""
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self._published if published else self._prepared, self.place)

    def fill(self) -> None:
        """Likewise, where the place is a mounted disk."""
        shutil.copytree(self._prepared, self.place, dirs_exist_ok=True)

    def order(self, **changes: Any) -> Order:
        """To train with one rank and to publish, on the database in the folder."""
        folder = self.place / DATABASE
        named = {"registry": f"sqlite:///{folder / 'mlflow.db'}", "artifacts": (folder / "artifacts").as_uri()}
        return Order(**({"folder": str(self.place)} | named | changes))

    def training(self, **changes: Any) -> Order:
        """To train alone."""
        return self.order(**({"registry": None, "artifacts": None} | changes))

    def look(self, order: Order, *, damaged_checkpoints: bool = False) -> Looked:
        """At what an order has left."""
        return look(order.folder, order.registry, order.artifacts, damaged_checkpoints=damaged_checkpoints)

    def made_good(self, found: Found, order: Order, undisturbed: Undisturbed) -> Found:
        """Run an order again, to its end, and compare."""
        code = ended(started(order))
        if code != 0:
            found.lost.append(f"the rerun ended with {code}: {told(order)}")
            return found
        seen = self.look(order)
        found.lost += [f"after the rerun: {what}" for what in seen.partial]
        found.diverged += differences(seen.contents, undisturbed.end)
        return found


def ended(process: ForkServerProcess, seconds: float = END_S) -> int | None:
    """Its exit code; None when it did not end and was killed."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    return process.exitcode


def told(order: Order, characters: int = 600) -> str:
    """The end of what a forked process said."""
    return output_of(order).read_text(encoding="utf-8", errors="replace")[-characters:].strip()


def wait_for_file(process: ForkServerProcess, order: Order, number: int) -> None:
    """Until a process that was given a log has opened, linked or renamed its n-th file, or has ended."""
    while process.is_alive() and len(files_of(order)) < number:
        process.join(POLL_S)


def files_of(order: Order) -> list[str]:
    """What is in its log by now, whole lines."""
    assert order.log is not None
    log = Path(order.log)
    return log.read_text(encoding="utf-8").split("\n")[:-1] if log.exists() else []


def with_log(order: Order) -> Order:
    """The order, with an empty log of its files beside its folder."""
    log = Path(f"{order.folder}.events.log")
    log.unlink(missing_ok=True)
    return order.model_copy(update={"log": str(log)})


def shortened(event: str) -> str:
    """Without what is drawn anew in every run."""
    return re.sub(r"[0-9a-f]{16,}", "…", event)
