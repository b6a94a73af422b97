"""What `make bench-feed` has measured so far, as ratios of rows per second beside their bounds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.fed_training import FED, RESIDENT
from benchmarks.feed_arms import ARROW, BATCHED, BATCHED_SMALL, BY_ROW, OURS

TARGETS = {
    "of_raw_arrow_to_torch": 0.8,
    "over_batched_dataloader": 20.0,
    "over_petastorm_dataloader": 50.0,
    "fed_over_resident": 0.95,
}
READ, TRAINED = "read", "trained"
PAIRS = {
    "of_raw_arrow_to_torch": (READ, OURS, ARROW),
    "over_batched_dataloader": (READ, OURS, BATCHED),
    "over_batched_dataloader_small_queue": (READ, OURS, BATCHED_SMALL),
    "over_petastorm_dataloader": (READ, OURS, BY_ROW),
    "fed_over_resident": (TRAINED, FED, RESIDENT),
}
"""Ratio → part, and the arms whose rows per second are divided."""
Arms = Mapping[str, Mapping[str, Any]]


def ratios(parts: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Ratio → shape → `median` of the rates over each other, and `range` over the rounds."""
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in PAIRS}
    for name, (part, above, below) in PAIRS.items():
        for shape, measured in parts.get(part, {}).items():
            arms = measured["arms"]
            if above in arms and below in arms:
                found[name][shape] = _over(arms[above], arms[below])
    return found


def _over(above: Mapping[str, Any], below: Mapping[str, Any]) -> dict[str, Any]:
    rounds = [
        (above["rows"] / mine) / (below["rows"] / theirs)
        for mine, theirs in zip(above["all_s"], below["all_s"], strict=True)
    ]
    medians = [arm["rows"] / statistics.median(arm["all_s"]) for arm in (above, below)]
    return {"median": round(medians[0] / medians[1], 4), "range": [round(min(rounds), 4), round(max(rounds), 4)]}


def show(found: Mapping[str, Any], console: Console) -> None:
    """One screen: rows per second of every arm, then ratios beside their bounds."""
    table = Table("part", "shape", "arm", "rows/s", "range", "MB", "load")
    for part, shapes in found["parts"].items():
        for shape, measured in shapes.items():
            for name, arm in measured["arms"].items():
                low, high = arm["range_rows_per_s"]
                peak = f"{arm['peak_mb']:,}" if "peak_mb" in arm else "–"
                rate = f"{arm['rows_per_s']:,}"
                table.add_row(part, shape, name, rate, f"{low:,}–{high:,}", peak, f"{max(arm['load']):.1f}")
    console.print(table)
    table = Table("ratio", "shape", "measured", "range", "at least")
    for name, shapes in found["ratios"].items():
        for shape, value in shapes.items():
            low, high = value["range"]
            goal = f"{TARGETS[name]:g}" if name in TARGETS else "–"
            table.add_row(name, shape, f"{value['median']:.3f}", f"{low:.3f}–{high:.3f}", goal)
    console.print(table)
