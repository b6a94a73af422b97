"""The optimisers that `make bench-train` compares differ in the table's update alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.train_quality import OPTIMISERS, REFERENCE, Arm, Trial, arms_of, measure


def test_only_the_tables_optimiser_differs() -> None:
    confs = {name: Arm(optimiser=name).conf(0.003, 7).model_dump() for name in OPTIMISERS}
    tables = {name: conf["optim"].pop("embedding") for name, conf in confs.items()}
    assert all(conf == confs[REFERENCE] for conf in confs.values())
    kinds = {name: (table["kind"], table["lazy"]) for name, table in tables.items()}
    assert kinds == {"row_adagrad": ("adagrad", True), "lazy_adam": ("adam", True), REFERENCE: ("adam", False)}
    assert {table["learning_rate"] for table in tables.values()} == {0.003}


def test_the_rate_is_chosen_on_the_validation_day_and_judged_on_the_gate_day(monkeypatch: pytest.MonkeyPatch) -> None:
    best = {"row_adagrad": 0.01, "lazy_adam": 0.1, REFERENCE: 0.01, "row_adagrad by full": 0.01}

    def auc(trial: Trial) -> tuple[float, float]:
        is_best = trial.rate == best[trial.arm.name]
        on_gate = (0.65 if trial.arm.name == REFERENCE else 0.64) + 0.01 * trial.seed
        return (0.7 if is_best else 0.6), (on_gate if is_best else 0.9)

    monkeypatch.setattr(Trial, "auc", auc)
    found = measure(Path(), Path(), arms_of(["full"]), (0, 1), (0.01, 0.1), print)
    assert {name: one["learning_rate"] for name, one in found.items()} == best
    assert found["lazy_adam"]["over_dense_adam"] == pytest.approx(-0.01)
    assert found[REFERENCE]["by_seed"] == pytest.approx([0.65, 0.66])
