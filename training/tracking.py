"""One training as an MLflow run: parameters, curves, artefacts. Only rank 0 has one; without a URI no one has.

A database (sqlite:////path/mlflow.db) and a folder are enough; the URL of a server works alike. A run that is
resumed goes on under the same id.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from features.redaction import has_secret, redacted
from features.storage import refuse_secrets
from training.config import TrackingConf
from training.mlflow_access import quiet_client

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

MAX_PARAM = 500  # characters: the shortest limit among MLflow's stores
URI_VARIABLE = "MLFLOW_TRACKING_URI"


class Tracking:
    """A run, or nothing at all: every call of an absent run does nothing."""

    def __init__(self, client: MlflowClient | None, run_id: str | None) -> None:
        self._client, self.run_id = client, run_id

    @classmethod
    def absent(cls) -> Tracking:
        """No tracking."""
        return cls(None, None)

    @classmethod
    def open(cls, conf: TrackingConf, run_name: str, run_id: str | None = None) -> Tracking:
        """Start a run, or take one up again by its id.

        Raises:
            ConfError: `artifacts` holds a secret, which MLflow would write down.
        """
        if conf.uri is None:
            return cls.absent()
        client = quiet_client(_with_secret(conf.uri))
        if run_id is None:
            run_id = str(client.create_run(_experiment(client, conf), run_name=run_name).info.run_id)
        else:
            client.update_run(run_id, status="RUNNING")
        return cls(client, run_id)

    def params(self, conf: Mapping[str, Any]) -> None:
        """Settings, flattened: {"optim": {"dense": {"kind": …}}} is logged as optim.dense.kind."""
        if self._client is None or self.run_id is None:
            return
        for name, value in flattened(conf):
            self._client.log_param(self.run_id, name, redacted(str(value))[:MAX_PARAM])

    def epoch(self, record: Mapping[str, Any]) -> None:
        """The numbers of an epoch's record: train_loss.<task>, valid.<task>.<metric>, rows_per_second, …"""
        if self._client is None or self.run_id is None:
            return
        for name, value in flattened(record):
            if isinstance(value, int | float) and name != "epoch":
                self._client.log_metric(self.run_id, name, float(value), step=int(record["epoch"]))

    def end(self, artefacts: Mapping[str, Any], status: str) -> None:
        """Keep JSON documents by file name, and close the run; `status` is MLflow's: FINISHED, FAILED or KILLED."""
        if self._client is None or self.run_id is None:
            return
        for name, document in artefacts.items():
            self._client.log_text(self.run_id, json.dumps(document, indent=1), name)
        self._client.set_terminated(self.run_id, status=status)


def hand_over(conf: TrackingConf) -> None:
    """Leave a URI that has a secret to the processes that this one starts: the conf file that they read is without."""
    if conf.uri is not None and has_secret(conf.uri):
        os.environ[URI_VARIABLE] = conf.uri


def _with_secret(uri: str) -> str:
    """The URI as it was handed over; itself where none was, or another one."""
    given = os.environ.get(URI_VARIABLE, "")
    return given if redacted(given) == uri else uri


def _experiment(client: MlflowClient, conf: TrackingConf) -> str:
    found = client.get_experiment_by_name(conf.experiment)
    if found is not None:
        return str(found.experiment_id)
    artifacts = refuse_secrets(conf.artifacts) if conf.artifacts is not None else None
    return str(client.create_experiment(conf.experiment, artifact_location=artifacts))


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings, named by the keys that lead to them."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
