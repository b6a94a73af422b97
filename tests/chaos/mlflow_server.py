"""A real MLflow server on loopback, and a line to it that can be cut and mended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOOPBACK = "127.0.0.1"
START_S = 180.0
_CHUNK = 1 << 16
# Otherwise the server brings seven more, for evaluations that nobody asks for here.
_FEW_PROCESSES = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


class Line:
    """A port that leads to another one, until it is cut.

    Args:
        to: the port on loopback that it leads to.
    """

    def __init__(self, to: int) -> None:
        self._to = to
        self._cut_at: int | None = None
        self._refuses = True
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listener = _listening(0)
        self.port: int = self._listener.getsockname()[1]
        self.chunks = 0
        self._silent = threading.Event()
        self._serve()

    @property
    def url(self) -> str:
        """Of the server, by this line."""
        return f"http://{LOOPBACK}:{self.port}"

    def cut_at(self, chunk: int, *, refuses: bool) -> None:
        """Cut before the n-th chunk of bytes that goes to the server, counted from 1.

        Args:
            refuses: connections break and are refused from then on; otherwise they stay open, and nobody answers.
        """
        self._cut_at, self._refuses, self.chunks = chunk, refuses, 0

    def mend(self) -> None:
        """As new: whatever was open is closed, nothing is cut, and the count begins anew."""
        self.close()
        self._cut_at, self.chunks = None, 0
        self._silent.clear()
        self._listener = _listening(self.port)
        self._serve()

    def close(self) -> None:
        """Refuse and break all connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            ends, self._open = self._open, []
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _serve(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection((LOOPBACK, self._to))
            except OSError:
                return
            with self._lock:
                self._open += [near, far]
            threading.Thread(target=self._pump, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK):
                if counted and self._is_cut():
                    return
                if not self._silent.is_set():
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def _is_cut(self) -> bool:
        with self._lock:
            self.chunks += 1
            now = self._cut_at is not None and self.chunks >= self._cut_at
        if now and self._refuses:
            self.close()
        elif now:
            self._silent.set()
        return now


def _listening(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((LOOPBACK, port))
    listener.listen()
    return listener


@contextmanager
def mlflow_server(folder: Path) -> Iterator[int]:
    """`mlflow server` on SQLite and a folder; its port. It ends with the context.

    Raises:
        RuntimeError: it does not answer; where its log is.
    """
    folder.mkdir(parents=True)
    with _listening(0) as free:
        port: int = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = os.environ | _FEW_PROCESSES | {"MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet"}
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + START_S
        while not _answers(port):
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError(f"the MLflow server does not answer; see {folder / 'server.log'}")
            time.sleep(0.2)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
