"""Run one function on n real Horovod ranks, and hand back what each rank returned.

    results = run_ranks(_sum_of_ranks, ranks=2, offset=3)

The function lives at the top level of a module, takes JSON-able keyword arguments and returns something
JSON-able. Every rank is a fresh Python started by `horovodrun --gloo` on this host; a rank that raises, or
that waits for another for ever, fails the test with the ranks' output.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SHOWN_OUTPUT = 6000


class LaunchError(AssertionError):
    """A rank failed, or the ranks did not end in time; the message carries their output."""


def run_ranks(function: Callable[..., Any], *, ranks: int, timeout_s: float = 120.0, **arguments: Any) -> list[Any]:
    """`function(**arguments)` on every rank; the results in rank order.

    Raises:
        LaunchError: a rank exits non-zero, or `timeout_s` pass.
    """
    with tempfile.TemporaryDirectory(prefix="limelight-ranks-") as folder:
        target = [function.__module__, function.__qualname__, json.dumps(arguments), folder]
        _horovodrun([sys.executable, "-m", __name__, *target], ranks=ranks, timeout_s=timeout_s)
        return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(ranks)]


def _horovodrun(command: list[str], *, ranks: int, timeout_s: float) -> None:
    horovodrun = Path(sys.executable).with_name("horovodrun")
    # One thread per rank: the ranks share the machine's few cores with each other and with the test run. Gloo's 30 s
    # without a message have passed on a machine that was busy enough; a rank that waits for ever meets `timeout_s`.
    patience = {"HOROVOD_GLOO_TIMEOUT_SECONDS": str(int(timeout_s))}
    environment = os.environ | patience | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [str(horovodrun), "-np", str(ranks), "--gloo", "-H", f"localhost:{ranks}", *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            # Horovod's middlemen see their parent die, and kill the ranks.
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            raise LaunchError(f"{ranks} ranks did not end in {timeout_s} s:\n{output[-SHOWN_OUTPUT:]}") from error
    if process.returncode != 0:
        raise LaunchError(f"{ranks} ranks ended with {process.returncode}:\n{output[-SHOWN_OUTPUT:]}")


def _run_rank(module: str, qualname: str, arguments: str, folder: str) -> None:
    function = getattr(importlib.import_module(module), qualname)
    result = function(**json.loads(arguments))
    rank = os.environ["HOROVOD_RANK"]
    (Path(folder) / f"{rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    _run_rank(*sys.argv[1:])
