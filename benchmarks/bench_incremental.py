"""`make bench-incremental`: what incremental retrains lose and cost, day by day; → build/bench/operations.json.

incremental_auc_gap  AUC of full retrains − that of incremental ones, mean over the mornings, judged on a day that
                     neither has seen
incremental_cost     seconds of incremental retrains ÷ those of full ones: train set and training; samples are the
                     same rows for both, are made once, and timed apart
incremental          the range, the interval, every morning, processor seconds and rows, a model never updated, and
                     other settings of the incremental arm that were tried
→ build/bench/incremental.svg

Simulated logs in which interests drift and anchors come every day. Resumable: what an arm did on a morning is kept.
Other settings of the incremental arm are tried under another --name:
  --name replay --incremental-set days.replay_share=0.5
  --name slow --incremental-train optim.dense.learning_rate=0.001
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import psutil
import pyarrow.parquet as pq
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.changing_platform import PlatformConf, prepare, prepared
from benchmarks.daily_arms import Mornings, Way, as_judged, scores_file
from benchmarks.incremental_gap import FULL, INCREMENTAL, NEVER, ArmDay, Kept, Pair, costs, gap_interval, gaps
from benchmarks.incremental_picture import days_picture
from benchmarks.operations import OPERATIONS_FILE, merge_into
from jobs.console import Steps
from jobs.evaluate import settings_of
from jobs.open_run import open_run, session
from pipeline.config import merge
from pipeline.tables import Warehouse
from training.bootstrap import Judged

KEPT_FILE, PICTURE_FILE = "arms.jsonl", "incremental.svg"
COST_SHOWN = ("seconds", "cpu_seconds", "trained_rows")
console = Console(highlight=False)


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="bench_incremental", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--impressions", type=int, default=18_750, help="a day")
    parser.add_argument("--anchors", type=int, default=150, help="before the first day")
    parser.add_argument("--anchor-growth", type=float, default=0.05, help="new ones a day, of those that are there")
    parser.add_argument("--drift", type=float, default=0.05, help="share of tastes that are drawn anew a day")
    parser.add_argument("--mornings", type=int, default=10, help="after the first model")
    parser.add_argument("--first", type=int, help="of these, only so many")
    parser.add_argument("--model", default="deepfm")
    parser.add_argument("--set", nargs="+", action="extend", default=[], help="conf values of all arms")
    parser.add_argument("--name", default=INCREMENTAL, help="of the incremental arm, where it has settings of its own")
    parser.add_argument(
        "--incremental-set", nargs="+", action="extend", default=[], help="conf values of that arm alone"
    )
    parser.add_argument("--incremental-train", nargs="+", action="extend", default=[], help="its training's, KEY=VALUE")
    parser.add_argument("--headline", default=INCREMENTAL, help="name of the arm whose figures are the main ones")
    parser.add_argument("--prepare", action="store_true", help="only write the logs and their samples")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    return parser.parse_args(arguments)


def keys_of(pairs: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE pairs, keys with dots, as nested settings."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, _, text = pair.partition("=")
        nested: Any = yaml.safe_load(text)
        for part in reversed(key.split(".")):
            nested = {part: nested}
        found = merge(found, nested)
    return found


class Chain(Protocol):
    """What makes the models; see `benchmarks.daily_arms.Mornings`."""

    def full(self, way: Way, date: datetime.date) -> ArmDay:
        """A full retrain."""

    def incremental(self, way: Way, date: datetime.date, start: ArmDay) -> ArmDay:
        """An incremental one."""

    def never(self, way: Way, date: datetime.date, first: ArmDay, judged_as: ArmDay) -> ArmDay:
        """None at all."""


def run_arms(
    mornings: Chain, dates: Sequence[datetime.date], full: Way, incremental: Way, model: str, kept: Kept
) -> None:
    """The first model, then every arm on every morning, the two that train in turns; what is kept is not repeated."""
    first = kept.find(FULL, dates[0], model, full.fingerprint) or kept.add(mornings.full(full, dates[0]))
    before = first
    for number, date in enumerate(dates[1:]):
        found: dict[str, ArmDay] = {}
        for way in (full, incremental) if number % 2 else (incremental, full):
            done = kept.find(way.name, date, model, way.fingerprint)
            if done is None:
                make = mornings.full(way, date) if way is full else mornings.incremental(way, date, before)
                done = kept.add(make)
            found[way.name] = done
        before = found[incremental.name]
        if kept.find(NEVER, date, model, full.fingerprint) is None:
            kept.add(mornings.never(full, date, first, found[FULL]))
        told = "  ".join(f"{name} {one.auc:.4f} in {one.seconds:.0f} s" for name, one in found.items())
        console.print(f"{date}: {told}", soft_wrap=True)


def figures_of(runs: Path, kept: Kept, name: str, model: str, fingerprint: str) -> dict[str, Any]:
    """Gap and cost of an arm against the full retrains with this fingerprint."""
    other = kept.newest(name, model)
    full = [same for one in other if (same := kept.find(FULL, one.date, model, fingerprint)) is not None]
    pairs = [Pair(full=_judged(runs, FULL, one), other=_judged(runs, name, one)) for one in other]
    interval = gap_interval(pairs)
    gap = gaps(full, other) | {"interval": interval.model_dump() if interval else None}
    return {"gap": gap} if name == NEVER else {"gap": gap, "cost": costs(full, other)}


def _judged(runs: Path, arm: str, one: ArmDay) -> Judged:
    return as_judged(pq.read_table(scores_file(runs, one.model, arm, one.date)))


def summary(runs: Path, kept: Kept, model: str, fingerprint: str, headline: str) -> dict[str, Any]:
    """What goes into operations.json, of all incremental arms that were tried."""
    names = list(dict.fromkeys(one.arm for one in kept.records if one.arm not in (FULL, NEVER) and one.model == model))
    of_arms = {name: figures_of(runs, kept, name, model, fingerprint) for name in [*names, NEVER]}
    chosen = of_arms[headline]
    return {
        "incremental_auc_gap": chosen["gap"]["mean"],
        "incremental_cost": chosen["cost"]["share"]["seconds"],
        "incremental": {
            "model": model,
            "arms": of_arms,
            "mornings": [one.model_dump(mode="json") for one in kept.records],
        },
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the arms, show them, and write the figures."""
    options = options_of(arguments)
    platform_conf = PlatformConf(
        impressions=options.impressions,
        anchors=options.anchors,
        anchor_growth=options.anchor_growth,
        drift=options.drift,
        mornings=options.mornings,
    )
    root = options.out.resolve() / "incremental" / platform_conf.name
    root.mkdir(parents=True, exist_ok=True)
    made = work(options, platform_conf, root)
    if options.prepare:
        return
    full, _ = ways_of(options, root)
    runs, kept = full.settings.runs_folder(str(root / "warehouse")), Kept(root / KEPT_FILE)
    found = summary(runs, kept, options.model, full.fingerprint, options.headline)
    found["incremental"] |= {
        "platform": vars(platform_conf),
        "conf": options.set,
        "prepared": made,
        "machine": machine(),
    }
    merge_into(options.out / OPERATIONS_FILE, found)
    aucs = aucs_of(kept, options.headline, options.model)
    (options.out / PICTURE_FILE).write_text(days_picture(aucs, full.settings.pipeline.tasks.main), encoding="utf-8")
    show(found, aucs)


def ways_of(options: argparse.Namespace, root: Path) -> tuple[Way, Way]:
    """The two arms that train, with conf as a retrain of this warehouse has it."""
    warehouse = Warehouse(str(root / "warehouse"))
    settings, _ = settings_of(warehouse, "local", options.set)
    own, _ = settings_of(warehouse, "local", [*options.set, *options.incremental_set])
    return (
        Way(name=FULL, settings=settings),
        Way(name=options.name, settings=own, train=keys_of(options.incremental_train)),
    )


def work(options: argparse.Namespace, platform_conf: PlatformConf, root: Path) -> dict[str, float]:
    """Prepare the platform and run the arms; Spark starts only if something is not done yet."""
    full, incremental = ways_of(options, root)
    dates, kept = platform_conf.dates(full.settings.pipeline), Kept(root / KEPT_FILE)
    dates = dates if options.first is None else dates[: options.first + 1]
    made = prepared(root, platform_conf, full.settings.pipeline)
    is_done = all(
        kept.find(arm, date, options.model, fingerprint) is not None
        for arm, fingerprint in (
            (FULL, full.fingerprint),
            (incremental.name, incremental.fingerprint),
            (NEVER, full.fingerprint),
        )
        for date in dates[1:]
    )
    if made is not None and (options.prepare or is_done):
        return made
    warehouse, steps = str(root / "warehouse"), Steps()
    with session("bench-incremental", warehouse, "local", options.set) as spark:
        made = prepare(spark, root, platform_conf, options.set, steps)
        if not options.prepare:
            full, incremental = ways_of(options, root)  # now that the source says its tasks
            mornings = Mornings(open_run(spark, warehouse, "local", options.set), options.model, steps)
            run_arms(mornings, dates, full, incremental, options.model, kept)
    return made


def aucs_of(kept: Kept, headline: str, model: str) -> dict[str, list[float]]:
    """Arm → AUC morning by morning, of the mornings that all three arms have."""
    of_arms = {
        arm: {one.date: one.auc for one in kept.newest(name, model)}
        for arm, name in ((FULL, FULL), (INCREMENTAL, headline), (NEVER, NEVER))
    }
    common = sorted(set.intersection(*(set(of_arm) for of_arm in of_arms.values())))
    return {arm: [of_arm[date] for date in common] for arm, of_arm in of_arms.items()}


def machine() -> dict[str, Any]:
    """What it ran on."""
    return {
        "platform": platform.platform(),
        "cores": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "load_1min": os.getloadavg()[0],
    }


def show(found: dict[str, Any], aucs: dict[str, list[float]]) -> None:
    """Tables of what was found."""
    table = Table("morning", *aucs)
    for number, values in enumerate(zip(*aucs.values(), strict=True), start=1):
        table.add_row(str(number), *(f"{value:.4f}" for value in values))
    console.print(table)
    table = Table("arm", "gap to full retrains", "range", "95 % interval", "cost", "processor", "rows")
    for name, one in found["incremental"]["arms"].items():
        gap, cost = one["gap"], one.get("cost")
        between = gap["interval"]
        spread = "–".join(f"{value:+.4f}" for value in gap["range"])
        interval = f"{between['low']:+.4f}–{between['high']:+.4f}" if between else ""
        of_full = [f"{cost['share'].get(part, math.nan):.2f}" for part in COST_SHOWN] if cost else [""] * 3
        table.add_row(name, f"{gap['mean']:+.4f}", spread, interval, *of_full)
    console.print(table)


if __name__ == "__main__":
    main()
