"""The driver process as the one sees it that starts, orders and kills it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

from tests.chaos.driver import DONE, LOCAL, READY, ROOT, STEP, Order


class DriverFailedError(RuntimeError):
    """It ended by itself, with an error; the end of its log."""


class Driver:
    """A driver process, started and waiting for its order."""

    def __init__(self, scratch: Path, master: str = LOCAL) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        self._log = (scratch / "driver.log").open("w")
        # Left by the parent's own session: with them the driver would take itself for a submitted one.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYSPARK_GATEWAY")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.driver", str(scratch), master],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )

    def carry_out(
        self, order: Order, kill_after: float | None = None, ordered: Callable[[], None] = lambda: None
    ) -> tuple[bool, list[str]]:
        """Give the order, call `ordered`, and kill the driver after some seconds unless it has ended by then.

        Returns:
            Whether it came to its end by itself, and the files of its exclusive creations in order.

        Raises:
            RuntimeError: it did not start; where its log is.
            DriverFailedError: it failed by itself.
        """
        stdin, stdout = _pipe(self.process.stdin), _pipe(self.process.stdout)
        if stdout.readline().strip() != READY:
            raise RuntimeError(f"the driver did not start; see {self._log.name}")
        stdin.write(order.model_dump_json() + "\n")
        stdin.flush()
        ordered()
        try:
            self.process.wait(timeout=kill_after)
        except subprocess.TimeoutExpired:
            self.kill()
        lines = stdout.read().splitlines()
        self.close()
        if self.process.returncode not in (0, -signal.SIGKILL):
            log = Path(self._log.name).read_text(encoding="utf-8", errors="replace")
            raise DriverFailedError(f"the driver failed with {self.process.returncode}: {log.strip()[-300:]}")
        return DONE in lines, [line.split(" ", 2)[2] for line in lines if line.startswith(STEP)]

    def kill(self) -> None:
        """SIGKILL to the driver and its JVM at once."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """Kill it if it lives, and close its pipes."""
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout, self._log):
            _pipe(pipe).close()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
