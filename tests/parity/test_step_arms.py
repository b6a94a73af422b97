"""`make bench-train` compares one training with itself: from equal weights, losses of both sides in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.step_arms import ArmSpec, Side, make

pytest.importorskip("fuxictr")  # and DeepCTR-Torch, which asks PyPI for its newest version unless the arm imports it

WITHIN = 1e-9
SMALL = ArmSpec(
    side="ours", variant="adagrad", model="deepfm", rows=40 * 30, batch=32, batches=2, dtype="float64", copied=True
)


@pytest.mark.parametrize(("side", "model"), [("deepctr", "deepfm"), ("deepctr", "din"), ("fuxictr", "din")])
def test_losses_are_equal_step_by_step(side: Side, model: str) -> None:
    specs = [replace(SMALL, side=one, model=model) for one in ("ours", side)]  # type: ignore[arg-type]
    ours, theirs = (make(spec) for spec in specs)
    losses = [(float(ours.step(number % 2)), float(theirs.step(number % 2))) for number in range(4)]
    assert [one for one, _ in losses] == pytest.approx([other for _, other in losses], abs=WITHIN)
    assert losses[0][0] - losses[2][0] > 1e-4  # it learns: equal by standing still would be no proof


@pytest.mark.parametrize(("side", "model"), [("deepctr", "deepfm"), ("deepctr", "din"), ("fuxictr", "din")])
@pytest.mark.parametrize("variant", ["shipped", "best", "adagrad_fused"])
def test_every_arm_learns(side: Side, model: str, variant: str) -> None:
    spec = replace(SMALL, side=side, model=model, variant=variant, dtype="float32", copied=False)  # type: ignore[arg-type]
    arm = make(spec)
    losses = [float(arm.step(0)) for _ in range(8)]
    assert losses[-1] < losses[0]
