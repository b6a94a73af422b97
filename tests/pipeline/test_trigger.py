"""The decision: each reason alone, what is missing, and what an incremental retrain needs. Values only, no reads."""

from __future__ import annotations

import datetime
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from features.evaluation import Oov
from pipeline.decision import Decision
from pipeline.trigger import MEASURES, decide, key_of
from pipeline.trigger_facts import Champion, Committed, Facts, Limits, Making, TriggerConf
from tests.oracle.stability import stability_index
from tests.pipeline.trigger_facts import CONF, GATE_DAY, MAKING, MATURE, SEEN, champion, evaluation, facts, figures

ONE_DAY = datetime.timedelta(days=1)
LATER = MATURE + 3 * ONE_DAY


def asking(decision: Decision) -> dict[str, str]:
    return {found.reason: found.asks for found in decision.reasons}


def now(**changes: Any) -> Champion:
    """A champion that does otherwise on the newest day."""
    return champion(newest=evaluation(MATURE, **changes))


def made_by(**changes: Any) -> Facts:
    return facts(champion(making=MAKING.model_copy(update=changes)))


MANY_ROWS = {day: Committed(rows=60_000, digest=str(day)) for day in (GATE_DAY, MATURE)}
ALONE = [
    pytest.param("champion", "full", facts(None), id="no champion"),
    pytest.param("catalog", "full", made_by(catalog="features-0"), id="catalog"),
    pytest.param("conf", "full", made_by(trainset="days-0"), id="conf"),
    pytest.param("settings", "full", made_by(model="net-0"), id="settings"),
    pytest.param("new_rows", "incremental", facts(samples=MANY_ROWS), id="rows"),
    pytest.param("hours", "incremental", facts(mature=LATER), id="hours"),
    pytest.param("hours", "full", facts(mature=SEEN + 11 * ONE_DAY), id="many hours"),
    pytest.param("auc_drop", "incremental", facts(now(tasks={"enter": figures(auc=0.715)})), id="auc"),
    pytest.param("auc_drop", "full", facts(now(tasks={"enter": figures(auc=0.60)})), id="auc, by far"),
    pytest.param("calibration", "incremental", facts(now(tasks={"enter": figures(pcoc=1.2)})), id="predicts too much"),
    pytest.param(
        "calibration", "incremental", facts(now(tasks={"enter": figures(pcoc=0.8)})), id="predicts too little"
    ),
    pytest.param("score_psi", "incremental", facts(now(scores={"enter": (0, 2000, 10_000, 8000)})), id="scores"),
    pytest.param("score_psi", "full", facts(now(scores={"enter": (0, 0, 10_000, 10_000)})), id="scores, by far"),
    pytest.param(
        "feature_psi",
        "incremental",
        facts(now(features={"user_watch_ms_7d": (0, 8000, 12_000), "room_viewers": (0, 4000, 16_000)})),
        id="features",
    ),
    pytest.param(
        "oov",
        "incremental",
        facts(now(oov={"user": Oov(values=20_000, oov=2000), "anchor": Oov(values=80_000, oov=8000)})),
        id="oov",
    ),
]


def test_nothing_is_done_when_nothing_is_wrong_and_every_reason_says_so() -> None:
    decision = decide(facts(), CONF)
    assert (decision.action, decision.reasons, decision.notes) == ("nothing", (), ())
    assert [found.reason for found in decision.findings] == ["catalog", "conf", "settings", *MEASURES]
    assert all(found.why for found in decision.findings)
    assert all(found.missing is None for found in decision.findings)


@pytest.mark.parametrize(("reason", "action", "given_facts"), ALONE)
def test_each_reason_fires_alone(reason: str, action: str, given_facts: Facts) -> None:
    decision = decide(given_facts, CONF)
    assert asking(decision) == {reason: action}
    assert decision.action == action


def test_every_reason_is_tested_alone() -> None:
    tested = {str(case.values[0]) for case in ALONE}
    assert tested == {"champion", "catalog", "conf", "settings", *MEASURES}


def test_figures_are_those_of_the_worst() -> None:
    usual, moved = (0, 5000, 10_000, 5000), (0, 2000, 10_000, 8000)
    decision = decide(facts(now(scores={"enter": moved}, tasks={"enter": figures(auc=0.715)})), CONF)
    found = {one.reason: one for one in decision.findings}
    moved_rows, before = ([at for at, n in enumerate(counts) for _ in range(n)] for counts in (moved, usual))
    assert found["score_psi"].figure == pytest.approx(stability_index(moved_rows, before, CONF.empty_share))
    assert found["auc_drop"].figure == pytest.approx(0.015)
    assert found["hours"].figure == 48
    assert found["new_rows"].figure == 20_000
    assert "AUC of enter 0.7150 on 2026-01-11, 0.7300 on its gate day 2026-01-10" in found["auc_drop"].why


def test_a_threshold_that_is_reached_is_not_passed() -> None:
    exactly = facts(samples={GATE_DAY: Committed(rows=50_000, digest="x"), MATURE: Committed(rows=1, digest="y")})
    assert decide(exactly, CONF).action == "nothing"


@given(before=st.floats(0.2, 5), after=st.floats(0.2, 5))
def test_calibration_is_about_distance_from_one_whatever_the_side(before: float, after: float) -> None:
    pair = champion(
        reference=evaluation(tasks={"enter": figures(pcoc=before)}),
        newest=evaluation(MATURE, tasks={"enter": figures(pcoc=after)}),
    )
    (found,) = [one for one in decide(facts(pair), CONF).findings if one.reason == "calibration"]
    distance = {pcoc: max(pcoc, 1 / pcoc) for pcoc in (before, after)}
    assert found.figure == pytest.approx(math.log(distance[after] / distance[before]), abs=1e-9)


MISSING = [
    pytest.param(champion(reference=None), {*MEASURES} - {"new_rows", "hours"}, "on its gate day 2026-01-10"),
    pytest.param(champion(newest=None), {*MEASURES} - {"new_rows", "hours"}, "on the newest labelled day 2026-01-11"),
    pytest.param(now(tasks={}), {"auc_drop", "calibration"}, "figures of the main task enter"),
    pytest.param(now(tasks={"enter": figures(positives=49)}), {"auc_drop", "calibration"}, "50 positives of enter on"),
    pytest.param(now(tasks={"enter": figures(rows=10)}), {"auc_drop", "calibration"}, "1,000 rows of enter on"),
    pytest.param(now(tasks={"enter": figures(auc=None)}), {"auc_drop"}, "a defined AUC of enter on 2026-01-11"),
    pytest.param(now(tasks={"enter": figures(pcoc=None)}), {"calibration"}, "a defined PCOC of enter on 2026-01-11"),
    pytest.param(now(rows=999), {"score_psi", "feature_psi", "oov"}, "1,000 rows on 2026-01-11, which has 999"),
    pytest.param(now(score_edges=(0.5,)), {"score_psi", "feature_psi", "oov"}, "in the same bins"),
    pytest.param(now(scores={}), {"score_psi"}, "histograms of both"),
    pytest.param(now(features={}), {"feature_psi"}, "histograms of both"),
    pytest.param(now(oov={}), {"oov"}, "the OOV share of any vocabulary"),
]


@pytest.mark.parametrize(("model", "reasons", "words"), MISSING)
def test_what_is_missing_asks_for_a_retrain_and_says_what_it_is(model: Champion, reasons: set[str], words: str) -> None:
    decision = decide(facts(model), CONF)
    assert asking(decision) == dict.fromkeys(reasons, "incremental")
    assert decision.action == "incremental"
    assert all(words in str(found.missing) and words in found.why for found in decision.reasons)


def test_a_missing_fingerprint_is_a_changed_one() -> None:
    decision = decide(made_by(trainset=None), CONF)
    assert asking(decision) == {"conf": "full"}
    assert "that the champion was made with is missing" in decision.reasons[0].why


def test_where_only_full_has_a_threshold_a_missing_fact_asks_for_full_and_where_none_has_for_nothing() -> None:
    conf = CONF.model_copy(
        update={"oov": Limits(incremental=None, full=0.5), "score_psi": Limits(incremental=None, full=None)}
    )
    decision = decide(facts(champion(newest=None)), conf)
    assert asking(decision)["oov"] == "full"
    assert "score_psi" not in asking(decision)


def test_the_strongest_reason_of_any_model_decides() -> None:
    worse = now(tasks={"enter": figures(auc=0.60)})
    decision = decide(facts(now(tasks={"enter": figures(auc=0.715)}), worse), CONF)
    assert decision.action == "full"
    assert [(found.model, found.asks) for found in decision.reasons] == [("mmoe", "full"), ("deepfm", "incremental")]


def test_a_model_without_champion_beside_others_is_told_and_starts_nothing() -> None:
    decision = decide(facts(champion(), None), CONF)
    assert decision.action == "nothing"
    (found,) = [one for one in decision.findings if one.model == "mmoe"]
    assert (found.reason, found.missing) == ("champion", "a champion")
    assert "the next full retrain trains it" in found.why


def test_a_newest_day_that_is_not_committed_is_told() -> None:
    committed = {GATE_DAY: Committed(rows=20_000, digest="x")}
    decision = decide(facts(champion(newest=evaluation()), samples=committed), CONF)
    assert decision.action == "nothing"
    assert "samples of 2026-01-11 are not committed: performance and drift are those of 2026-01-10" in decision.notes[0]
    assert decide(facts(None, samples={}), CONF).notes == ()


def test_champions_of_different_train_sets_cannot_go_on_incrementally() -> None:
    other = champion(trainset="incremental-2026-01-11")
    assert decide(facts(champion(), other), CONF).action == "nothing"
    decision = decide(facts(champion(), other, samples=MANY_ROWS), CONF)
    assert decision.action == "full"
    assert "deepfm: full-2026-01-12, mmoe: incremental-2026-01-11" in decision.notes[0]


@pytest.mark.parametrize(
    "tired",
    [
        champion(trained_until=GATE_DAY, seen_until=GATE_DAY, newest=None),
        champion(trained_until=GATE_DAY - 2 * ONE_DAY, seen_until=MATURE, newest=None),
    ],
)
def test_an_incremental_retrain_waits_for_a_day_to_train_on(tired: Champion) -> None:
    decision = decide(facts(tired), CONF)
    assert asking(decision)
    assert decision.action == "nothing"
    assert "waits for a day" in decision.notes[0]


@pytest.mark.parametrize(
    "other",
    [
        facts(mature=LATER),
        facts(champion(digest="another folder")),
        facts(samples=MANY_ROWS),
        facts(now(samples="written anew")),
        made_by(catalog="features-2"),
    ],
)
def test_other_facts_have_another_key(other: Facts) -> None:
    assert key_of(facts(), CONF) == key_of(facts(), CONF)
    assert key_of(other, CONF) != key_of(facts(), CONF)
    assert key_of(facts(), CONF) != key_of(facts(), CONF.model_copy(update={"min_rows": 7}))
    assert key_of(other, CONF).startswith(str(other.mature))


def test_facts_survive_their_json() -> None:
    assert Facts.model_validate_json(facts().model_dump_json()) == facts()


@pytest.mark.parametrize("left_out", sorted(TriggerConf.model_fields))
def test_no_threshold_has_a_default(left_out: str) -> None:
    values = CONF.model_dump()
    del values[left_out]
    with pytest.raises(ValidationError, match=left_out):
        TriggerConf.model_validate(values)
    with pytest.raises(ValidationError, match="full"):
        Limits.model_validate({"incremental": 1.0})


def test_making_is_compared_part_by_part() -> None:
    decision = decide(facts(champion(making=Making(catalog="0", trainset="0", model="0"))), CONF)
    assert asking(decision) == {"catalog": "full", "conf": "full", "settings": "full"}
