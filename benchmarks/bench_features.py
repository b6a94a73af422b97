"""`make bench-features`: what a day's features cost, carried, in bulk, and in DuckDB; → build/bench/features.json.

Parts, each with arms that are interleaved and repeated in one warm session:
  families   per family of features: one day in bulk by Spark, by DuckDB, and carried where there is a carried path
  windows    the carried day with windows of 7 and of 90 days
  skew       the same volume with a hot anchor and a hot user, against it spread evenly
  events     room state of a day with few and with many room minutes, with half and with all of the day's rows
  growth     the carried day on a platform a quarter as large, for `python -m benchmarks.cost`
The arms of a family read the same Parquet and must write equal rows, or the bench stops.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
from pyspark.sql import functions as F
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import duckdb_features, spark_features
from benchmarks.catalogs import with_longest
from benchmarks.features_report import keep, kept, ratios, show
from benchmarks.incremental import CarriedDay, ProfilesDay, SequencesDay
from benchmarks.measure import Arm, Timed, interleaved
from benchmarks.raw_days import ACTIVE_SHARE, LATE, RUN_DAYS, ZONE, Size, write_raw_days
from benchmarks.stated import stated
from features.schema import Catalog, load_catalog
from features.spark.room_state import room_state
from features.spec import TILED_ENTITIES
from jobs.spark_session import read_properties, spark_session
from pipeline.config import conf_folder
from pipeline.context import code_fingerprint

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

GROUPS = {"profiles": tuple(entity.value for entity in TILED_ENTITIES), "sequences": ("sequences",)}
FAMILIES = tuple(family for members in GROUPS.values() for family in members)
PARTS = ("families", "windows", "skew", "events", "growth")
CARRIED: Mapping[str, type[CarriedDay]] = {"profiles": ProfilesDay, "sequences": SequencesDay}
"""Group of families → how it is carried; the families of a group are carried together."""
EVENT_LAG_S = 30
SESSION = {
    "spark.sql.adaptive.coalescePartitions.initialPartitionNum": "32",
    "spark.sql.autoBroadcastJoinThreshold": "100MB",
}
"""Set besides conf/spark/local.conf, for all arms: a month of a day's million rows spills less in smaller partitions,
and the versions of rooms fit into memory."""
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
    size: Mapping[str, Any]

    def keep(self, part: str, group: str, timed: Mapping[str, Timed], **more: object) -> None:
        """Keep what was measured, so that it need not be measured again."""
        arms = {name: arm.summary() for name, arm in timed.items()}
        keep(self.out, part, group, {"size": self.size, "machine": _machine(), "arms": arms, **more})

    def groups(self) -> dict[str, tuple[str, ...]]:
        """Of the groups the families that were asked for."""
        chosen = {group: tuple(f for f in members if f in self.families) for group, members in GROUPS.items()}
        return {group: members for group, members in chosen.items() if members}

    def measure(self, title: str, arms: Sequence[Arm], *, compared: bool = False) -> dict[str, Timed]:
        """The arms, interleaved, under a bar of their own; `compared`: arms of a family must write the same rows."""
        task = self.progress.add_task(title, total=len(arms) * (self.repeats + 1))

        def done(name: str, seconds: float) -> None:
            self.progress.update(task, advance=1, description=f"{title}: {name} {seconds:.2f} s")
            if not console.is_terminal:
                console.print(f"{title}: {name} {seconds:.2f} s, load {os.getloadavg()[0]:.1f}")

        return interleaved(arms, repeats=self.repeats, spark=self.spark, done=done, compared=compared)

    def written(self, name: str) -> Path:
        """Where an arm writes its rows."""
        return self.out / "rows" / name

    def spark_arm(self, name: str, family: str, make: Callable[[], DataFrame]) -> Arm:
        """Computes a frame and writes it."""
        target = self.written(name)
        columns: list[str] = []

        def run() -> None:
            frame = make()
            columns[:] = frame.columns
            frame.write.mode("overwrite").parquet(str(target))

        return Arm(name=name, run=run, digests=lambda: self.digest(family, f"{target}/*.parquet", columns))

    def duckdb_arm(self, name: str, family: str, query: str) -> Arm:
        """The peer, from the same Parquet."""
        target = self.written(f"{name}.parquet")
        target.parent.mkdir(parents=True, exist_ok=True)

        def columns() -> list[str]:
            return [row[0] for row in self.peer.execute(f"DESCRIBE SELECT * FROM '{target}'").fetchall()]

        return Arm(
            name=name,
            run=lambda: duckdb_features.copy(self.peer, query, target),
            digests=lambda: self.digest(family, str(target), columns()),
        )

    def carried_arm(self, group: str, name: str, warehouse: Path, catalog: Catalog, day: dt.date) -> Arm:
        """One new day of a group of families by the stages of the pipeline."""
        made = self.carried(group, warehouse, catalog, day)

        def digests() -> dict[str, str]:
            found: dict[str, str] = {}
            for family, frame in made.outputs().items():
                target = self.written(f"{name} {family}")
                frame.write.mode("overwrite").parquet(str(target))
                found |= self.digest(family, f"{target}/*.parquet", frame.columns)
            return found

        return Arm(name=name, run=made.run, prepare=made.prepare, digests=digests)

    def carried(self, group: str, warehouse: Path, catalog: Catalog, day: dt.date) -> CarriedDay:
        """One new day of a group."""
        return CARRIED[group](self.spark, warehouse, catalog, day)

    def digest(self, family: str, files: str, columns: Sequence[str]) -> dict[str, str]:
        """Family → digest of its rows, as the peer reads them."""
        return {family: duckdb_features.digest(self.peer, files, columns)}


def families(bench: Bench, warehouse: Path, day: dt.date) -> None:
    """Per group the families in bulk and by the peer, and the whole group carried, all of them in turns."""
    catalog = load_catalog()
    for group, members in bench.groups().items():
        arms = []
        for family in members:
            query = duckdb_features.family_sql(family, catalog, warehouse, day, EVENT_LAG_S)
            arms.append(bench.spark_arm(f"{family} full", family, _full(bench, family, catalog, warehouse, day)))
            arms.append(bench.duckdb_arm(f"{family} duckdb", family, query))
        arms.append(bench.carried_arm(group, f"{group} incremental", warehouse, catalog, day))
        carried = bench.carried(group, warehouse, catalog, day)
        besides = carried.rewritings()
        arms += [Arm(name=n, run=one.run, prepare=one.prepare, digests=dict) for n, one in besides.items()]
        timed = bench.measure(group, arms, compared=True)
        for name, one in besides.items():
            timed[name].every_days = one.every_days
        bench.keep("families", group, timed, least_bytes=carried.least_bytes())


def _full(bench: Bench, family: str, catalog: Catalog, warehouse: Path, day: dt.date) -> Callable[[], DataFrame]:
    return lambda: spark_features.full(bench.spark, family, catalog, warehouse, day, EVENT_LAG_S)


def windows(bench: Bench, warehouse: Path, day: dt.date) -> None:
    """The carried day with short and with long windows."""
    for group in bench.groups():
        arms = []
        for days in (7, 90):
            catalog = with_longest(load_catalog(), days)
            own = _same_raw(warehouse, f"n{days}")
            arms.append(bench.carried_arm(group, f"{group} n{days}", own, catalog, day))
        bench.keep("windows", group, bench.measure(f"windows of {group}", arms))


def _same_raw(warehouse: Path, name: str) -> Path:
    """A warehouse of its own over the same raw days: a state table has the content of one catalog."""
    other = warehouse.with_name(f"{warehouse.name}-{name}")
    other.mkdir(exist_ok=True)
    if not (other / "raw").exists():
        (other / "raw").symlink_to(warehouse / "raw", target_is_directory=True)
    return other


def skew(bench: Bench, even: Path, skewed: Path, day: dt.date) -> None:
    """Every family in bulk over even and over skewed rows, and every group carried."""
    catalog = load_catalog()
    for group, members in bench.groups().items():
        arms = []
        for name, warehouse in (("even", even), ("skewed", skewed)):
            for family in members:
                make = _full(bench, family, catalog, warehouse, day)
                arms.append(bench.spark_arm(f"{family} full {name}", family, make))
            arms.append(bench.carried_arm(group, f"{group} incremental {name}", warehouse, catalog, day))
        bench.keep("skew", group, bench.measure(f"skew of {group}", arms))


def growth(bench: Bench, quarter: Path, day: dt.date) -> None:
    """The carried day of a smaller platform."""
    for group in bench.groups():
        arm = bench.carried_arm(group, f"{group} quarter", quarter, load_catalog(), day)
        bench.keep("growth", group, bench.measure(f"growth of {group}", [arm]))


def events(bench: Bench, warehouse: Path, many_minutes: Path, day: dt.date) -> None:
    """Room state of half and of all impressions of a day, of all with many times as many minutes."""

    def arm(name: str, source: Path, share: int) -> Arm:
        def make() -> DataFrame:
            shown = spark_features.raw(bench.spark, source, "impressions", day, day)
            minutes = spark_features.raw(bench.spark, source, "room_stats", day - spark_features.ONE_DAY, day)
            rooms = spark_features.raw(bench.spark, source, "rooms", day - spark_features.ONE_DAY, day)
            if share > 1:
                shown, minutes = (rows.where(F.col("room_id") % share == 0) for rows in (shown, minutes))
            return room_state(load_catalog(), shown, minutes, rooms, EVENT_LAG_S)

        return bench.spark_arm(f"room state {name}", "room state", make)

    arms = [arm("half", warehouse, 2), arm("all", warehouse, 1), arm("many minutes", many_minutes, 1)]
    bench.keep("events", "room state", bench.measure("room state", arms))


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bench_features", description=__doc__)
    parser.add_argument("--actions-per-day", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=40, help="raw days; at least 39")
    parser.add_argument("--long-actions-per-day", type=int, default=300_000, help="of the part windows")
    parser.add_argument("--long-days", type=int, default=100, help="of the part windows; at least 99")
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--anchors", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--report", action="store_true", help="measure nothing; put together what was measured")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="data, scratch space and features.json")
    parser.add_argument("--duckdb-memory", default="6GB")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the data, measure part by part, put together what was measured, write and show."""
    options = options_of(arguments)
    out = options.out.resolve()
    size = Size(actions=options.actions_per_day, days=options.days, users=options.users, anchors=options.anchors)
    long = replace(size, actions=options.long_actions_per_day, days=options.long_days)
    sizes = {"size": size.name, "of windows": long.name, "code": code_fingerprint(), "spark": _session()}
    scratch = out / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    peer = duckdb_features.connect(options.duckdb_memory, scratch / "duckdb")
    if not options.report:
        bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        with bar as progress, spark_session("bench-features", "local", ZONE, scratch) as spark:
            for key, value in SESSION.items():
                spark.conf.set(key, value)
            families = tuple(options.families)
            _measure(
                Bench(
                    spark=spark,
                    peer=peer,
                    out=out,
                    repeats=options.repeats,
                    families=families,
                    progress=progress,
                    size=sizes,
                ),
                size,
                long,
                options.parts,
            )
    parts = kept(out, sizes)
    about = stated(peer, out / "data" / size.name, size)
    found = {
        "size": sizes,
        "stated": about | {"active_share": ACTIVE_SHARE, "run_days": RUN_DAYS, "late_share": 1 - LATE[0]},
        "parts": parts,
        "ratios": ratios(parts),
    }
    (out / "features.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    show(found, console)
    console.print(f"→ {out / 'features.json'}", soft_wrap=True)
    return 0


def _measure(bench: Bench, size: Size, long: Size, parts: Sequence[str]) -> None:
    day = size.day_list[-1]
    even = _data(bench, size)
    if "families" in parts:
        families(bench, even, day)
    if "windows" in parts:
        windows(bench, _data(bench, long), long.day_list[-1])
    if "skew" in parts:
        skew(bench, even, _data(bench, replace(size, is_skewed=True)), day)
    if "events" in parts:
        events(bench, even, _data(bench, replace(size, minutes=4 * size.minutes, first=size.days - 2)), day)
    if "growth" in parts:
        quarter = replace(size, actions=size.actions // 4, users=size.users // 4, anchors=size.anchors // 4)
        growth(bench, _data(bench, quarter), day)


def _data(bench: Bench, size: Size) -> Path:
    task = bench.progress.add_task(f"raw days {size.name}", total=len(size.day_list))
    return write_raw_days(size, bench.out / "data", lambda: bench.progress.advance(task))


def _session() -> dict[str, str]:
    """The properties of the session that all arms run in."""
    return read_properties(conf_folder() / "spark" / "local.conf") | SESSION


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
