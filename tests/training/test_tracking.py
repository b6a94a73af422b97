"""MLflow's URI with a secret in it: MLflow is reached with it, and nothing that is written or said has it."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from features.errors import ConfError, DataError
from jobs.launch import launch, training_arguments
from jobs.settings import TrainingSettings
from tests.training.trainset_factory import write_trainset
from training.config import TrainConf
from training.mlflow_access import PASSWORD_VARIABLE, USER_VARIABLE, own_folder, quiet_client
from training.registry import Registry
from training.tracking import URI_VARIABLE, Tracking, hand_over

SECRET = "confidential-7f3a"


@pytest.fixture(autouse=True)
def _no_login(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the code under test leaves in the environment goes with the test."""
    for name in (URI_VARIABLE, USER_VARIABLE, PASSWORD_VARIABLE):
        monkeypatch.setenv(name, "")  # so that monkeypatch restores what there was
        monkeypatch.delenv(name)
    yield
    for name in (URI_VARIABLE, USER_VARIABLE, PASSWORD_VARIABLE):
        os.environ.pop(name, None)


def conf_with(uri: str, artifacts: str | None = None) -> TrainConf:
    values = {"model": {"name": "lr", "task": "enter"}, "batch_size": 64, "epochs": 1, "threads": 1}
    return TrainConf.of(values | {"tracking": {"uri": uri, "artifacts": artifacts}})


def files_with(secret: str, below: Path) -> list[str]:
    found = [path for path in below.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    return [path.relative_to(below).as_posix() for path in found]


def test_a_training_reaches_its_database_and_writes_the_secret_nowhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A rank in a process of its own, and SQLite, which ignores a parameter that it does not know."""
    write_trainset(tmp_path / "trainset", rows=512, valid_rows=64, gate_rows=64)
    uri = f"sqlite:///file:{tmp_path}/mlflow.db?mode=rwc&token={SECRET}&uri=true"
    conf = conf_with(uri, (tmp_path / "artifacts").as_uri())
    arguments = training_arguments(conf, str(tmp_path / "trainset"), str(tmp_path / "run"))
    assert SECRET not in " ".join(arguments) + repr(conf)
    launch(TrainingSettings(launcher="alone"), arguments)
    client = quiet_client(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("limelight")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED", "the rank was handed the whole URI"
    assert run.data.params["tracking.uri"] == uri.replace(SECRET, "***")
    assert files_with("token=***", tmp_path), "the URI is written down"
    assert files_with(SECRET, tmp_path) == []
    said = capfd.readouterr()
    assert SECRET not in said.out + said.err


class _Refusing(BaseHTTPRequestHandler):
    """A tracking server that takes down who asks, and refuses."""

    logins: list[str | None]

    def do_GET(self) -> None:
        self.logins.append(self.headers["Authorization"])
        self.send_response(403)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    _Refusing.logins = []
    server = HTTPServer(("127.0.0.1", 0), _Refusing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_servers_login_is_sent_and_its_refusal_does_not_tell_it(server: HTTPServer) -> None:
    from mlflow.exceptions import MlflowException

    registry = Registry.open(f"http://ann:{SECRET}%21@127.0.0.1:{server.server_port}")
    with pytest.raises(MlflowException) as refused:
        registry.champion("deepfm")
    assert SECRET not in str(refused.value) + repr(vars(registry))
    assert _Refusing.logins == ["Basic " + base64.b64encode(f"ann:{SECRET}!".encode()).decode()]


def test_what_is_handed_over_counts_for_its_own_uri_only(tmp_path: Path) -> None:
    hand_over(conf_with(f"sqlite:///file:{tmp_path}/a.db?token={SECRET}&mode=rwc&uri=true").tracking)
    assert SECRET in os.environ[URI_VARIABLE]
    Tracking.open(conf_with(f"sqlite:///{tmp_path}/b.db").tracking, "run")
    assert sorted(path.name for path in tmp_path.glob("*.db")) == ["b.db"]


def test_a_place_of_artefacts_with_a_secret_is_refused(tmp_path: Path) -> None:
    place = f"s3://KEY:{SECRET}@bucket/x"
    with pytest.raises(ConfError, match="s3://bucket/x was given with a key"):
        Tracking.open(conf_with(f"sqlite:///{tmp_path}/a.db", place).tracking, "run")
    with pytest.raises(ConfError, match="s3://bucket/x was given with a key"):
        Registry.open(f"sqlite:///{tmp_path}/a.db", place)


def test_copies_of_models_lie_in_a_folder_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = own_folder()
    assert folder == own_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="not this user's own folder"):
        own_folder()
