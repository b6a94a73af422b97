"""How MLflow is reached without its password being said, and where copies of its artefacts lie."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from features.errors import DataError, Problem
from features.redaction import redacted

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

NOISY = ("mlflow", "alembic", "sqlalchemy.engine")
USER_VARIABLE, PASSWORD_VARIABLE = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"


def without_login(tracking_uri: str) -> str:
    """A server's URL without user and password; MLflow finds them in its own environment variables from now on.

    MLflow would say the whole URL in its errors. A database's URL stays as it is: only it can hold the password.
    """
    parts = urlsplit(tracking_uri)
    if parts.scheme not in ("http", "https") or parts.username is None:
        return tracking_uri
    os.environ[USER_VARIABLE] = unquote(parts.username)
    os.environ[PASSWORD_VARIABLE] = unquote(parts.password or "")
    return redacted(tracking_uri)


def own_folder() -> Path:
    """Where copies of published folders lie: a folder that only this user may write to.

    Raises:
        DataError: it is somebody else's, or a link.
    """
    folder = Path(tempfile.gettempdir()) / f"limelight-models-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise DataError([Problem(what=f"{folder} is not this user's own folder", remedy="Remove it, or set TMPDIR")])
    return folder


def quiet_client(tracking_uri: str) -> MlflowClient:
    """An MLflow client that sends no telemetry and says warnings only; the URI's login goes by the environment."""
    tracking_uri = without_login(tracking_uri)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    from mlflow.tracking import MlflowClient

    for logger in NOISY:
        logging.getLogger(logger).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
