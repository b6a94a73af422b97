"""What `make bench-features` has measured so far: kept part by part, put together as ratios beside their bounds.

    <out>/parts/<part> <group>.json     arms of one part and group, written when they are through
    <out>/features.json                 all that were measured under the same sizes, code and properties of Spark
So a bench that was stopped, or is run part by part, ends in the same file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

TARGETS = {
    "incremental_over_full_n30": 0.10,
    "n90_over_n7": 1.2,
    "bytes_read_over_minimum": 1.1,
    "full_over_duckdb_full": 3.0,
    "incremental_over_duckdb_full": 0.5,
    "skew_slowdown": 1.5,
}
Arms = Mapping[str, Mapping[str, Any]]
"""Name of an arm → `Timed.summary`."""
Ratios = dict[str, dict[str, float]]


def keep(out: Path, part: str, group: str, measured: Mapping[str, Any]) -> None:
    """Keep what was measured of a part and group; `measured` has at least `size` and `arms`."""
    folder = out / "parts"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{part} {group}.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")


def kept(out: Path, size: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Part → group → what was kept of it under the same conditions: sizes, code, properties of Spark."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted((out / "parts").glob("*.json")):
        part, _, group = file.stem.partition(" ")
        measured = json.loads(file.read_text(encoding="utf-8"))
        if measured["size"] == dict(size):
            found.setdefault(part, {})[group] = measured
    return found


def ratios(parts: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Ratios:
    """The figures of the issue by family, by group of families, and over all that were measured."""
    found: Ratios = {name: {} for name in TARGETS}
    totals: dict[str, float] = {}
    for group, measured in parts.get("families", {}).items():
        for name, seconds in _families(group, measured, found).items():
            totals[name] = totals.get(name, 0.0) + seconds
    if totals:
        _compare("all", totals, found)
    for group, measured in parts.get("windows", {}).items():
        found["n90_over_n7"][group] = _over(measured["arms"], f"{group} n90", f"{group} n7")
    for measured in parts.get("skew", {}).values():
        for name in (name.removesuffix(" skewed") for name in measured["arms"] if name.endswith(" skewed")):
            found["skew_slowdown"][name] = _over(measured["arms"], f"{name} skewed", f"{name} even")
    for measured in parts.get("events", {}).values():
        found["room_state"] = {
            "twice the rows": _over(measured["arms"], "room state all", "room state half"),
            "four times the minutes": _over(measured["arms"], "room state many minutes", "room state all"),
        }
    return found


def _families(group: str, measured: Mapping[str, Any], found: Ratios) -> dict[str, float]:
    """Seconds of the group by path: in bulk, by the peer, carried, and what is done every few days per day."""
    arms = measured["arms"]
    members = [name.removesuffix(" full") for name in arms if name.endswith(" full")]
    for family in members:
        found["full_over_duckdb_full"][family] = _over(arms, f"{family} full", f"{family} duckdb")
    work = arms[f"{group} incremental"]["work"]
    found["bytes_read_over_minimum"][group] = work["file_bytes"] / measured["least_bytes"]
    found.setdefault("input_metrics_over_minimum", {})[group] = work["input_bytes"] / measured["least_bytes"]
    seconds = {path: sum(arms[f"{family} {path}"]["median_s"] for family in members) for path in ("full", "duckdb")}
    seconds["incremental"] = arms[f"{group} incremental"]["median_s"]
    seconds["besides"] = sum(arm["median_s"] / arm["every_days"] for arm in arms.values() if "every_days" in arm)
    _compare(group, seconds, found)
    return seconds


def _compare(of: str, seconds: Mapping[str, float], found: Ratios) -> None:
    found["full_over_duckdb_full"][of] = seconds["full"] / seconds["duckdb"]
    found["incremental_over_full_n30"][of] = seconds["incremental"] / seconds["full"]
    found["incremental_over_duckdb_full"][of] = seconds["incremental"] / seconds["duckdb"]
    both = seconds["incremental"] + seconds["besides"]
    found.setdefault("incremental_and_rewriting_over_full_n30", {})[of] = both / seconds["full"]


def _over(arms: Arms, above: str, below: str) -> float:
    return float(arms[above]["median_s"]) / float(arms[below]["median_s"])


def show(found: Mapping[str, Any], console: Console) -> None:
    """One screen: medians and ranges, then ratios beside their bounds."""
    table = Table("part", "arm", "median s", "range s", "load")
    for part, groups in found["parts"].items():
        for measured in groups.values():
            for name, arm in measured["arms"].items():
                low, high = arm["range_s"]
                spread = f"{low:.2f}–{high:.2f}"
                table.add_row(part, name, f"{arm['median_s']:.2f}", spread, f"{max(arm['load']):.1f}")
    console.print(table)
    table = Table("ratio", "of", "measured", "at most")
    for name, values in found["ratios"].items():
        for family, value in values.items():
            bound = TARGETS.get(name)
            table.add_row(name, family, f"{value:.3f}", "–" if bound is None else f"{bound:g}")
    console.print(table)
