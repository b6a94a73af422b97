"""Memory of a training: what the system was asked for, and what a step that repeats itself still asks for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training.memory import LARGE_PAGE, row_zeros

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="large pages and mallopt are Linux's")
STEPS = """
import ctypes, resource, torch
from training.memory import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        blocks = [torch.ones(10 * 2**18) for _ in range(5)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
ctypes.CDLL(None).mallopt(-3, 2**17)  # what glibc starts with; by itself it moves, sooner or later
given_back = faults()
assert keep_freed_memory()
faults()  # grows once more
print(given_back, faults())
"""


@pytest.mark.parametrize("shape", [(0, 3), (5, 2), (LARGE_PAGE // 4, 1), (600_001, 17), (300_001,)])
def test_zeros_of_any_shape(shape: tuple[int, ...]) -> None:
    for dtype in (torch.float32, torch.float64):
        zeros = row_zeros(shape, like=torch.empty(0, dtype=dtype))
        assert zeros.shape == shape
        assert zeros.dtype == dtype
        assert zeros.is_contiguous()
        assert not zeros.any()


def test_zeros_can_be_written_and_outlive_their_maker() -> None:
    made = [row_zeros((LARGE_PAGE, 1), like=torch.empty(0)) for _ in range(3)]
    for number, zeros in enumerate(made):
        zeros.fill_(number)
    assert [float(zeros.mean()) for zeros in made] == [0.0, 1.0, 2.0]
    part = made.pop()[5:10]
    assert part.tolist() == [[2.0]] * 5


@linux
def test_the_system_was_asked_for_large_pages() -> None:
    advised = row_zeros((LARGE_PAGE, 4), like=torch.empty(0))
    assert "hg" in _flags_at(advised.data_ptr())
    assert "hg" not in _flags_at(torch.zeros(LARGE_PAGE, 4).data_ptr())


@linux
def test_a_step_that_repeats_itself_asks_for_no_more_pages() -> None:
    run = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    given_back, kept = map(int, run.stdout.split())
    assert given_back > 20 * 1000, "50 MiB a step are 12,800 pages of 4 KiB"
    assert kept < given_back / 20


def _flags_at(address: int) -> list[str]:
    """VmFlags of the mapping that holds an address."""
    inside = False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        name = line.split()[0]
        if not name.endswith(":"):
            start, stop = (int(bound, 16) for bound in name.split("-"))
            inside = start <= address < stop
        elif inside and name == "VmFlags:":
            return line.split()[1:]
    raise AssertionError(f"no mapping holds {address:#x}")
