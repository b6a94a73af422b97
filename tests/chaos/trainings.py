"""The training that is disturbed: prepared, run undisturbed, copied, looked at, and run again."""

from __future__ import annotations

import re
import shutil
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from tests.chaos.outcome import Found
from tests.chaos.training_inspection import Looked, differences, look
from tests.chaos.training_process import Order, new_database, output_of, started
from tests.chaos.training_world import write_world

POLL_S = 0.01
END_S = 300.0  # of any run here; 5 to 15 s on idle cores


class Trainings:
    """The prepared folder, where trials have their copy of it, and the one-rank run that nobody disturbs.

    Attributes:
        place: always the same path: train set and database name files by it.
        events, events_again, training_events: files that an undisturbed run opened, linked or renamed, in order: of a
            training and its publication; of the same command run once more; of a training alone.
        seconds: that the first took.
        end, training_end: what training and publication came to, and a training alone.
    """

    def __init__(self, scratch: Path) -> None:
        self.place, self._prepared = scratch / "trial", scratch / "prepared"
        self._published = scratch / "published"
        self.place.mkdir(parents=True)
        write_world(self.place)
        self._database = new_database(self.place / "mlflow")
        self.place.rename(self._prepared)
        self.copy()
        self.events, self.seconds = self._undisturbed(self.order(log=str(scratch / "events.log")))
        self.end = self.look(self.order()).contents
        shutil.copytree(self.place, self._published)
        self.events_again, _ = self._undisturbed(self.order(log=str(scratch / "events again.log")))
        self.copy()
        self.training_events, _ = self._undisturbed(self.training(log=str(scratch / "training events.log")))
        self.training_end = self.look(self.training()).contents

    def _undisturbed(self, order: Order) -> tuple[list[str], float]:
        """The files of an order that nobody disturbs, and its seconds."""
        begun = time.monotonic()
        code = ended(started(order))
        if code != 0 or order.log is None:
            raise RuntimeError(f"the undisturbed run ended with {code}: {told(order)}")
        return Path(order.log).read_text(encoding="utf-8").splitlines(), time.monotonic() - begun

    def copy(self, *, published: bool = False) -> None:
        """The prepared folder at its place, or one in which all was done before."""
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self._published if published else self._prepared, self.place)

    def fill(self) -> None:
        """Likewise, where the place is a mounted disk."""
        shutil.copytree(self._prepared, self.place, dirs_exist_ok=True)

    def order(self, **changes: Any) -> Order:
        """To train with one rank and to publish, on the database in the folder."""
        uri, artifacts = self._database
        return Order(**({"folder": str(self.place), "registry": uri, "artifacts": artifacts} | changes))

    def training(self, **changes: Any) -> Order:
        """To train alone."""
        return self.order(**({"registry": None, "artifacts": None} | changes))

    def look(self, order: Order, *, damaged_checkpoints: bool = False) -> Looked:
        """At what an order has left."""
        return look(order.folder, order.registry, order.artifacts, damaged_checkpoints=damaged_checkpoints)

    def made_good(self, found: Found, order: Order, end: dict[str, Any]) -> Found:
        """Run an order again, to its end, and compare."""
        code = ended(started(order))
        if code != 0:
            found.lost.append(f"the rerun ended with {code}: {told(order)}")
            return found
        seen = self.look(order)
        found.lost += [f"after the rerun: {what}" for what in seen.partial]
        found.diverged += differences(seen.contents, end)
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
    assert order.log is not None
    log = Path(order.log)
    while process.is_alive() and not (log.exists() and log.read_bytes().count(b"\n") >= number):
        process.join(POLL_S)


def with_log(order: Order) -> Order:
    """The order, with an empty log of its files beside its folder."""
    log = Path(f"{order.folder}.events.log")
    log.unlink(missing_ok=True)
    return order.model_copy(update={"log": str(log)})


def shortened(event: str) -> str:
    """Without what is drawn anew in every run."""
    return re.sub(r"[0-9a-f]{16,}", "…", event)
