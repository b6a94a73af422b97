"""`--profile`: a bounded window of a training's steps under torch's profiler, on rank 0.

Below its folder:

    trace.json.gz   Chrome's format, for ui.perfetto.dev: every operation, and ranges `limelight.<part>` of each step
    profile.json    training.step_profile.StepProfile
    profile.txt     the same on one screen

The window: some steps are skipped, for the first ones allocate, compile and fill the feed; some more are run with the
profiler on, for its own first steps are slow; then steps are measured. It lies in one epoch, so that no judging is in
it. What follows is not touched.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, record_function
from torch.profiler import profile as torch_profile
from torch.profiler import schedule as torch_schedule

from training.loop import STOP_CHECK_EVERY, Loop
from training.parts import Part
from training.step_profile import PREFIX, StepProfile, mean_step
from training.storage import Folder

TRACE_FILE, PROFILE_FILE, TEXT_FILE = "trace.json.gz", "profile.json", "profile.txt"
FEWEST_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class Window:
    """Numbers of steps; whole rounds of the loop's stop check by default, where a GPU's queue is waited for."""

    skipped: int = 3 * STOP_CHECK_EVERY
    warming_up: int = STOP_CHECK_EVERY
    measured: int = 4 * STOP_CHECK_EVERY

    @property
    def steps(self) -> int:
        """All of them."""
        return self.skipped + self.warming_up + self.measured

    def within(self, steps: int) -> Window | None:
        """As much of the window, in proportion, as an epoch with `steps` steps left has room for; None below three."""
        if steps >= self.steps:
            return self
        if steps < FEWEST_STEPS:
            return None
        skipped = min(max(1, steps * self.skipped // self.steps), steps - 2)
        warming_up = min(max(1, steps * self.warming_up // self.steps), steps - skipped - 1)
        return Window(skipped=skipped, warming_up=warming_up, measured=steps - skipped - warming_up)


@dataclass(frozen=True, kw_only=True)
class ProfileRequest:
    """Where to write a profile, and of which steps."""

    url: str
    window: Window = Window()

    @property
    def folder(self) -> Folder:
        """Where it is written."""
        return Folder(self.url)

    def clear(self) -> None:
        """Remove an earlier profile."""
        for name in (TRACE_FILE, PROFILE_FILE, TEXT_FILE):
            self.folder.delete(name)


@contextmanager
def profiled(request: ProfileRequest, loop: Loop, say: Callable[[str], None]) -> Iterator[None]:
    """Profile the loop that is run inside; `say` is told which steps, and where the profile is."""
    request.clear()
    left = loop.steps_left
    window = request.window.within(left)
    if window is None:
        say(
            f"no profile: {left} step{'' if left == 1 else 's'} left in the epoch, and the smallest profile takes "
            f"{FEWEST_STEPS}; a smaller batch_size gives more"
        )
        yield
        return
    first = loop.progress.steps + window.skipped + window.warming_up + 1
    say(f"profile: steps {first:,} to {first + window.measured - 1:,} will be measured")
    if window.steps < request.window.steps:
        say(f"profile: a small one, as {left} steps are left in the epoch and a whole one takes {request.window.steps}")
    profiler = _Profiler(request, window, loop, first, say)
    try:
        yield
    finally:
        profiler.close()


class _Profiler:
    """Listens to the parts of a loop's steps from now on, until its window is over or it is closed."""

    def __init__(
        self, request: ProfileRequest, window: Window, loop: Loop, first: int, say: Callable[[str], None]
    ) -> None:
        self._request, self._window, self._loop, self._first, self._say = request, window, loop, first, say
        self._learner, self._clock = loop.learner, loop.clock
        self._unprofiled = self._learner.part
        self._device = self._learner.model.table.weight.device
        self._taken, self._before = 0, deque[float](maxlen=2 * STOP_CHECK_EVERY)
        self._open, self._written = True, False
        gpu = [ProfilerActivity.CUDA] if self._device.type == "cuda" else []
        self._torch = torch_profile(
            activities=[ProfilerActivity.CPU, *gpu],
            schedule=torch_schedule(
                skip_first=window.skipped, wait=0, warmup=window.warming_up, active=window.measured, repeat=1
            ),
            on_trace_ready=self._write,
        )
        self._torch.start()
        self._clock.between = self._step_taken

    def close(self) -> None:
        """Let go of the loop; a window that was begun and not completed is written down as it is."""
        if not self._open:
            return
        self._open = False
        self._clock.between, self._learner.part = _nothing, self._unprofiled
        self._torch.stop()
        if not self._written:
            self._say(
                f"no profile: no step from {self._first:,} on, where measuring begins, is whole in the trace; the "
                "training ended too early, or the trace grew too large"
            )

    def _step_taken(self) -> None:
        self._taken += 1
        if 1 < self._taken <= self._window.skipped:
            self._before.append(self._clock.last_step)
        if self._taken == self._window.skipped:
            self._learner.part = self._marked
        self._torch.step()
        if self._taken == self._window.steps:
            self.close()

    @contextmanager
    def _marked(self, part: Part) -> Iterator[None]:
        with record_function(PREFIX + part), self._unprofiled(part):
            yield

    def _write(self, profiler: torch_profile) -> None:
        """Trace and tables; called by torch when the window is over."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "trace.json")
            profiler.export_chrome_trace(str(path))
            trace = path.read_bytes()
        found = self._profile_of(json.loads(trace))
        if found is None:
            return
        out = self._request.folder
        out.write(TRACE_FILE, gzip.compress(trace, compresslevel=6))
        out.write(PROFILE_FILE, found.model_dump_json(indent=1).encode())
        out.write(TEXT_FILE, found.text().encode())
        self._written = True
        self._say(f"profile: {found.steps} steps measured, trace and table in {out.url}")

    def _profile_of(self, trace: dict[str, Any]) -> StepProfile | None:
        on_gpu = self._device.type == "cuda"
        mean = mean_step(trace, on_gpu=on_gpu)
        if mean is None:
            return None
        world, before = self._learner.exchange.world, self._before
        return StepProfile(
            model=self._loop.conf.model.name,
            device=torch.cuda.get_device_name(self._device) if on_gpu else "CPU",
            threads=torch.get_num_threads(),
            rank=world.rank,
            world_size=world.size,
            batch_size=self._loop.conf.batch_size,
            first_step=self._first,
            steps=mean.steps,
            step_ms=mean.ms,
            step_ms_before=1000 * sum(before) / len(before) if before else None,
            parts=mean.parts,
        )


def _nothing() -> None:
    """What a clock calls between steps that nobody counts."""
