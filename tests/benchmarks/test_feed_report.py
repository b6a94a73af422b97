"""Ratios are of rows per second, also where an arm was given fewer rows; their range is over rounds."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from benchmarks.fed_training import FED, RESIDENT, Epoch, Epochs
from benchmarks.feed_arms import ARROW, BATCHED, BY_ROW, OURS
from benchmarks.feed_passes import Passes
from benchmarks.feed_report import PAIRS, READ, TARGETS, TRAINED, ratios, show


def arm(rows: int, *seconds: float) -> dict[str, Any]:
    loads = [0.5] * len(seconds)
    return Passes(rows=rows, dropped=0, row_ids=0, seconds=list(seconds), loads=loads, peak_mb=100.0).summary()


def trained(*seconds: float) -> dict[str, Any]:
    done = [Epoch(rows=100, seconds=value, waiting=value / 10, loss=1.0) for value in seconds]
    return Epochs(done=done, loads=[0.5] * len(seconds)).summary()


PARTS = {
    READ: {
        "lists": {"arms": {OURS: arm(1000, 2, 1, 4), ARROW: arm(1000, 1, 2, 2), BY_ROW: arm(100, 10, 20, 10)}},
        "wide": {"arms": {OURS: arm(1000, 1), BATCHED: arm(1000, 30)}},
    },
    TRAINED: {"deepfm": {"arms": {FED: trained(10, 11, 12), RESIDENT: trained(10, 10, 11)}}},
}


def test_ratios_are_of_median_rates_and_range_over_rounds() -> None:
    found = ratios(PARTS)
    assert found["of_raw_arrow_to_torch"] == {"lists": {"median": 1.0, "range": [0.5, 2.0]}}
    assert found["over_petastorm_dataloader"]["lists"] == {"median": 50.0, "range": [25.0, 200.0]}
    assert found["over_batched_dataloader"] == {"wide": {"median": 30.0, "range": [30.0, 30.0]}}
    assert found["fed_over_resident"]["deepfm"] == {"median": round(10 / 11, 4), "range": [round(10 / 11, 4), 1.0]}
    assert found.keys() == PAIRS.keys() > TARGETS.keys()


def test_one_screen_shows_every_arm_and_every_bound() -> None:
    console = Console(file=io.StringIO(), width=120)
    show({"parts": PARTS, "ratios": ratios(PARTS)}, console)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    for word in (*TARGETS, OURS, ARROW, BATCHED, BY_ROW, FED, RESIDENT, "0.95", "25.000–200.000"):
        assert word in shown
