"""What `make bench-train` has measured so far: kept part by part, put together as ratios beside their goals.

    <out>/train/<part> <group>.json     what was seen of one part and group, written when it is through
    <out>/train.json                    all that was measured under the same settings, code and machine
So a bench that was stopped, or is run part by part, ends in the same file.

A ratio is taken round by round, as its arms took turns in each: median and range of the rounds.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

FOLDER = "train"
PEERS = {"deepctr": "DeepCTR-Torch", "fuxictr": "FuxiCTR"}
OURS_COMPILED = ("compiled", "compiled_bf16")
"""Variants of ours whose dense part is compiled; beside "shipped"."""
BYTES = "sparse_bytes_over_stock"
TWIN = "twin_losses_apart"
QUALITY = "quality"
AT_LEAST: Mapping[str, Mapping[str, float]] = {
    "over_peer_as_shipped": {"1e6": 2.0, "1e7": 10.0},
    "over_peer_at_its_best": {"1e6": 1.3, "1e7": 3.5},
    "of_gemm_limit": {"1e5": 0.7, "1e6": 0.7, "1e7": 0.7},
    "flat_in_table": {"1e7": 0.9},
    "two_ranks_over_two_processes": {"1e6": 0.85},
    QUALITY: {"": -0.001},
}
AT_MOST: Mapping[str, Mapping[str, float]] = {BYTES: {"full": 0.5, "float16": 0.25}, TWIN: {"": 1e-9}}
GOALS_ARE_OF = ("deepfm", 1.05)
"""Model and s of the goals; others are measured beside it."""
SAMPLES_ON_GPU, OVER_PEER_ON_GPU, BATCH_ON_GPU = 10e6, 10.0, 8192
NOT_ON_GPU = "not measured on GPU"
Rates = Mapping[str, Mapping[str, Any]]
"""Name of an arm → `step_teams.Rates.summary`."""


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A figure of the issue.

    Attributes:
        of: model, s and rows it is of. rows: "1e6", or "" where it is of no table. median, low, high: of the rounds.
    """

    name: str
    of: str
    rows: str
    median: float
    low: float
    high: float
    goal: float | None

    @property
    def is_met(self) -> bool | None:
        """None without a goal."""
        if self.goal is None:
            return None
        return self.median <= self.goal if self.name in AT_MOST else self.median >= self.goal

    def summary(self) -> dict[str, Any]:
        """For the JSON."""
        beside = {} if self.goal is None else {"goal": self.goal, "met": self.is_met}
        return {"median": self.median, "range": [self.low, self.high], **beside}


def by_name(ratios: Iterable[Ratio]) -> dict[str, dict[str, Any]]:
    """Name → of what → its figures."""
    found: dict[str, dict[str, Any]] = {}
    for ratio in ratios:
        found.setdefault(ratio.name, {})[ratio.of] = ratio.summary()
    return found


def keep(out: Path, part: str, group: str, measured: Mapping[str, Any]) -> None:
    """Keep what was seen of a part and group; `measured` has at least `settings`."""
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{part} {group}.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")


def kept(out: Path, settings: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Part → group → what was kept of it under the same settings."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for file in sorted((out / FOLDER).glob("*.json")):
        part, _, group = file.stem.partition(" ")
        measured = json.loads(file.read_text(encoding="utf-8"))
        if measured["settings"] == json.loads(json.dumps(settings)):
            found.setdefault(part, {})[group] = measured
    return found


def ratios(parts: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[Ratio]:
    """The figures of the issue that were measured."""
    found = [ratio for one in parts.get("steps", {}).values() for ratio in _of_steps(one)]
    for one in parts.get("twin", {}).values():
        found += [_single(TWIN, f"{one['of']} {PEERS[peer]}", apart, one) for peer, apart in one["apart"].items()]
    found += [ratio for one in parts.get("ranks", {}).values() for ratio in _of_ranks(one)]
    for one in parts.get("fit", {}).values():
        found += list(_over_peers("fit_over_fit", one, "fit"))
    for one in parts.get(QUALITY, {}).values():
        lazy = {name: seen for name, seen in one["optimisers"].items() if seen["over_dense_adam"] != 0.0}
        found += [_single(QUALITY, name, seen["over_dense_adam"], {"rows": ""}) for name, seen in lazy.items()]
    return found


def _of_steps(one: Mapping[str, Any]) -> Iterator[Ratio]:
    rows = one["rows"]
    yield from _over_peers("matched", one, "adagrad")
    yield from _over_peers("matched_fused", one, "adagrad", "adagrad_fused")
    yield from _over_peers("lazy_adam_over_peer_at_its_best", one, "lazy_adam", "best")
    for ours in ("shipped", *OURS_COMPILED):
        called = one if ours == "shipped" else {**one, "of": f"{one['of']} {ours}"}
        yield from _over_peers("over_peer_as_shipped", called, ours, "shipped")
        yield from _over_peers("over_peer_at_its_best", called, ours, "best")
        yield from _over("of_gemm_limit", called["of"], one, f"ours {ours} {rows}", f"gemm products {rows}")
    if one.get("flat_from"):
        base = f"ours shipped {one['flat_from']}"
        yield from _over("flat_in_table", f"{one['of']} over {one['flat_from']}", one, f"ours shipped {rows}", base)


def _over_peers(name: str, one: Mapping[str, Any], ours: str, theirs: str = "") -> Iterator[Ratio]:
    rows = one["rows"]
    for peer, called in PEERS.items():
        yield from _over(name, f"{one['of']} {called}", one, f"ours {ours} {rows}", f"{peer} {theirs or ours} {rows}")


def _of_ranks(one: Mapping[str, Any]) -> Iterator[Ratio]:
    yield from _over("two_ranks_over_two_processes", one["of"], one, "two ranks", "two processes")
    share = one["exchange"]["row_bytes"] / one["stock"]["bytes"]
    yield _ratio(BYTES, one["of"], [share], one, of_goal=one["values"])


def _over(name: str, of: str, one: Mapping[str, Any], above: str, below: str) -> Iterator[Ratio]:
    """Nothing where one of the arms did not run."""
    arms: Rates = one["arms"]
    if above in arms and below in arms:
        rounds = [a / b for a, b in zip(arms[above]["all"], arms[below]["all"], strict=True)]
        yield _ratio(name, of, rounds, one)


def _single(name: str, of: str, value: float, one: Mapping[str, Any]) -> Ratio:
    return _ratio(name, of, [value], one)


def _ratio(name: str, of: str, rounds: list[float], one: Mapping[str, Any], of_goal: str = "") -> Ratio:
    """`of_goal`: by which a goal is found, the rows if nothing else."""
    rows = one["rows"]
    goals = {**AT_LEAST.get(name, {}), **AT_MOST.get(name, {})}
    has_goal = "model" not in one or (one["model"], one["skew"]) == GOALS_ARE_OF
    goal = goals.get(of_goal or rows, goals.get("")) if has_goal or name == TWIN else None
    median = statistics.median(rounds)
    return Ratio(name=name, of=of, rows=rows, median=median, low=min(rounds), high=max(rounds), goal=goal)


def on_gpu(parts: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str] | str:
    """Samples per second beside the goals of a GPU, a line each; that there was none, without."""
    lines = []
    for one in parts.get("steps", {}).values():
        if one["settings"]["device"] == "cuda":
            ours = one["arms"].get(f"ours shipped {one['rows']}")
            if ours is not None:
                lines.append(f"{one['of']}: {ours['median'] / 1e6:.2f} M samples/s")
    goal = f"goals at batch {BATCH_ON_GPU}: {SAMPLES_ON_GPU / 1e6:g} M samples/s, {OVER_PEER_ON_GPU:g} × DeepCTR-Torch"
    return [*lines, goal] if lines else NOT_ON_GPU


def show(found: Mapping[str, Any], seen: list[Ratio], console: Console) -> None:
    """One screen: rates of all arms, the exchange, then ratios beside their goals."""
    table = Table("part", "of", "arm", "samples/s", "range", "load")
    for part, groups in found["parts"].items():
        for one in groups.values():
            for name, arm in one.get("arms", {}).items():
                low, high = arm["range"]
                load = f"{max(arm['load']):.1f}"
                table.add_row(part, one["of"], name, f"{arm['median']:,.0f}", f"{low:,.0f}–{high:,.0f}", load)
    console.print(table)
    for one in found["parts"].get("ranks", {}).values():
        figures = ", ".join(f"{name.replace('_', ' ')} {value:,.1f}" for name, value in one["exchange"].items())
        console.print(f"{one['of']}, a step of a rank: {figures}; Horovod's own sparse exchange: {one['stock']}")
    table = Table("ratio", "of", "measured", "range", "goal", "")
    for ratio in seen:
        shown = [f"{value:.3g}" for value in (ratio.median, ratio.low, ratio.high)]
        sign = "≤" if ratio.name in AT_MOST else "≥"
        goal = "–" if ratio.goal is None else f"{sign} {ratio.goal:g}"
        verdict = {None: "", True: "met", False: "[bold red]not met[/]"}[ratio.is_met]
        table.add_row(ratio.name, ratio.of, shown[0], f"{shown[1]}–{shown[2]}", goal, verdict)
    console.print(table)
    console.print(f"GPU: {found['gpu']}")
