"""`python -m benchmarks.cost`: what a day costs at 10⁹ impressions, from what `make bench-features` measured.

    work of a carried day at a quarter of the size, and at the size      per figure two points
    → a line through them                                                fixed part, and what a row of the logs adds
    → at the wanted size                                                 an ESTIMATE: nothing was run there
What grows with the size of a cluster instead of the rows (driver, listing, skew between executors) is not in it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.features_report import Arms
from pipeline.manifests import PartitionManifest
from pipeline.tables import Warehouse

IMPRESSIONS = 1_000_000_000
QUARTER = 0.25
UNITS = {"cpu_s": "core hours", "file_bytes": "GB", "shuffle_bytes": "GB", "output_bytes": "GB"}
PER_UNIT = {"cpu_s": 3600.0, "file_bytes": 1e9, "shuffle_bytes": 1e9, "output_bytes": 1e9}
WORDS = {
    "cpu_s": "processor time of all tasks",
    "file_bytes": "read from files",
    "shuffle_bytes": "shuffled",
    "output_bytes": "written",
}
BUSY_SHARE = 0.6
"""Of executors' cores, while a job of many stages runs on them: assumed, not measured."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One figure of a carried day, measured twice and drawn out.

    Attributes:
        quarter, whole: at a quarter of the measured size, and at the size.
        estimate: at `times` the size.
    """

    quarter: float
    whole: float
    times: float

    @property
    def growth(self) -> float:
        """How many times as much for four times the rows; 4 is linear."""
        return self.whole / self.quarter if self.quarter else float("nan")

    @property
    def estimate(self) -> float:
        """On the line through both."""
        slope = (self.whole - self.quarter) / (1 - QUARTER)
        return self.whole + slope * (self.times - 1)


def lines(parts: Mapping[str, Mapping[str, Mapping[str, Any]]], times: float) -> dict[str, dict[str, Line]]:
    """Group → figure → its line, of the groups that were measured at both sizes.

    Raises:
        KeyError: no group was.
    """
    found = {}
    for group, measured in parts["growth"].items():
        whole = _work(parts["families"][group]["arms"], f"{group} incremental")
        quarter = _work(measured["arms"], f"{group} quarter")
        found[group] = {name: Line(quarter=quarter[name], whole=whole[name], times=times) for name in UNITS}
    return found


def _work(arms: Arms, name: str) -> Mapping[str, float]:
    work: Mapping[str, float] = arms[name]["work"]
    return work


def stored(warehouse: Path) -> dict[str, tuple[int, int]]:
    """Table → bytes and stored rows of its newest partition, of what is carried from day to day."""
    opened = Warehouse(str(warehouse))
    found = {}
    for table in opened.tables():
        if table.startswith(("profiles_", "recent_", "tiles_")):
            newest: PartitionManifest | None = opened.manifest(table, opened.partitions(table)[-1])
            assert newest is not None
            found[table] = (sum(file.bytes for file in newest.files), sum(file.rows for file in newest.files))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="cost", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="where features.json is")
    parser.add_argument("--impressions", type=float, default=IMPRESSIONS)
    options = parser.parse_args(arguments)
    found = json.loads((options.out / "features.json").read_text(encoding="utf-8"))
    size = found["size"]["size"]
    actions = int(size.split("x")[1].split("-")[0])
    times = options.impressions / (actions / 2)
    console = Console(highlight=False)
    table = Table("carried day of", "figure", "a quarter", "measured", "growth for 4×", "estimate")
    total = dict.fromkeys(UNITS, 0.0)
    for group, figures in lines(found["parts"], times).items():
        for name, line in figures.items():
            total[name] += line.estimate
            unit, per = UNITS[name], PER_UNIT[name]
            small, large = (f"{value:,.1f} s" if name == "cpu_s" else f"{value / 1e6:,.1f} MB"
                            for value in (line.quarter, line.whole))  # fmt: skip
            table.add_row(group, WORDS[name], small, large, f"{line.growth:.2f}", f"{line.estimate / per:,.0f} {unit}")
    console.print(table)
    hours = total["cpu_s"] / 3600 / BUSY_SHARE
    console.print(f"cores for one hour, {BUSY_SHARE:.0%} busy: {hours:,.0f}")
    table = Table("table", "rows measured", "bytes measured", "estimate")
    for name, (size_bytes, rows) in stored(options.out / "data" / size).items():
        table.add_row(name, f"{rows:,}", f"{size_bytes / 1e6:,.1f} MB", f"{size_bytes * times / 1e9:,.0f} GB")
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
