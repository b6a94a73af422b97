"""Candidates planted as bad ones, on simulated days and with the shipped thresholds; and an honest twin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.gate_days import PLANTED, GateDay, Planted
from jobs.settings import Settings
from training.gate import judge
from training.gate_case import Evidence, Scored
from training.gate_conf import GateConf
from training.verdict import Verdict
from training.verdict_table import explain_in_full_text


@pytest.fixture(scope="module")
def conf() -> GateConf:
    found = Settings.load("local").gate
    assert found is not None
    return found.model_copy(update={"rounds": 150})


@pytest.fixture(scope="module")
def day() -> GateDay:
    return GateDay.simulate(40_000, 7)


@pytest.fixture(scope="module")
def evidence(day: GateDay) -> Evidence:
    return day.evidence()


@pytest.fixture(scope="module")
def champion(day: GateDay) -> Scored:
    return day.champion(8)


@pytest.fixture(scope="module")
def twin(day: GateDay, champion: Scored, evidence: Evidence, conf: GateConf) -> Verdict:
    return judge(day.candidate(9), champion, evidence, conf)


def test_a_twin_passes(twin: Verdict) -> None:
    assert (twin.verdict, twin.rule, twin.stopped_by) == ("pass", "champion_comparison", ())
    assert all(check.passed for check in twin.checks)


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_each_is_stopped_by_the_rule_meant_for_it(
    planted: Planted, day: GateDay, champion: Scored, evidence: Evidence, conf: GateConf
) -> None:
    verdict = judge(planted.make(day, 9), champion, evidence, conf)
    assert verdict.verdict == "stop"
    assert planted.rule in verdict.stopped_by


def test_a_broken_category_is_named_and_no_other(
    day: GateDay, champion: Scored, evidence: Evidence, conf: GateConf
) -> None:
    """With a lenient rule for the whole day, which a category of some per cent hardly moves, only its segment stops."""
    (broken,) = [one for one in PLANTED if one.rule == "segments"]
    lenient = conf.main.model_copy(update={"max_auc_drop": 0.02, "max_gauc_drop": 0.04, "detectable_auc_drop": 0.1})
    verdict = judge(broken.make(day, 9), champion, evidence, conf.model_copy(update={"main": lenient}))
    assert verdict.rule == "segments"
    stopped = {check.segment for check in verdict.checks if not check.passed}
    assert len(stopped) == 1
    assert stopped.pop() in {f"category=c{number}" for number in range(12)}


def test_a_leak_is_called_one(day: GateDay, champion: Scored, evidence: Evidence, conf: GateConf) -> None:
    (leaked,) = [one for one in PLANTED if one.rule == "leakage_suspected"]
    verdict = judge(leaked.make(day, 9), champion, evidence, conf)
    assert verdict.rule == "leakage_suspected"
    assert "labels may have leaked" in verdict.reasons[0]
    assert "gate.main.max_auc_gain" in verdict.reasons[0]


def test_a_day_that_cannot_tell_harm_from_noise_stops(
    day: GateDay, champion: Scored, evidence: Evidence, conf: GateConf
) -> None:
    strict = conf.model_copy(update={"main": conf.main.model_copy(update={"detectable_auc_drop": 0.002})})
    verdict = judge(day.candidate(9), champion, evidence, strict)
    assert verdict.stopped_by == ("evidence",)
    assert "judge on more rows" in verdict.reasons[0]


def test_scores_that_collapse_are_a_shift(day: GateDay, champion: Scored, evidence: Evidence, conf: GateConf) -> None:
    """The order is kept, so that AUC is; what reads the scores would see other ones."""
    honest = day.candidate(9)
    flat = {task: p.mean() + 1e-3 * (p - p.mean()) for task, p in honest.scores.items()}
    assert "score_shift" in judge(replace(honest, scores=flat), champion, evidence, conf).stopped_by


def test_a_segment_that_is_asked_for_and_absent_stops(
    day: GateDay, champion: Scored, evidence: Evidence, conf: GateConf
) -> None:
    without = replace(evidence, segments=replace(evidence.segments, absent={"tag": "the samples have no such column"}))
    verdict = judge(day.candidate(9), champion, without, conf)
    assert verdict.stopped_by == ("segments",)
    assert "segment tag" in verdict.reasons[0]


def test_intervals_of_segments_hold_together(twin: Verdict, conf: GateConf) -> None:
    """Asking for fewer segments narrows them: Bonferroni's bound over those that are judged."""
    judged = [one for one in twin.segments if one.not_judged is None]
    small = [one for one in twin.segments if one.not_judged is not None]
    assert len(judged) > 10
    assert small
    assert all("of" in (one.not_judged or "") for one in small)
    for one in judged:
        assert one.auc_difference is not None
        assert one.auc_difference.low < one.auc_difference.point < one.auc_difference.high


def test_the_full_table_shows_every_task_segment_and_rule(twin: Verdict) -> None:
    text = explain_in_full_text(twin, width=200)
    assert "simulated: PASS by rule champion_comparison" in text
    for one in twin.segments:
        assert one.segment in text
    for rule in {check.rule for check in twin.checks}:
        assert rule in text
    assert "with 90 % power" in text
    assert np.all([f"{task.rows:,}" in text for task in twin.tasks])


def test_without_a_champion_segments_are_shown_and_not_judged(day: GateDay, evidence: Evidence, conf: GateConf) -> None:
    verdict = judge(day.candidate(9), None, evidence, conf)
    assert verdict.rule == "first_model"
    assert {one.not_judged for one in verdict.segments} == {"no champion"}
