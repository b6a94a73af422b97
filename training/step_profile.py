"""Where the wall time of a training's steps goes, read from a trace of torch's profiler.

1. ranges `limelight.<part>` of the host (training.parts) → per step, [from, to) pieces of its wall time, each of the
   innermost part that covers it, or of `other`: they do not overlap, and add up to the step
2. pieces → ms per part and step
3. with a GPU: kernels and copies → the piece in which the host launched them, found by their correlation id (CUPTI's);
   backward launches from a thread of its own, so that it is the time that counts, not the thread. What comes from
   pinned memory is a batch that the feed's thread sends ahead (training.prefetch): it is always `copy`
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from features.manifest import Frozen
from training.parts import Part

PREFIX = "limelight."
OTHER = "other"
PARTS: tuple[str, ...] = (*(part for part in Part if part is not Part.STEP), OTHER)
LABELS: Mapping[str, str] = {
    Part.WAITING: "waiting for data",
    Part.COPY: "copy",
    Part.FORWARD: "forward",
    Part.BACKWARD: "backward",
    Part.EXCHANGE: "exchange",
    Part.UPDATE: "update",
    Part.DEVICE: "waiting for the device",
    OTHER: "other",
}
_ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
_LAUNCHES = ("cuda_runtime", "cuda_driver")
_BATCH_COPY = "Memcpy HtoD (Pinned"


class PartTime(Frozen):
    """A part of the mean step.

    Attributes:
        ms: of the host.
        percent: of the step's wall time.
        device_ms: of kernels and copies that the host launched in it, those of several streams added up; None without
            a GPU.
    """

    ms: float
    percent: float
    device_ms: float | None = None


class StepProfile(Frozen):
    """The mean step of a profile.

    Attributes:
        model: its name.
        device: what it ran on.
        threads: torch's, of this rank.
        rank, world_size: whose steps these are.
        batch_size: rows of a step over all ranks.
        first_step: number of the first step, counted from 1 over all epochs.
        steps: how many were measured.
        step_ms: wall time of one, under the profiler.
        step_ms_before: of the last steps before the profiler was on; None where there were none.
        parts: by name, in the order of `PARTS`; their ms add up to `step_ms`.
    """

    model: str
    device: str
    threads: int
    rank: int
    world_size: int
    batch_size: int
    first_step: int
    steps: int
    step_ms: float
    step_ms_before: float | None
    parts: Mapping[str, PartTime]

    def text(self) -> str:
        """One screen."""
        last = self.first_step + self.steps - 1
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        lines = [
            f"{self.model}: mean of {self.steps} steps ({self.first_step:,} to {last:,}) under the profiler,",
            f"rank {self.rank} of {self.world_size} on {self.device}, {threads}, {self.batch_size:,} rows per step",
            "",
            *self._table(),
            "",
        ]
        if self.step_ms_before is not None:
            rate = 1000 * self.batch_size / self.step_ms_before
            lines += [f"before the profiler was on: {self.step_ms_before:,.3f} ms per step, {rate:,.0f} rows/s"]
        if self.world_size > 1:
            lines += [
                "exchange: where the step stood still for it; gradients that travelled during other parts",
                "are not in it, as they cost the step no time there",
            ]
        if self._has_device:
            lines += [
                "on GPU: kernels and copies that the host launched in a part; batches are copied ahead, beside",
                "other parts. Streams are added up: work side by side may come to more than the step",
            ]
        return "\n".join(lines) + "\n"

    @property
    def _has_device(self) -> bool:
        return any(part.device_ms is not None for part in self.parts.values())

    def _table(self) -> list[str]:
        on_device = sum(part.device_ms or 0.0 for part in self.parts.values())
        whole = PartTime(ms=self.step_ms, percent=100.0, device_ms=on_device if self._has_device else None)
        heads = f"{'':<24}{'ms per step':>14}{'percent':>10}" + (f"{'ms on GPU':>14}" if self._has_device else "")
        rule = "-" * len(heads)
        return [
            heads,
            rule,
            *(self._line(LABELS[name], part) for name, part in self.parts.items()),
            rule,
            self._line("step", whole),
        ]

    def _line(self, label: str, part: PartTime) -> str:
        device = "" if part.device_ms is None else f"{part.device_ms:>14,.3f}"
        return f"{label:<24}{part.ms:>14,.3f}{part.percent:>10.1f}{device}"


class Range(NamedTuple):
    """A named range of the host, in microseconds."""

    start: float
    end: float
    name: str


class Pieces(NamedTuple):
    """The wall time of the measured steps, cut up: [p] starts and ends in µs, ascending, and the part of each."""

    steps: int
    starts: list[float]
    ends: list[float]
    names: list[str]


class MeanStep(NamedTuple):
    """How many steps were measured, the wall time of one in ms, and the time of each of `PARTS`."""

    steps: int
    ms: float
    parts: dict[str, PartTime]


def mean_step(trace: Mapping[str, Any], *, on_gpu: bool) -> MeanStep | None:
    """The mean step of a trace as torch's profiler exports it; None if no step is whole in it.

    Args:
        on_gpu: whether to look for kernels.
    """
    events = [event for event in trace["traceEvents"] if event.get("ph") == "X"]
    pieces = _pieces(events)
    if not pieces.steps:
        return None
    host = dict.fromkeys(PARTS, 0.0)
    for start, end, name in zip(pieces.starts, pieces.ends, pieces.names, strict=True):
        host[name] += end - start
    device = _device_times(events, pieces) if on_gpu else {}
    wall, per_step = sum(host.values()), 1000.0 * pieces.steps
    parts = {
        name: PartTime(
            ms=spent / per_step,
            percent=100 * spent / wall,
            device_ms=device.get(name, 0.0) / per_step if on_gpu else None,
        )
        for name, spent in host.items()
    }
    return MeanStep(pieces.steps, wall / per_step, parts)


def _pieces(events: Iterable[Mapping[str, Any]]) -> Pieces:
    """The steps that have a forward pass: the last look at a feed finds no batch, and is no step."""
    ranges = sorted(
        Range(event["ts"], event["ts"] + event["dur"], event["name"].removeprefix(PREFIX))
        for event in events
        if event.get("cat") == "user_annotation" and event["name"].startswith(PREFIX)
    )
    parts = [one for one in ranges if one.name != Part.STEP]
    starts = [one.start for one in parts]
    found = Pieces(0, [], [], [])
    steps = 0
    for step in (one for one in ranges if one.name == Part.STEP):
        inside = parts[bisect_right(starts, step.start - 1e-3) : bisect_right(starts, step.end)]
        if any(one.name == Part.FORWARD for one in inside):
            steps += 1
            for piece in cut_up(step, inside):
                found.starts.append(piece.start)
                found.ends.append(piece.end)
                found.names.append(piece.name)
    return found._replace(steps=steps)


def cut_up(step: Range, parts: Sequence[Range]) -> list[Range]:
    """A step without gaps or overlaps, ascending: each moment belongs to the part that began last, or to `other`.

    Args:
        step: the whole.
        parts: what lies in it, in any order; what stands out is cut off.
    """
    reaching_in = [p for p in parts if p.start < step.end and step.start < p.end]
    clipped = [Range(max(p.start, step.start), min(p.end, step.end), p.name) for p in reaching_in]
    cuts = sorted({step.start, step.end, *(p.start for p in clipped), *(p.end for p in clipped)})
    pieces = []
    for start, end in pairwise(cuts):
        covering = [p for p in clipped if p.start <= start and end <= p.end]
        inner = max(covering, key=lambda p: (p.start, -p.end), default=None)
        pieces.append(Range(start, end, OTHER if inner is None else inner.name))
    return pieces


def _device_times(events: Sequence[Mapping[str, Any]], pieces: Pieces) -> dict[str, float]:
    """Part → µs of kernels and copies that were launched in it; what was launched outside of the steps is left out."""
    launched = {
        event["args"]["correlation"]: event["ts"]
        for event in events
        if event.get("cat") in _LAUNCHES and "correlation" in event.get("args", {})
    }
    spent: dict[str, float] = {}
    for event in events:
        if event.get("cat") not in _ON_DEVICE:
            continue
        at = launched.get(event.get("args", {}).get("correlation"))
        place = -1 if at is None else bisect_right(pieces.starts, at) - 1
        if at is not None and place >= 0 and at < pieces.ends[place]:
            name = Part.COPY if event["name"].startswith(_BATCH_COPY) else pieces.names[place]
            spent[name] = spent.get(name, 0.0) + event["dur"]
    return spent
