"""The gate's trials: what they count, and the noise that makes a model worse by so much."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.gate_days import SEED_NOISE, GateDay
from benchmarks.gate_trials import Trial, rows_needed, run_trials, stopped, worse_noise
from jobs.settings import Settings


def test_rows_needed_follow_the_root_of_the_rows() -> None:
    evidence = {"10000": {"detectable_drop": 0.001 + 0.008}, "40000": {"detectable_drop": 0.001 + 0.004}}
    assert rows_needed(evidence, drop=0.005, allowed=0.001) == 40_000


def test_a_day_is_a_function_of_its_seed() -> None:
    first, again, other = GateDay.simulate(2000, 1), GateDay.simulate(2000, 1), GateDay.simulate(2000, 2)
    assert (first.labels["enter"] == again.labels["enter"]).all()
    assert (first.labels["enter"] != other.labels["enter"]).any()


def test_worse_candidates_are_worse_by_what_was_asked_for_and_are_counted(tmp_path: Path) -> None:
    conf = Settings.load("local").gate
    assert conf is not None
    noise = worse_noise(0.05, rows=30_000)
    assert noise.impression > SEED_NOISE.impression
    kept = tmp_path / "trials.jsonl"
    done = run_trials(1, 30_000, noise, conf.model_copy(update={"rounds": 60}), kept)
    found = stopped([one for one in done if one.kind == "worse"])
    assert found["mean_auc_difference"] == pytest.approx(-0.05, abs=0.01)
    assert (found["trials"], found["stopped"], found["share"]) == (1, 1, 1.0)
    assert found["by_rule"]["champion_comparison"] == 1


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    conf = Settings.load("local").gate
    assert conf is not None
    kept = tmp_path / "trials.jsonl"
    known = [
        Trial(kind=kind, number=0, rows=100, rounds=conf.rounds, stopped_by=(), auc_difference=0.0)
        for kind in ("twins", "worse")
    ]
    kept.write_text("".join(one.model_dump_json() + "\n" for one in known))
    assert run_trials(1, 100, SEED_NOISE, conf, kept) == known
