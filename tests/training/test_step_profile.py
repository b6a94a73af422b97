"""From a trace to the parts of a step: every moment once, nested and overlapping ranges, kernels by their launch."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.parts import Part
from training.step_profile import OTHER, PARTS, PREFIX, Range, StepProfile, cut_up, mean_step

LENGTH = 20
ranges = st.tuples(st.integers(-5, LENGTH + 5), st.integers(0, 12), st.sampled_from("abcd")).map(
    lambda drawn: Range(drawn[0], drawn[0] + drawn[1], drawn[2])
)


@settings(deadline=None)
@given(st.lists(ranges, max_size=8, unique_by=lambda drawn: (drawn.start, drawn.end)))
def test_every_moment_belongs_to_the_part_that_began_last(parts: list[Range]) -> None:
    naive: Counter[str] = Counter()
    for moment in range(LENGTH):
        covering = [part for part in parts if part.start <= moment < part.end]
        begun = [max(part.start, 0) for part in covering]  # what began before the step began with it
        inner = [part for part, at in zip(covering, begun, strict=True) if at == max(begun)]
        naive[min(inner, key=lambda part: min(part.end, LENGTH)).name if inner else OTHER] += 1
    pieces = cut_up(Range(0, LENGTH, Part.STEP), parts)
    assert [pieces[0].start, *(piece.end for piece in pieces)] == [*(piece.start for piece in pieces), LENGTH]
    found: Counter[str] = Counter()
    for piece in pieces:
        found[piece.name] += int(piece.end - piece.start)
    if not ambiguous(parts):
        assert found == naive


def ambiguous(parts: list[Range]) -> bool:
    """Two parts that are the same moments once they are cut to the step."""
    clipped = [(max(part.start, 0), min(part.end, LENGTH)) for part in parts]
    return len(set(clipped)) < len(clipped)


def host(name: str, start: float, end: float, thread: int = 1) -> dict[str, Any]:
    return {
        "ph": "X", "cat": "user_annotation", "name": name, "ts": start, "dur": end - start, "pid": 7, "tid": thread,
    }  # fmt: skip


def launched(
    number: int, at: float, took: float, *, thread: int = 1, kind: str = "kernel", name: str = "k"
) -> list[dict[str, Any]]:
    """A launch by the host, and what it launched, which runs long after."""
    call = "cuda_driver" if kind == "kernel" else "cuda_runtime"
    names = {"args": {"correlation": number}, "ph": "X"}
    return [
        {"cat": call, "name": "l", "ts": at, "dur": 1, "tid": thread, **names},
        {"cat": kind, "name": name, "ts": at + 5000, "dur": took, "tid": 70, **names},
    ]


def step_from(start: float) -> list[dict[str, Any]]:
    """100 µs: 10 waiting, 20 forward, 30 backward of which 5 exchange on a thread of its own, 15 exchange, 25 other."""
    named = [
        (Part.STEP, 0, 100), (Part.WAITING, 0, 10), (Part.FORWARD, 10, 30), (Part.BACKWARD, 30, 60),
        (Part.EXCHANGE, 40, 45), (Part.EXCHANGE, 60, 75),
    ]  # fmt: skip
    return [host(PREFIX + part, start + a, start + b, 2 if a == 40 else 1) for part, a, b in named]


def trace() -> dict[str, Any]:
    """Two steps, judging between them, and the look at the feed that finds no batch."""
    last = [host(PREFIX + Part.STEP, 9000, 9400), host(PREFIX + Part.WAITING, 9001, 9399)]
    noise = [
        host("ProfilerStep#3", 0, 500),
        {"ph": "M", "name": "process_name", "pid": 7, "args": {}},
        {"ph": "X", "cat": "gpu_user_annotation", "name": PREFIX + Part.FORWARD, "ts": 20, "dur": 60, "tid": 70},
        {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "ts": 12, "dur": 5, "tid": 1, "args": {"External id": 3}},
    ]
    return {"traceEvents": [*last, *noise, *step_from(0), *step_from(1000)]}


def test_host_times_add_up_to_the_step() -> None:
    mean = mean_step(trace(), on_gpu=False)
    assert mean is not None
    assert mean.steps == 2
    assert mean.ms == pytest.approx(0.1)
    wanted = {"waiting": 10, "forward": 20, "backward": 25, "exchange": 20, OTHER: 25}
    assert tuple(mean.parts) == PARTS
    assert {name: part.percent for name, part in mean.parts.items()} == {
        name: pytest.approx(wanted.get(name, 0)) for name in PARTS
    }
    assert sum(part.ms for part in mean.parts.values()) == pytest.approx(mean.ms)
    assert {part.device_ms for part in mean.parts.values()} == {None}


def test_a_kernel_belongs_to_the_part_that_launched_it() -> None:
    seen = trace()
    seen["traceEvents"] += [
        *launched(1, 12, 40.0),  # forward
        *launched(2, 1035, 60.0, thread=9),  # backward, from autograd's thread
        *launched(3, 42, 2.0),  # exchange within backward
        *launched(4, 1080, 6.0, kind="gpu_memcpy"),  # other
        *launched(8, 1032, 8.0, thread=5, kind="gpu_memcpy", name="Memcpy HtoD (Pinned -> Device)"),  # a batch, ahead
        *launched(5, 500, 99.0),  # between the steps
        *launched(6, -50, 99.0)[1:],  # before the trace
        *launched(7, 9100, 99.0),  # in what is no step
    ]
    mean = mean_step(seen, on_gpu=True)
    assert mean is not None
    assert {name: part.device_ms for name, part in mean.parts.items() if part.device_ms} == {
        "copy": pytest.approx(0.004), "forward": pytest.approx(0.020), "backward": pytest.approx(0.030),
        "exchange": pytest.approx(0.001),
        OTHER: pytest.approx(0.003),
    }  # fmt: skip


def test_no_whole_step_is_no_profile() -> None:
    assert mean_step({"traceEvents": [host(PREFIX + Part.STEP, 0, 9)]}, on_gpu=False) is None


def profile_of(*, on_gpu: bool) -> StepProfile:
    mean = mean_step(trace(), on_gpu=on_gpu)
    assert mean is not None
    return StepProfile(
        model="deepfm", device="Card" if on_gpu else "CPU", threads=2, rank=0, world_size=2, batch_size=4096,
        first_step=33, steps=mean.steps, step_ms=mean.ms, step_ms_before=0.08, parts=mean.parts,
    )  # fmt: skip


def test_the_table_says_over_what_it_is_and_fits_a_screen() -> None:
    lines = profile_of(on_gpu=False).text().splitlines()
    assert lines[0] == "deepfm: mean of 2 steps (33 to 34) under the profiler,"
    assert lines[1] == "rank 0 of 2 on CPU, 2 threads, 4,096 rows per step"
    assert len(lines) < 24
    assert max(map(len, lines)) <= 90
    table = {line[:24].strip(): line[24:].split() for line in lines}
    assert table["backward"] == ["0.025", "25.0"]
    assert table["step"] == ["0.100", "100.0"]
    assert "before the profiler was on: 0.080 ms per step, 51,200,000 rows/s" in lines
    assert lines[-2].startswith("exchange: where the step stood still for it; gradients that travelled")
    assert "ms on GPU" not in "".join(lines)


def test_with_a_gpu_there_is_a_column_for_it_and_json_holds_everything() -> None:
    profile = profile_of(on_gpu=True)
    lines = profile.text().splitlines()
    assert lines[3].split()[-3:] == ["ms", "on", "GPU"]
    assert next(line for line in lines if line.startswith("step")).split() == ["step", "0.100", "100.0", "0.000"]
    assert StepProfile.model_validate_json(profile.model_dump_json()) == profile
