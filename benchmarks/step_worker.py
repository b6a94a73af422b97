"""An arm of `make bench-train` in a process of its own, in its side's environment: does what it is told over a socket.

`python -m benchmarks.step_worker SOCKET SPEC`. One JSON object per line: {"do": "steps", "count": 10} →
{"seconds": 1.2}; an error goes back as {"error": its traceback}. It ends when the socket is closed.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.step_arms import ArmSpec, Stepper, make

SHOWN_OPERATORS = 25
Answer = dict[str, Any]


class Worker:
    """Answers to requests; an arm may have more of its own (`answers`)."""

    def __init__(self, spec: ArmSpec) -> None:
        self.spec = spec
        self._arm: Stepper | None = None
        self._taken = 0
        self._answers: dict[str, Callable[..., Answer]] = {
            "build": self.build,
            "steps": self.steps,
            "losses": self.losses,
            "profile": self.profile,
            "fit": self.fit,
        }

    def answer(self, request: dict[str, Any]) -> Answer:
        """Do what `request["do"]` says; its other keys are arguments."""
        return self._answers[request.pop("do")](**request)

    def build(self) -> Answer:
        """Make the arm, with its rows."""
        self._arm = make(self.spec)
        self._answers |= getattr(self._arm, "answers", dict)()
        return {}

    def steps(self, count: int) -> Answer:
        """Seconds of `count` steps, together."""
        self._synchronise()
        started = time.perf_counter()
        for _ in range(count):
            self._step()
        self._synchronise()
        return {"seconds": time.perf_counter() - started}

    def losses(self, count: int) -> Answer:
        """The loss of each of `count` steps."""
        return {"losses": [float(self._step()) for _ in range(count)]}

    def profile(self, count: int) -> Answer:
        """Milliseconds per step of the operators that take most, by torch's profiler, their callees' left out."""
        is_gpu, kinds = self.spec.device == "cuda", torch.profiler.ProfilerActivity
        with torch.profiler.profile(activities=[kinds.CPU, kinds.CUDA] if is_gpu else [kinds.CPU]) as seen:
            for _ in range(count):
                self._step()
            self._synchronise()
        spent = {
            one.key: {
                "name": one.key,
                "ms": (one.self_device_time_total if is_gpu else one.self_cpu_time_total) / 1e3 / count,
                "calls": one.count / count,
            }
            for one in seen.key_averages()
        }
        return {"operators": sorted(spent.values(), key=lambda one: -one["ms"])[:SHOWN_OPERATORS]}

    def fit(self, **arguments: Any) -> Answer:
        """Rows per second of the side's own loader and training."""
        module = importlib.import_module(f"benchmarks.step_{self.spec.side}")
        seconds = module.fit(self.spec, **arguments)
        return {"seconds": seconds}

    def _step(self) -> torch.Tensor:
        assert self._arm is not None, "not built"
        loss = self._arm.step(self._taken % self.spec.batches)
        self._taken += 1
        return loss

    def _synchronise(self) -> None:
        if self.spec.device == "cuda":
            torch.cuda.synchronize()


def serve(address: str, spec: ArmSpec, rank: int) -> None:
    """Answer until the socket is closed."""
    if spec.cores:
        os.sched_setaffinity(0, {spec.cores[rank % len(spec.cores)]} if spec.side == "ranks" else set(spec.cores))
    torch.set_num_threads(spec.threads)
    worker = Worker(spec)
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(address)
        with link.makefile("rw", encoding="utf-8") as lines:
            print(json.dumps({"pid": os.getpid(), "rank": rank, "torch": torch.__version__}), file=lines, flush=True)
            for line in lines:
                try:
                    found = worker.answer(json.loads(line))
                except Exception:  # noqa: BLE001 - whatever it is, it is told to whoever asked
                    found = {"error": traceback.format_exc()}
                print(json.dumps(found), file=lines, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], ArmSpec.of(json.loads(sys.argv[2])), int(os.environ.get("HOROVOD_RANK", "0")))
