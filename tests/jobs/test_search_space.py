"""A space of settings: what YAML says, what is drawn of it, where values go."""

from __future__ import annotations

from pathlib import Path

import optuna

from jobs.search_space import SearchSpace, with_values


def test_values_go_to_their_places() -> None:
    conf = {"model": {"name": "lr"}, "plateau": None}
    changed = with_values(conf, {"plateau.factor": 0.5, "model.hidden": [4]})
    assert changed == {"model": {"name": "lr", "hidden": [4]}, "plateau": {"factor": 0.5}}
    assert conf == {"model": {"name": "lr"}, "plateau": None}


def test_numbers_in_yaml_may_have_any_notation(tmp_path: Path) -> None:
    """YAML reads 1e-4 as text."""
    path = tmp_path / "space.yaml"
    path.write_text("a: {low: 1e-4, high: 1e-2, log: true}\nb: {low: 2, high: 8}\n")
    space = SearchSpace.load(path)
    assert space.document() == {"a": {"low": 1e-4, "high": 1e-2, "log": True}, "b": {"low": 2, "high": 8}}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    values = [space.suggest(study.ask()) for _ in range(20)]
    assert {one["b"] for one in values} <= set(range(2, 9))
    assert all(1e-4 <= one["a"] <= 1e-2 for one in values)
