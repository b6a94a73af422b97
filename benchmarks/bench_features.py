"""`make bench-features`: what a day's features cost, carried, in bulk, and in DuckDB; → build/bench/features.json.

Parts, each with arms that are interleaved and repeated in one warm session:
  families   per family of features: one day in bulk by Spark, by DuckDB, and carried where there is a carried path
  windows    the carried day with windows of 7 and of 90 days
  skew       the same volume with a hot anchor and a hot user, against it spread evenly
  events     room state of a day with few and with many room minutes, with half and with all of the day's rows
The arms of a family read the same Parquet and must write equal rows, or the bench stops.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
from pyspark.sql import functions as F
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks import duckdb_features, spark_features
from benchmarks.catalogs import with_longest
from benchmarks.incremental import SequencesDay
from benchmarks.measure import Arm, Timed, interleaved
from benchmarks.raw_days import ACTIVE_SHARE, LATE, RUN_DAYS, ZONE, Size, write_raw_days
from benchmarks.stated import stated
from features.schema import Catalog, load_catalog
from features.spark.room_state import room_state
from features.spec import TILED_ENTITIES
from jobs.spark_session import spark_session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FAMILIES = (*(entity.value for entity in TILED_ENTITIES), "sequences")
PARTS = ("families", "windows", "skew", "events")
CARRIED = {"sequences": SequencesDay}
"""Families with a carried path."""
EVENT_LAG_S = 30
TARGETS = {
    "incremental_over_full_n30": 0.10,
    "n90_over_n7": 1.2,
    "bytes_read_over_minimum": 1.1,
    "full_over_duckdb_full": 3.0,
    "incremental_over_duckdb_full": 0.5,
    "skew_slowdown": 1.5,
}
console = Console(highlight=False)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all parts share."""

    spark: SparkSession
    peer: duckdb.DuckDBPyConnection
    out: Path
    repeats: int
    families: tuple[str, ...]
    progress: Progress

    def measure(self, title: str, arms: Sequence[Arm]) -> dict[str, Timed]:
        """The arms, interleaved, under a bar of their own."""
        task = self.progress.add_task(title, total=len(arms) * (self.repeats + 1))

        def done(name: str) -> None:
            self.progress.update(task, advance=1, description=f"{title}: {name}")

        return interleaved(arms, repeats=self.repeats, spark=self.spark, done=done)

    def written(self, name: str) -> Path:
        """Where an arm writes its rows."""
        return self.out / "rows" / name

    def spark_arm(self, name: str, peers: str, make: Callable[[], DataFrame]) -> Arm:
        """Computes a frame and writes it."""
        target = self.written(name)
        columns: list[str] = []

        def run() -> None:
            frame = make()
            columns[:] = frame.columns
            frame.write.mode("overwrite").parquet(str(target))

        return Arm(name=name, run=run, digest=lambda: self.digest(f"{target}/*.parquet", columns), peers=peers)

    def duckdb_arm(self, name: str, peers: str, query: str) -> Arm:
        """The peer, from the same Parquet."""
        target = self.written(f"{name}.parquet")
        target.parent.mkdir(parents=True, exist_ok=True)

        def columns() -> list[str]:
            return [row[0] for row in self.peer.execute(f"DESCRIBE SELECT * FROM '{target}'").fetchall()]

        return Arm(
            name=name,
            run=lambda: duckdb_features.copy(self.peer, query, target),
            digest=lambda: self.digest(str(target), columns()),
            peers=peers,
        )

    def carried_arm(self, family: str, name: str, peers: str, warehouse: Path, catalog: Catalog, day: dt.date) -> Arm:
        """One new day by the stages of the pipeline."""
        made = CARRIED[family](self.spark, warehouse, catalog, day)
        target = self.written(name)
        columns: list[str] = []

        def write(frame: DataFrame) -> None:
            columns[:] = frame.columns
            frame.write.mode("overwrite").parquet(str(target))

        return Arm(
            name=name,
            run=lambda: made.run(write),
            prepare=made.prepare,
            digest=lambda: self.digest(f"{target}/*.parquet", columns),
            peers=peers,
        )

    def digest(self, files: str, columns: Sequence[str]) -> str:
        """Of rows as the peer reads them."""
        return duckdb_features.digest(self.peer, files, columns)


def families(bench: Bench, warehouse: Path, day: dt.date) -> dict[str, Any]:
    """Every family in bulk, by the peer, and carried."""
    catalog, found = load_catalog(), {}
    for family in bench.families:
        query = duckdb_features.family_sql(family, catalog, warehouse, day, EVENT_LAG_S)
        arms = [
            bench.spark_arm(f"{family} full", family, _full(bench, family, catalog, warehouse, day)),
            bench.duckdb_arm(f"{family} duckdb", family, query),
        ]
        if family in CARRIED:
            arms.append(bench.carried_arm(family, f"{family} incremental", family, warehouse, catalog, day))
        timed = bench.measure(family, arms)
        found[family] = {name.removeprefix(f"{family} "): of_arm for name, of_arm in timed.items()}
    return found


def _full(bench: Bench, family: str, catalog: Catalog, warehouse: Path, day: dt.date) -> Callable[[], DataFrame]:
    return lambda: spark_features.full(bench.spark, family, catalog, warehouse, day, EVENT_LAG_S)


def windows(bench: Bench, warehouse: Path, day: dt.date) -> dict[str, dict[str, Timed]]:
    """The carried day with short and with long windows."""
    found = {}
    for family in (family for family in bench.families if family in CARRIED):
        arms = []
        for days in (7, 90):
            catalog = with_longest(load_catalog(), days)
            own = _same_raw(warehouse, f"n{days}")
            arms.append(bench.carried_arm(family, f"{family} n{days}", "", own, catalog, day))
        timed = bench.measure(f"windows of {family}", arms)
        found[family] = {name.removeprefix(f"{family} "): of_arm for name, of_arm in timed.items()}
    return found


def _same_raw(warehouse: Path, name: str) -> Path:
    """A warehouse of its own over the same raw days: a state table has the content of one catalog."""
    other = warehouse.with_name(f"{warehouse.name}-{name}")
    other.mkdir(exist_ok=True)
    if not (other / "raw").exists():
        (other / "raw").symlink_to(warehouse / "raw", target_is_directory=True)
    return other


def skew(bench: Bench, even: Path, skewed: Path, day: dt.date) -> dict[str, dict[str, Timed]]:
    """Every family in bulk over even and over skewed rows, and carried."""
    catalog, found = load_catalog(), {}
    for family in bench.families:
        arms = []
        for name, warehouse in (("even", even), ("skewed", skewed)):
            make = _full(bench, family, catalog, warehouse, day)
            arms.append(bench.spark_arm(f"{family} {name} full", "", make))
            if family in CARRIED:
                arms.append(bench.carried_arm(family, f"{family} {name} incremental", "", warehouse, catalog, day))
        timed = bench.measure(f"skew of {family}", arms)
        found[family] = {name.removeprefix(f"{family} "): of_arm for name, of_arm in timed.items()}
    return found


def events(bench: Bench, warehouse: Path, many_minutes: Path, day: dt.date) -> dict[str, Timed]:
    """Room state of half and of all impressions of a day, of all with many times as many minutes."""

    def arm(name: str, source: Path, share: int) -> Arm:
        def make() -> DataFrame:
            shown = spark_features.raw(bench.spark, source, "impressions", day, day)
            minutes = spark_features.raw(bench.spark, source, "room_stats", day - spark_features.ONE_DAY, day)
            rooms = spark_features.raw(bench.spark, source, "rooms", day - spark_features.ONE_DAY, day)
            if share > 1:
                shown, minutes = (rows.where(F.col("room_id") % share == 0) for rows in (shown, minutes))
            return room_state(load_catalog(), shown, minutes, rooms, EVENT_LAG_S)

        return bench.spark_arm(f"room state {name}", "", make)

    arms = [arm("half", warehouse, 2), arm("all", warehouse, 1), arm("all, many minutes", many_minutes, 1)]
    timed = bench.measure("room state", arms)
    return {name.removeprefix("room state "): of_arm for name, of_arm in timed.items()}


def ratios(parts: dict[str, Any], least: dict[str, int]) -> dict[str, Any]:
    """The figures of the issue, over all families and by family; None where an arm is not there."""

    def over(family: str, above: str, below: str, part: str = "families") -> float | None:
        arms = parts.get(part, {}).get(family, {})
        return arms[above].median / arms[below].median if above in arms and below in arms else None

    measured = [*parts.get("families", {})]
    found: dict[str, Any] = {}
    for name, above, below in (
        ("incremental_over_full_n30", "incremental", "full"),
        ("full_over_duckdb_full", "full", "duckdb"),
        ("incremental_over_duckdb_full", "incremental", "duckdb"),
    ):
        found[name] = {family: over(family, above, below) for family in measured}
        arms = [parts["families"][family] for family in measured]
        if arms and all(above in arm and below in arm for arm in arms):
            found[name]["all"] = sum(arm[above].median for arm in arms) / sum(arm[below].median for arm in arms)
    found["n90_over_n7"] = {family: over(family, "n90", "n7", "windows") for family in parts.get("windows", {})}
    found["skew_slowdown"] = {
        f"{family} {path}": over(family, f"skewed {path}", f"even {path}", "skew")
        for family, arms in parts.get("skew", {}).items()
        for path in ("full", "incremental")
        if f"skewed {path}" in arms
    }
    found["bytes_read_over_minimum"] = {
        family: parts["families"][family]["incremental"].summary()["bytes_read"] / minimum
        for family, minimum in least.items()
    }
    if rooms := parts.get("events"):
        found["room_state_all_over_half"] = {"room": rooms["all"].median / rooms["half"].median}
        found["room_state_many_over_few_minutes"] = {"room": rooms["all, many minutes"].median / rooms["all"].median}
    return {name: {key: value for key, value in values.items() if value is not None} for name, values in found.items()}


def show(found: dict[str, Any]) -> None:
    """One screen: medians and ranges, then ratios beside their bounds."""
    table = Table("part", "arm", "median s", "range s", "load")
    for part, groups in found["arms"].items():
        for name, arm in groups.items():
            low, high = arm["range_s"]
            table.add_row(part, name, f"{arm['median_s']:.2f}", f"{low:.2f}–{high:.2f}", f"{max(arm['load']):.1f}")
    console.print(table)
    table = Table("ratio", "of", "measured", "at most")
    for name, values in found["ratios"].items():
        for family, value in values.items():
            bound = TARGETS.get(name)
            table.add_row(name, family, f"{value:.3f}", "–" if bound is None else f"{bound:g}")
    console.print(table)
    for line in found["missing"]:
        console.print(f"[yellow]not measured:[/] {line}")


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bench_features", description=__doc__)
    parser.add_argument("--actions-per-day", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=40, help="raw days; at least 33")
    parser.add_argument("--long-actions-per-day", type=int, default=300_000, help="of the part windows")
    parser.add_argument("--long-days", type=int, default=100, help="of the part windows; at least 93")
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--anchors", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="data, scratch space and features.json")
    parser.add_argument("--duckdb-memory", default="6GB")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the data, measure, write and show."""
    options = options_of(arguments)
    out = options.out.resolve()
    size = Size(actions=options.actions_per_day, days=options.days, users=options.users, anchors=options.anchors)
    scratch = out / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
    with bar as progress, spark_session("bench-features", "local", ZONE, scratch) as spark:
        peer = duckdb_features.connect(options.duckdb_memory, scratch / "duckdb")
        bench = Bench(
            spark=spark,
            peer=peer,
            out=out,
            repeats=options.repeats,
            families=tuple(options.families),
            progress=progress,
        )
        parts, least = _parts(bench, size, options)
        about = stated(peer, out / "data" / size.name, size)
    found = {
        "size": vars(options) | {"out": str(options.out)},
        "machine": _machine(),
        "stated": about | {"active_share": ACTIVE_SHARE, "run_days": RUN_DAYS, "late_share": 1 - LATE[0]},
        "arms": {part: _flat(groups) for part, groups in parts.items()},
        "ratios": ratios(parts, least),
        "missing": [
            f"{family}: no carried path in the harness yet" for family in bench.families if family not in CARRIED
        ],
    }
    (out / "features.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    show(found)
    console.print(f"→ {out / 'features.json'}", soft_wrap=True)
    return 0


def _parts(bench: Bench, size: Size, options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, int]]:
    parts: dict[str, Any] = {}
    least: dict[str, int] = {}
    day = size.day_list[-1]
    even = _data(bench, size)
    if "families" in options.parts:
        parts["families"] = families(bench, even, day)
        for family in (family for family in bench.families if family in CARRIED):
            least[family] = CARRIED[family](bench.spark, even, load_catalog(), day).least_bytes()
    if "windows" in options.parts:
        long = replace(size, actions=options.long_actions_per_day, days=options.long_days)
        parts["windows"] = windows(bench, _data(bench, long), long.day_list[-1])
    if "skew" in options.parts:
        parts["skew"] = skew(bench, even, _data(bench, replace(size, is_skewed=True)), day)
    if "events" in options.parts:
        parts["events"] = events(
            bench, even, _data(bench, replace(size, minutes=4 * size.minutes, first=size.days - 2)), day
        )
    return parts, least


def _data(bench: Bench, size: Size) -> Path:
    task = bench.progress.add_task(f"raw days {size.name}", total=len(size.day_list))
    return write_raw_days(size, bench.out / "data", lambda: bench.progress.advance(task))


def _flat(groups: dict[str, Any]) -> dict[str, Any]:
    """Arms of a part by name, whether they are grouped by family or not."""
    flat = {}
    for name, group in groups.items():
        if isinstance(group, Timed):
            flat[name] = group.summary()
        else:
            flat |= {f"{name} {arm}": timed.summary() for arm, timed in group.items()}
    return flat


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "duckdb": duckdb.__version__,
        "ended_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    sys.exit(main())
