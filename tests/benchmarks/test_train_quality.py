"""The optimisers that `make bench-train` compares differ in the table's update alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import train_quality
from benchmarks.train_quality import OPTIMISERS, REFERENCE, conf_of, measure
from training.config import TrainConf


def test_only_the_tables_optimiser_differs() -> None:
    confs = {name: conf_of(name, 0.003, 7).model_dump() for name in OPTIMISERS}
    tables = {name: conf["optim"].pop("embedding") for name, conf in confs.items()}
    assert all(conf == confs[REFERENCE] for conf in confs.values())
    assert {(table["kind"], table["lazy"]) for table in tables.values()} == {
        ("adagrad", True),
        ("adam", True),
        ("adam", False),
    }
    assert {table["learning_rate"] for table in tables.values()} == {0.003}
    assert isinstance(conf_of(REFERENCE, 0.003, 7), TrainConf)


def test_the_rate_is_chosen_on_the_validation_day_and_judged_on_the_gate_day(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(_set: Path, _out: Path, optimiser: str, rate: float, seed: int, _told: object) -> tuple[float, float]:
        best = {"row_adagrad": 0.01, "lazy_adam": 0.1, REFERENCE: 0.01}[optimiser]
        return (0.7 if rate == best else 0.6), (0.65 if optimiser == REFERENCE else 0.64) + 0.01 * seed + (rate != best)

    monkeypatch.setattr(train_quality, "_trained", trained)
    found = measure(Path(), Path(), (0, 1), (0.01, 0.1), print)
    assert {name: one["learning_rate"] for name, one in found.items()} == {
        "row_adagrad": 0.01,
        "lazy_adam": 0.1,
        REFERENCE: 0.01,
    }
    assert found["lazy_adam"]["over_dense_adam"] == pytest.approx(-0.01)
    assert found[REFERENCE]["by_seed"] == pytest.approx([0.65, 0.66])
