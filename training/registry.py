"""Which version of a model is in use: MLflow's registry, with the alias `champion` as the one switch.

A version's artefact is a published folder. Every publication and rollback first writes down all that it
needs, and moves the alias last: whoever reads `champion` sees the old version or the new one, never half.
What the versions' tags mean stands in `training.version_history`.
"""

from __future__ import annotations

import getpass
import itertools
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from features.errors import DataError, Problem
from features.paths import require_name
from features.storage import refuse_secrets
from training.mlflow_access import own_folder, quiet_client, without_login
from training.published import verify
from training.verdict import VERDICT_FILE, Verdict, read_verdict
from training.version_history import (
    DIGEST_TAG,
    PROMOTION_TAG,
    ROLLBACK_TAG,
    Move,
    Version,
    history_of,
    move_of,
    source_of,
)

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

CHAMPION = "champion"
EXPERIMENT = "limelight"


class Registry:
    """The models of one MLflow server, or of one SQLite file with a folder of artefacts."""

    def __init__(self, client: MlflowClient, tracking_uri: str, artifacts: str | None) -> None:
        self._client, self._tracking_uri, self._artifacts = client, tracking_uri, artifacts

    @classmethod
    def open(cls, tracking_uri: str, artifacts: str | None = None) -> Registry:
        """Connect.

        Args:
            tracking_uri: "sqlite:////path/mlflow.db", or the URL of a server.
            artifacts: folder (URL) of the artefacts of new experiments; a server decides by itself.

        Raises:
            ConfError: `artifacts` holds a secret, which MLflow would write down.
        """
        if artifacts is not None:
            refuse_secrets(artifacts)
        uri = without_login(tracking_uri)
        return cls(quiet_client(uri), uri, artifacts)

    def publish(
        self,
        name: str,
        folder: Path,
        verdict: Verdict,
        *,
        run_id: str | None = None,
        metrics: Mapping[str, float] | None = None,
        who: str | None = None,
    ) -> str:
        """Upload a published folder, register it, and make it champion, in this order.

        A crash in between leaves the old champion; running it again publishes a further version.

        Args:
            name: of the model.
            folder: as `training.export.export_folder` wrote it.
            verdict: must have passed, and be about this model.
            run_id: the MLflow run that trained it; a run of its own is made without one.
            metrics: logged to that run.
            who: for the history; the user of this process by default.

        Returns:
            The version.

        Raises:
            GateStoppedError: if the verdict is not a pass.
            DataError: if the folder is not complete, or the verdict is about another model.
        """
        verdict.require_pass()
        digest = verify(folder).digest()
        if verdict.model != name:
            remedy = "Publish a model with the verdict that was reached about it"
            raise DataError([Problem(what=f"the verdict is about {verdict.model}, not about {name}", remedy=remedy)])
        run = run_id or self._new_run(name)
        source = self._upload(name, run, folder, digest, verdict)
        for key, value in (metrics or {}).items():
            self._client.log_metric(run, key, value)
        why = f"gate passed by rule {verdict.rule} on {verdict.day}"
        version = self._register(name, run, source, digest, who=who or getpass.getuser(), why=why)
        if run_id is None:
            self._client.set_terminated(run)
        self._move_alias(name, version)
        return version

    def _upload(self, name: str, run: str, folder: Path, digest: str, verdict: Verdict) -> str:
        """Put a published folder and its verdict among a run's artefacts; the folder's URI there.

        By content: a second attempt overwrites with the same bytes what a first one left that was cut off, but never
        what a version names: files are not written in one step, and it may be the champion.
        """
        root = self._client.get_run(run).info.artifact_uri
        named = {version.source for version in self._client.search_model_versions(f"name='{name}'")}
        paths = (f"published/{digest[:16]}{f'-{number}' if number else ''}" for number in itertools.count())
        path = next(path for path in paths if f"{root}/{path}" not in named)
        self._client.log_artifacts(run, str(folder), path)
        self._client.log_text(run, verdict.model_dump_json(indent=1), f"{path}.{VERDICT_FILE}")
        return f"{root}/{path}"

    def _register(self, name: str, run: str, source: str, digest: str, *, who: str, why: str) -> str:
        """A new version, which knows what it will take over from."""
        self._require_model(name)
        before = self._champion_version(name)
        previous = str(before.version) if before else None
        promotion = Move(who=who, why=why, when=_now(), previous=previous)
        tags = {DIGEST_TAG: digest, PROMOTION_TAG: promotion.model_dump_json()}
        return str(self._client.create_model_version(name, source=source, run_id=run, tags=tags).version)

    def champion(self, name: str) -> tuple[str, Path] | None:
        """The version in use and a local folder with it, verified; None when nothing was published yet.

        Raises:
            DataError: if the folder is not what was published.
        """
        version = self._champion_version(name)
        return None if version is None else (str(version.version), self.fetch(name, str(version.version)))

    def fetch(self, name: str, version: str, into: Path | None = None) -> Path:
        """The published folder of a version: where it is, when that is local, otherwise a copy below `into`.

        Raises:
            DataError: if it is not what was published.
        """
        from mlflow.artifacts import download_artifacts

        found = self._client.get_model_version(name, version)
        source = source_of(found)
        target = into or own_folder() / require_name(name) / require_name(version)
        local = None
        if "://" in source and not source.startswith("file://"):
            target.mkdir(parents=True, exist_ok=True)
            local = str(target)
        folder = Path(download_artifacts(artifact_uri=source, dst_path=local, tracking_uri=self._tracking_uri))
        if verify(folder).digest() != found.tags.get(DIGEST_TAG):
            remedy = "Roll back, or publish the model again"
            raise DataError([Problem(what=f"version {version} of {name} is not what was published", remedy=remedy)])
        return folder

    def verdict(self, name: str, version: str | None = None) -> Verdict:
        """What the gate said of a version when it was published; of the champion by default.

        Raises:
            DataError: if there is no such version or no champion, or its verdict is gone or cannot be read.
        """
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        found = self._version(name, version)
        source = f"{source_of(found)}.{VERDICT_FILE}"
        with tempfile.TemporaryDirectory(prefix="limelight-verdict-") as folder:
            try:
                file = download_artifacts(artifact_uri=source, dst_path=folder, tracking_uri=self._tracking_uri)
            except (MlflowException, OSError) as error:
                remedy = "It was published without one, or the artefact store has lost it; judge the model again"
                what = f"the verdict of version {found.version} of {name} is not at {source}"
                raise DataError([Problem(what=what, remedy=remedy)]) from error
            return read_verdict(Path(file).read_text(encoding="utf-8"), source)

    def _version(self, name: str, version: str | None) -> ModelVersion:
        """A version by its number, or the champion.

        Raises:
            DataError: if there is none.
        """
        from mlflow.exceptions import MlflowException

        try:
            found = self._champion_version(name) if version is None else self._client.get_model_version(name, version)
        except MlflowException:
            found = None
        if found is None:
            what = f"{name} has no champion" if version is None else f"{name} has no version {version}"
            raise DataError([Problem(what=what, remedy="See `limelight status` for the versions there are")])
        return found

    def rollback(self, name: str, *, why: str, who: str | None = None) -> str:
        """Make the champion's predecessor champion again.

        Returns:
            The version in use now.

        Raises:
            DataError: if there is no champion, or none before it.
        """
        current = self._champion_version(name)
        promotion = move_of(current, PROMOTION_TAG) if current else None
        if current is None or promotion is None or promotion.previous is None:
            found = f"version {current.version} is the first" if current else "it has no champion"
            remedy = "See `limelight status` for the versions there are"
            raise DataError([Problem(what=f"{name} cannot be rolled back: {found}", remedy=remedy)])
        move = Move(who=who or getpass.getuser(), why=why, when=_now(), to=promotion.previous)
        self._client.set_model_version_tag(name, str(current.version), ROLLBACK_TAG, move.model_dump_json())
        self._move_alias(name, promotion.previous)
        return promotion.previous

    def withdraw(self, name: str, *, why: str, who: str | None = None) -> str:
        """Leave a model without a champion: its next candidate passes by the floors alone.

        Returns:
            The version that was in use.

        Raises:
            DataError: if there is no champion.
        """
        current = self._champion_version(name)
        if current is None:
            remedy = "See `limelight status` for the versions there are"
            raise DataError([Problem(what=f"{name} has no champion to withdraw", remedy=remedy)])
        move = Move(who=who or getpass.getuser(), why=why, when=_now())
        self._client.set_model_version_tag(name, str(current.version), ROLLBACK_TAG, move.model_dump_json())
        self._client.delete_registered_model_alias(name, CHAMPION)
        return str(current.version)

    def history(self, name: str) -> list[Version]:
        """All versions, newest first; empty when the model is unknown."""
        champion = self._champion_version(name)
        found = self._client.search_model_versions(f"name='{name}'")
        return history_of(found, str(champion.version) if champion else None)

    def _champion_version(self, name: str) -> ModelVersion | None:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_model_version_by_alias(name, CHAMPION)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    def _move_alias(self, name: str, version: str) -> None:
        self._client.set_registered_model_alias(name, CHAMPION, version)

    def _require_model(self, name: str) -> None:
        """The model's entry in the registry, made when there is none."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _new_run(self, name: str) -> str:
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        experiment_id = (
            experiment.experiment_id
            if experiment
            else self._client.create_experiment(EXPERIMENT, artifact_location=self._artifacts)
        )
        return str(self._client.create_run(experiment_id, run_name=f"publish {name}").info.run_id)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
