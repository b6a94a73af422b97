"""A real Airflow on loopback and SQLite for the demo: starts its parts, asks its REST API, stops what it started."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from features.errors import ResourceError

PARTS = ("api-server", "dag-processor", "scheduler")
START_SECONDS, STOP_SECONDS = 180.0, 30.0


def free_port() -> int:
    """On loopback, free just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass(kw_only=True)
class Airflow:
    """An Airflow whose home, database and logs lie in one folder.

    Attributes:
        executable: `airflow` of an environment of its own.
        dags: folder that it reads.
        variables: for its parts, beside its own settings.
    """

    executable: Path
    home: Path
    dags: Path
    variables: Mapping[str, str]
    port: int = field(default_factory=free_port)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _token: str = ""

    @property
    def url(self) -> str:
        """Of its API server."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """Settings by variables, so that no file of Airflow's has to be edited."""
        settings = {
            "CORE__DAGS_FOLDER": str(self.dags),
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__PARALLELISM": "2",
            "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",  # on loopback, for minutes
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}",
            "API__HOST": "127.0.0.1",
            "API__PORT": str(self.port),
            "API__WORKERS": "1",
            "API__BASE_URL": self.url,
            "API_AUTH__JWT_SECRET": self._secret,
            "DAG_PROCESSOR__REFRESH_INTERVAL": "10",
            "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
            "LOGGING__BASE_LOG_FOLDER": str(self.home / "logs"),
        }
        own = {f"AIRFLOW__{name}": value for name, value in settings.items()}
        return dict(os.environ) | own | {"AIRFLOW_HOME": str(self.home), "NO_PROXY": "127.0.0.1"} | dict(self.variables)

    def __post_init__(self) -> None:
        self._secret = secrets.token_hex(32)
        self.home.mkdir(parents=True, exist_ok=True)

    def run(self, *arguments: str) -> None:
        """One command of Airflow's, to its end.

        Raises:
            ResourceError: when it failed; names its log.
        """
        log = self.home / "commands.log"
        with log.open("ab") as sink:
            command = [str(self.executable), *arguments]
            code = subprocess.run(command, env=self.environment(), stdout=sink, stderr=sink, check=False).returncode
        if code != 0:
            raise ResourceError(f"`airflow {' '.join(arguments)}` ended with exit code {code}: see {log}")

    @contextmanager
    def running(self) -> Iterator[None]:
        """API server, DAG processor and scheduler, until the end; each in a session of its own, to end it whole."""
        try:
            for part in PARTS:
                with (self.home / f"{part}.log").open("wb") as log:
                    started = subprocess.Popen(
                        [str(self.executable), part], env=self.environment(), stdout=log, stderr=log,
                        start_new_session=True,
                    )  # fmt: skip
                self.processes.append(started)
            self._wait_until_it_answers()
            yield
        finally:
            self.stop()

    def stop(self) -> None:
        """End every process that was started here, with those that it started; a task is in a session of its own."""
        ours = [psutil.Process(process.pid) for process in self.processes if process.poll() is None]
        ours += [child for process in ours for child in process.children(recursive=True)]
        for end in (psutil.Process.terminate, psutil.Process.kill):
            for process in ours:
                with contextlib.suppress(psutil.NoSuchProcess):
                    end(process)
            _, ours = psutil.wait_procs(ours, timeout=STOP_SECONDS)
        for process_of_part in self.processes:
            process_of_part.wait(STOP_SECONDS)
        self.processes.clear()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            ended = [part for part, process in zip(PARTS, self.processes, strict=True) if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                what = f"{', '.join(ended)} ended" if ended else f"no answer within {START_SECONDS:.0f} s"
                raise ResourceError(f"Airflow did not start: {what}; its logs are in {self.home}")
            try:
                self._token = str(self.ask("/auth/token")["access_token"])
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(1)

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """GET, or POST where there is a body; the answer's JSON."""
        content = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(self.url + path, data=content, headers=headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            return json.loads(answer.read())

    def trigger(self, dag: str, date: str) -> str:
        """Start a run of a DAG for a morning; its id."""
        body = {"logical_date": None, "conf": {"date": date}}
        return str(self.ask(f"/api/v2/dags/{dag}/dagRuns", body)["dag_run_id"])

    def runs(self) -> list[dict[str, Any]]:
        """All runs of all DAGs, oldest first."""
        found: list[dict[str, Any]] = self.ask("/api/v2/dags/~/dagRuns?limit=100")["dag_runs"]
        return sorted(found, key=lambda run: str(run["queued_at"]))

    def tasks(self, dag: str, run: str) -> list[dict[str, Any]]:
        """Task instances of a run, as they stand."""
        path = f"/api/v2/dags/{dag}/dagRuns/{urllib.parse.quote(run)}/taskInstances?limit=100"
        found: list[dict[str, Any]] = self.ask(path)["task_instances"]
        return found
