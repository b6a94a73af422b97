"""MLflow out of reach while a training is tracked and published: connections refused, no answer, a locked database.

Each begins at a random message to the server, or at a random file of the training. Afterwards MLflow is there again.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.chaos.mlflow_server import Line, mlflow_server
from tests.chaos.outcome import Found
from tests.chaos.training_process import Order, started
from tests.chaos.trainings import Trainings, Undisturbed, ended, shortened, told, wait_for_file, with_log
from training.mlflow_access import quiet_client

# MLflow's own variables: its seven tries take four minutes.
IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "3",
}


class Mlflow:
    """MLflow cannot be reached, from a random request on; then it can."""

    def __init__(self, trainings: Trainings, scratch: Path) -> None:
        self._trainings, self._on_database = trainings, trainings.published
        self._running = ExitStack()
        self._line = Line(self._running.enter_context(mlflow_server(scratch / "mlflow server")))
        self._forget()
        trainings.copy()
        code = ended(started(self._order()))
        if code != 0:
            self.close()
            raise RuntimeError(f"the training on an MLflow server ended with {code}: {told(self._order())}")
        self._chunks = self._line.chunks
        self._undisturbed = Undisturbed(events=[], end=trainings.look(self._order()).contents)

    def trial(self, rng: random.Random) -> Found | None:
        way = rng.choice(("refused", "refused", "silent", "locked"))
        return self._locked(rng) if way == "locked" else self._cut(rng, refuses=way == "refused")

    def _cut(self, rng: random.Random, *, refuses: bool) -> Found | None:
        own = self._trainings
        self._forget()
        own.copy()
        chunk = rng.randint(1, self._chunks)
        self._line.cut_at(chunk, refuses=refuses)
        code = ended(started(self._order()))
        self._line.mend()
        if code == 0:
            return None
        found = Found(
            point=f"{'refused' if refuses else 'silent'} from message {chunk} of {self._chunks}",
            said=f"exit code {code}: {told(self._order(), 200)}",
        )
        found.lost += own.look(self._order()).partial
        return own.made_good(found, self._order(), self._undisturbed)

    def _locked(self, rng: random.Random) -> Found | None:
        own = self._trainings
        own.copy()
        number = rng.randint(1, len(self._on_database.events))
        order = with_log(own.order())
        process = started(order)
        wait_for_file(process, order, number)
        with _locked(own.place / "mlflow" / "mlflow.db"):
            code = ended(process)
        if code == 0:
            return None
        point = f"database locked after {shortened(self._on_database.events[number - 1])}"
        found = Found(point=point, said=f"exit code {code}: {told(own.order(), 200)}")
        found.lost += own.look(own.order()).partial
        return own.made_good(found, own.order(), self._on_database)

    def _order(self) -> Order:
        return self._trainings.order(registry=self._line.url, artifacts=None, environment=IMPATIENT)

    def _forget(self) -> None:
        """The server's memory of the trial before."""
        client = quiet_client(self._line.url)
        for model in client.search_registered_models():
            client.delete_registered_model(model.name)

    def close(self) -> None:
        """End the server."""
        self._line.close()
        self._running.close()


@contextmanager
def _locked(database: Path) -> Iterator[None]:
    """Nobody else may read or write it."""
    connection = sqlite3.connect(database, timeout=30, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()
