"""Gaps and costs are those of plain loops, intervals hold the figure, and a killed run repeats nothing."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from benchmarks.bench_incremental import aucs_of, keys_of, run_arms
from benchmarks.daily_arms import Way
from benchmarks.incremental_gap import FULL, INCREMENTAL, NEVER, ArmDay, Kept, Pair, costs, gap_interval, gaps
from jobs.settings import Settings
from pipeline.config import merge
from training.bootstrap import Judged

DAY = datetime.date(2025, 3, 20)
ONE = datetime.timedelta(days=1)


def record(arm: str, number: int, **given: Any) -> ArmDay:
    date = DAY + ONE * number
    values = {"model": "deepfm", "fingerprint": "f", "trainset": f"{arm}-{date}", "auc": 0.7, "judged_rows": 9}
    return ArmDay(**({"arm": arm, "date": date, "judged_on": date - 2 * ONE} | values | given))


@given(st.lists(st.tuples(st.floats(0.5, 1.0), st.floats(0.5, 1.0)), min_size=1, max_size=10))
def test_gaps_are_those_of_the_mornings_that_both_have(aucs: list[tuple[float, float]]) -> None:
    full = [record(FULL, number, auc=auc) for number, (auc, _) in enumerate(aucs)]
    other = [record(INCREMENTAL, number, auc=auc) for number, (_, auc) in enumerate(aucs)]
    found = gaps([record(FULL, -1, auc=0.0), *full], other)
    naive = [a - b for a, b in aucs]
    assert found["by_morning"] == naive
    assert found["range"] == [min(naive), max(naive)]
    assert found["mean"] == pytest.approx(sum(naive) / len(naive), abs=1e-12)


def test_arms_of_a_morning_are_judged_on_one_day() -> None:
    with pytest.raises(ValueError, match="full was judged on 2025-03-18, incremental on 2025-03-17"):
        gaps([record(FULL, 0)], [record(INCREMENTAL, 0, judged_on=DAY - 3 * ONE)])


def cost(arm: str, number: int, trainset: float, training: float, cpu: float | None, rows: int, epochs: int) -> ArmDay:
    cpus = {"trainset_cpu_s": cpu, "training_cpu_s": cpu and 2 * cpu}
    return record(
        arm, number, trainset_s=trainset, training_s=training, train_rows=rows, epochs=epochs, **cpus
    )  # fmt: skip


def test_costs_are_sums_over_the_mornings_that_have_them() -> None:
    full = [cost(FULL, 0, 30, 70, None, 1000, 3), cost(FULL, 1, 50, 50, 100.0, 1000, 2)]
    other = [cost(INCREMENTAL, 0, 10, 10, 7.0, 100, 1), cost(INCREMENTAL, 1, 10, 20, 20.0, 150, 1)]
    found = costs(full, other)
    shares = {"seconds": 50 / 200, "trainset_s": 20 / 80, "training_s": 30 / 120, "trained_rows": 250 / 5000}
    of_one_morning = {"cpu_seconds": 60 / 300, "trainset_cpu_s": 20 / 100, "training_cpu_s": 40 / 200}
    assert found["share"] == pytest.approx(shares | of_one_morning)
    assert found["mornings"] == dict.fromkeys(shares, 2) | dict.fromkeys(of_one_morning, 1)
    assert found["range"] == pytest.approx([20 / 100, 30 / 100])
    assert found["median"][INCREMENTAL]["training_s"] == 15.0
    assert found["median"][FULL]["cpu_seconds"] == 300.0


def test_what_nobody_measured_is_left_out() -> None:
    found = costs([cost(FULL, 0, 30, 70, None, 1000, 3)], [cost(INCREMENTAL, 0, 10, 10, None, 100, 1)])
    assert set(found["share"]) == {"seconds", "trainset_s", "training_s", "trained_rows"}


def judged(rng: np.random.Generator, rows: int, noise: float, group: Any, label: Any) -> Judged:
    return Judged.of(label + rng.normal(0, noise, rows), label, np.ones(rows), group)


def test_the_interval_is_about_the_mean_gap_of_the_mornings() -> None:
    rng, pairs, naive = np.random.default_rng(1), [], []
    for rows in (4000, 6000):
        group, label = rng.integers(0, 300, rows), (rng.random(rows) < 0.3).astype(float)
        better, worse = judged(rng, rows, 1.0, group, label), judged(rng, rows, 2.0, group, label)
        pairs.append(Pair(full=better, other=worse))
        naive.append(roc_auc_score(label, better.score) - roc_auc_score(label, worse.score))
    found = gap_interval(pairs, rounds=200)
    assert found is not None
    assert found.point == pytest.approx(sum(naive) / 2, abs=1e-9)
    assert 0 < found.low < found.point < found.high


def test_other_rows_are_refused() -> None:
    rng = np.random.default_rng(2)
    group, label = np.arange(100), (np.arange(100) % 2).astype(float)
    full, other = judged(rng, 100, 1.0, group, label), judged(rng, 100, 1.0, group[::-1], label)
    with pytest.raises(ValueError, match="same rows"):
        gap_interval([Pair(full=full, other=other)])


class Trainer:
    """Stands for the chain: says what was asked of it, and dies when it is told to."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.asked: list[tuple[str, datetime.date, str | None]] = []
        self._dies_after = dies_after

    def full(self, way: Way, date: datetime.date) -> ArmDay:
        return self._done(way, date, None)

    def incremental(self, way: Way, date: datetime.date, start: ArmDay) -> ArmDay:
        return self._done(way, date, start.trainset)

    def never(self, way: Way, date: datetime.date, first: ArmDay, judged_as: ArmDay) -> ArmDay:
        return self._done(Way(name=NEVER, settings=way.settings), date, first.trainset).model_copy(
            update={"fingerprint": way.fingerprint}
        )

    def _done(self, way: Way, date: datetime.date, start: str | None) -> ArmDay:
        if len(self.asked) == self._dies_after:
            raise KeyboardInterrupt
        self.asked.append((way.name, date, start))
        number = (date - DAY).days
        return record(
            way.name, number, fingerprint=way.fingerprint, trainset=f"{way.name}-{date}", auc=0.7 - number / 100
        )


@pytest.fixture
def ways() -> tuple[Way, Way]:
    settings = Settings.load("local")
    return Way(name=FULL, settings=settings), Way(name=INCREMENTAL, settings=settings, train={"seed": 5})


@pytest.mark.parametrize("dies_after", range(11))
def test_a_run_that_was_killed_repeats_nothing_and_loses_nothing(
    ways: tuple[Way, Way], tmp_path: Path, dies_after: int
) -> None:
    dates = [DAY + ONE * number for number in range(4)]
    path = tmp_path / "arms.jsonl"
    first, second = Trainer(dies_after), Trainer()
    for trainer in (first, second):
        try:
            run_arms(trainer, dates, *ways, "deepfm", Kept(path))
        except KeyboardInterrupt:
            with path.open("a") as sink:
                sink.write('{"arm": "full", "da')  # it was writing as it was killed
    asked = first.asked + second.asked
    assert len(asked) == len(set(asked)) == 1 + 3 * 3
    assert asked[0] == (FULL, dates[0], None)
    starts = {date: start for arm, date, start in asked if arm == INCREMENTAL}
    assert starts == {
        dates[1]: f"{FULL}-{dates[0]}",
        dates[2]: f"{INCREMENTAL}-{dates[1]}",
        dates[3]: f"{INCREMENTAL}-{dates[2]}",
    }
    assert {start for arm, _, start in asked if arm == NEVER} == {f"{FULL}-{dates[0]}"}
    aucs = aucs_of(Kept(path), INCREMENTAL, "deepfm")
    assert aucs == {arm: [pytest.approx(0.7 - n / 100) for n in (1, 2, 3)] for arm in (FULL, INCREMENTAL, NEVER)}


def test_other_settings_are_another_run(ways: tuple[Way, Way], tmp_path: Path) -> None:
    full, incremental = ways
    dates = [DAY, DAY + ONE]
    kept, changed = Kept(tmp_path / "arms.jsonl"), Way(name=INCREMENTAL, settings=full.settings, train={"seed": 6})
    run_arms(Trainer(), dates, full, incremental, "deepfm", kept)
    again = Trainer()
    run_arms(again, dates, full, changed, "deepfm", kept)
    assert [arm for arm, *_ in again.asked] == [INCREMENTAL]
    assert [one.fingerprint for one in kept.newest(INCREMENTAL, "deepfm")] == [changed.fingerprint]


def test_settings_of_an_arm_reach_as_deep_as_they_are() -> None:
    given = keys_of(["optim.dense.learning_rate=0.001", "optim.clip_norm=null", "seed=3"])
    base = {"optim": {"dense": {"kind": "adam", "learning_rate": 0.002}, "clip_norm": 1.0}, "epochs": 1}
    assert merge(base, given) == {
        "optim": {"dense": {"kind": "adam", "learning_rate": 0.001}, "clip_norm": None},
        "epochs": 1,
        "seed": 3,
    }
