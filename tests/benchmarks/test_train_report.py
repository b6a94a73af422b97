"""Ratios of `make bench-train`: by rounds, beside goals, of what was measured under the same settings."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.train_report import NOT_ON_GPU, by_name, keep, kept, on_gpu, ratios, show

SETTINGS = {"device": "cpu", "repeats": 3}


def arm(*values: float) -> dict[str, Any]:
    return {"median": sorted(values)[1], "range": [min(values), max(values)], "all": list(values), "load": [0.1] * 3}


def steps(skew: float = 1.05) -> dict[str, Any]:
    shape = {"model": "deepfm", "skew": skew, "rows": "1e7", "of": "deepfm 1e7", "flat_from": "1e5"}
    return {"settings": SETTINGS, **shape, "arms": USUAL}


USUAL = {
    "ours shipped 1e7": arm(90.0, 100.0, 110.0),
    "deepctr shipped 1e7": arm(9.0, 5.0, 11.0),
    "deepctr best 1e7": arm(45.0, 50.0, 55.0),
    "gemm products 1e7": arm(120.0, 125.0, 220.0),
    "ours compiled 1e7": arm(115.0, 120.0, 125.0),
    "ours shipped 1e5": arm(100.0, 100.0, 100.0),
}


def found(**parts: dict[str, Any]) -> dict[tuple[str, str], Any]:
    return {(one.name, one.of): one for one in ratios({name: {"g": one} for name, one in parts.items()})}


def test_a_ratio_is_taken_round_by_round() -> None:
    seen = found(steps=steps())
    shipped = seen["over_peer_as_shipped", "deepfm 1e7 DeepCTR-Torch"]
    assert (shipped.median, shipped.low, shipped.high) == pytest.approx((10.0, 10.0, 20.0))
    assert shipped.goal == 10.0
    assert shipped.is_met
    named = by_name([shipped])["over_peer_as_shipped"]["deepfm 1e7 DeepCTR-Torch"]
    assert named == {"median": pytest.approx(10.0), "range": pytest.approx([10.0, 20.0]), "goal": 10.0, "met": True}
    limit = seen["of_gemm_limit", "deepfm 1e7"]
    assert (limit.median, limit.is_met) == (pytest.approx(0.75), True)
    assert seen["of_gemm_limit", "deepfm 1e7 compiled"].median == pytest.approx(115 / 120)
    best = seen["over_peer_at_its_best", "deepfm 1e7 DeepCTR-Torch"]
    assert (best.median, best.is_met) == (pytest.approx(2.0), False)
    flat = seen["flat_in_table", "deepfm 1e7 over 1e5"]
    assert (flat.median, flat.goal, flat.is_met) == (pytest.approx(1.0), 0.9, True)


def test_goals_are_of_the_skewed_rows_and_absent_arms_have_no_ratio() -> None:
    assert all(one.goal is None for one in found(steps=steps(skew=0.0)).values())
    assert ("matched", "deepfm 1e7 DeepCTR-Torch") not in found(steps=steps())


def test_bytes_and_losses_are_to_be_small() -> None:
    shape = {"model": "deepfm", "skew": 1.05, "rows": "1e6", "of": "deepfm 1e6", "values": "full"}
    both = {"two ranks": arm(80.0, 90.0, 95.0), "two processes": arm(100.0, 100.0, 100.0)}
    ranks = {**shape, "arms": both, "exchange": {"row_bytes": 60.0, "step_ms": 1.0}, "stock": {"bytes": 100.0}}
    seen = found(ranks=ranks, twin={**shape, "apart": {"deepctr": 1e-12}})
    assert not seen["sparse_bytes_over_stock", "deepfm 1e6"].is_met
    assert seen["two_ranks_over_two_processes", "deepfm 1e6"].is_met
    assert seen["twin_losses_apart", "deepfm 1e6 DeepCTR-Torch"].is_met


def test_quality_is_how_far_above_dense_adam() -> None:
    optimisers = {"row_adagrad": {"over_dense_adam": -0.002}, "dense_adam": {"over_dense_adam": 0.0}}
    seen = found(quality={"of": "q", "settings": SETTINGS, "optimisers": optimisers})
    assert [(one.of, one.is_met) for one in seen.values()] == [("row_adagrad", False)]


def test_what_was_measured_otherwise_is_not_put_beside(tmp_path: Path) -> None:
    keep(tmp_path, "steps", "one", steps())
    keep(tmp_path, "steps", "two", {**steps(), "settings": {**SETTINGS, "repeats": 5}})
    assert list(kept(tmp_path, SETTINGS)["steps"]) == ["one"]


def test_the_screen_shows_all_and_says_that_there_was_no_gpu() -> None:
    parts = {"steps": {"g": steps()}}
    told = io.StringIO()
    show({"parts": parts, "gpu": on_gpu(parts)}, ratios(parts), Console(file=told, width=200))
    assert NOT_ON_GPU in told.getvalue()
    assert "not met" in told.getvalue()
    assert "ours shipped 1e7" in told.getvalue()
