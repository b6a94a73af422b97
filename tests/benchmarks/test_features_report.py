"""What was measured part by part is put together as the ratios that are asked for, and never across sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.cost import lines
from benchmarks.features_report import TARGETS, keep, kept, ratios

SIZE = {"size": "small"}


def arm(seconds: float, file_bytes: float = 0.0, every_days: float | None = None) -> dict[str, Any]:
    work = {"cpu_s": 2 * seconds, "file_bytes": file_bytes, "input_bytes": 2 * file_bytes}
    work |= {"shuffle_bytes": 0.0, "output_bytes": 0.0}
    found: dict[str, Any] = {"median_s": seconds, "range_s": [seconds, seconds], "load": [1.0], "work": work}
    return found if every_days is None else {**found, "every_days": every_days}


def measured(arms: dict[str, dict[str, Any]], **more: object) -> dict[str, Any]:
    return {"size": SIZE, "arms": arms, **more}


FAMILIES = measured(
    {
        "user full": arm(60),
        "user duckdb": arm(10),
        "anchor full": arm(40),
        "anchor duckdb": arm(40),
        "profiles incremental": arm(20, file_bytes=150),
        "compaction": arm(8, every_days=4),
    },
    least_bytes=100,
)


def test_ratios_are_over_medians_of_the_group_and_of_all() -> None:
    found = ratios({"families": {"profiles": FAMILIES}})
    assert found["incremental_over_full_n30"] == {"profiles": 0.2, "all": 0.2}
    assert found["incremental_and_rewriting_over_full_n30"]["all"] == 0.22
    assert found["incremental_over_duckdb_full"]["all"] == 0.4
    assert found["full_over_duckdb_full"] == {"user": 6.0, "anchor": 1.0, "profiles": 2.0, "all": 2.0}
    assert found["bytes_read_over_minimum"] == {"profiles": 1.5}
    assert found["input_metrics_over_minimum"] == {"profiles": 3.0}
    assert TARGETS.keys() <= found.keys()


def test_parts_of_other_sizes_are_left_out(tmp_path: Path) -> None:
    keep(tmp_path, "families", "profiles", FAMILIES)
    keep(tmp_path, "skew", "profiles", {**measured({}), "size": {"size": "large"}})
    assert kept(tmp_path, SIZE) == {"families": {"profiles": FAMILIES}}
    keep(tmp_path, "windows", "profiles", measured({"profiles n90": arm(3), "profiles n7": arm(2)}))
    assert ratios(kept(tmp_path, SIZE))["n90_over_n7"] == {"profiles": 1.5}


def test_an_estimate_lies_on_the_line_through_both_sizes() -> None:
    quarter = measured({"profiles quarter": arm(8, file_bytes=60)})
    (figures,) = lines({"families": {"profiles": FAMILIES}, "growth": {"profiles": quarter}}, times=101).values()
    # 16 s at a quarter, 40 s at the size: 8 s fixed, and 32 s for each time the size.
    assert figures["cpu_s"].estimate == pytest.approx(8 + 32 * 101)
    assert figures["cpu_s"].growth == 2.5
    assert figures["file_bytes"].estimate == pytest.approx(30 + 120 * 101)
