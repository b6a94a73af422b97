"""How set-up runs a command: output into one log, one line per step with its seconds, one line per failure."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_NETWORK = re.compile(
    r"Temporary failure in name resolution|Name or service not known|NewConnectionError|ConnectTimeout|ReadTimeout"
    r"|NameResolutionError|ConnectionError|Connection refused|Connection reset|ProxyError|SSLError"
    r"|Network is unreachable"
    r"|Could not find a version that satisfies|No matching distribution found|HTTP error \d|IncompleteRead"
)
_DISK = re.compile(r"No space left on device|Errno 28|Disk quota exceeded")
_HASH = re.compile(r"DO NOT MATCH THE HASHES")
_TAIL_CHARACTERS = 20_000


class SetupError(Exception):
    """Set-up cannot go on; the message is one line (or one per lack) naming what is missing and the remedy."""


def say(message: str) -> None:
    """One line of progress; flushed, so that it shows while the step runs."""
    print(f"setup: {message}", flush=True)


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Announces a step, and says how long it took once it has ended well."""
    say(f"{name} ...")
    started = time.monotonic()
    yield
    say(f"{name}: {time.monotonic() - started:.1f} s")


class Runner:
    """Runs commands with their output in a log file."""

    def __init__(self, log: Path) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("", encoding="utf-8")

    def run(
        self, command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        """Runs one command to its end.

        Raises:
            SetupError: it failed; the message tells network, disk and other causes apart and names the log.
        """
        words = [str(word) for word in command]
        with self.log.open("ab") as log:
            log.write(f"\n$ {' '.join(words)}\n".encode())
            log.flush()
            start = log.tell()
            code = subprocess.call(words, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=cwd)
        if code:
            raise SetupError(explain_failure(words, code, self._since(start), self.log))

    def _since(self, start: int) -> str:
        with self.log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(start, end - _TAIL_CHARACTERS))
            return log.read().decode("utf-8", errors="replace")


def explain_failure(command: Sequence[str], code: int, output: str, log: Path) -> str:
    """One line: what failed, the likely cause, the remedy, the log."""
    resume = "then run the same make target again, it resumes"
    if _DISK.search(output):
        return f"disk: no space left while running pip or the compiler; free some space, {resume}. Log: {log}"
    if _HASH.search(output):
        return (
            "checksum: a downloaded package is not the one that the lock names; "
            f"look at the package index that `pip config list` shows, {resume}. Log: {log}"
        )
    if _NETWORK.search(output):
        return (
            "network: pip got no package from its index; look at the connection, the proxy and `pip config list`, "
            f"{resume}. Log: {log}"
        )
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    told = next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "no output")
    return f"`{' '.join(command)[:120]}` ended with status {code}: {told[:200]}. Log: {log}"


def fail(error: SetupError) -> int:
    """Prints each line of the error on stderr and gives the exit status."""
    for line in str(error).splitlines():
        print(f"setup: {line}", file=sys.stderr)
    return 1
