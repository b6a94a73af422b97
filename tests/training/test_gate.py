"""The gate: twins pass, worse ones stop, and everything absent or undefined stops by a named rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.metrics import log_loss, roc_auc_score

from features.errors import ExitCode, GateStoppedError
from training.gate import judge
from training.gate_case import Evidence, Scored
from training.gate_conf import GateConf, SegmentRules, TaskRules
from training.segments import Segments
from training.verdict import Days, Parity, Verdict
from training.verdict_table import explain_text

Floats = NDArray[np.float64]

N, USERS = 6000, 500
MAIN = TaskRules(
    min_rows=1000,
    min_positives=50,
    min_negatives=50,
    detectable_auc_drop=0.1,
    min_auc=0.6,
    max_auc=0.95,
    min_pcoc=0.8,
    max_pcoc=1.25,
    floor_bound="point",
    max_calibration_loss=0.1,
    max_auc_drop=0.01,
    max_gauc_drop=0.02,
    max_logloss_rise=0.02,
    max_auc_gain=0.05,
    max_score_psi=0.25,
    bound="low",
)
OTHERS = MAIN.model_copy(
    update={"min_rows": 200, "min_auc": 0.55, "max_auc_drop": 0.03, "max_gauc_drop": 0.05, "bound": "point"}
)
SEGMENTS = SegmentRules(
    new_keys=("user_id", "anchor_id"),
    heavy_user_share=0.1,
    columns=("category",),
    max_values=20,
    min_rows=100,
    min_users=30,
    min_positives=30,
    min_negatives=30,
    level=0.95,
    max_auc_drop=0.02,
    max_calibration_loss=0.15,
)
CONF = GateConf(
    main_task="enter",
    main=MAIN,
    others=OTHERS,
    segments=SEGMENTS,
    rounds=100,
    seed=11,
    level=0.95,
    min_parity_rows=10_000,
    max_logit_difference=1e-4,
    max_probability_difference=1e-5,
)
PARITY = Parity(
    rows=N,
    rows_with_empty_sequence=10,
    rows_with_oov=10,
    stripped_rows=5,
    single_row_batches=3,
    differing_columns={},
    logit_difference=2e-6,
    probability_difference=3e-7,
)
DAYS = Days(train=("2026-01-07", "2026-01-08"), valid=("2026-01-09",), seen_until="2026-01-09")
OLDER = Days(train=("2026-01-05", "2026-01-06"), valid=("2026-01-07",), seen_until="2026-01-07")


class World:
    """A gate day with two tasks whose true probabilities are known."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.logit = {"enter": rng.normal(size=N) * 1.2 - 1, "gift": rng.normal(size=N) * 1.5 - 1}
        self.rng = rng
        enter = self.draw("enter")
        gift = self.draw("gift") * enter
        self.evidence = Evidence(
            model="deepfm",
            day="2026-01-10",
            labels={"enter": enter, "gift": gift},
            weights={"enter": np.ones(N), "gift": enter},
            group=rng.integers(0, USERS, N),
            segments=Segments(),
            left_out={},
            parity=PARITY,
        )

    def draw(self, task: str) -> Floats:
        positive: NDArray[np.bool_] = self.rng.random(N) < 1 / (1 + np.exp(-self.logit[task]))
        return positive.astype(np.float64)

    def model(self, name: str, *, noise: float = 0.0, days: Days = DAYS) -> Scored:
        """A model that knows the true logit up to `noise` (its own, seeded by its name)."""
        rng = np.random.default_rng(sum(map(ord, name)))
        scores = {t: 1 / (1 + np.exp(-(v + noise * rng.normal(size=N)))) for t, v in self.logit.items()}
        return Scored(name=name, days=days, scores=scores)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def test_an_equal_candidate_passes_by_comparison(world: World) -> None:
    verdict = judge(world.model("candidate"), world.model("champion", days=OLDER), world.evidence, CONF)
    assert (verdict.verdict, verdict.rule) == ("pass", "champion_comparison")
    assert all(task.auc_difference is not None and task.auc_difference.point == 0 for task in verdict.tasks)
    verdict.require_pass()


def test_a_candidate_worse_by_a_margin_is_stopped(world: World) -> None:
    verdict = judge(world.model("candidate", noise=1.0), world.model("champion", days=OLDER), world.evidence, CONF)
    assert (verdict.verdict, verdict.rule) == ("stop", "champion_comparison")
    assert any("enter: AUC differs" in reason for reason in verdict.reasons)
    with pytest.raises(GateStoppedError, match="champion_comparison") as stopped:
        verdict.require_pass()
    assert stopped.value.exit_code == ExitCode.GATE_STOPPED


def test_the_bound_decides_between_proof_of_no_harm_and_proof_of_harm(world: World) -> None:
    """A difference within the noise: not proven harmless at delta 0, and not proven harmful either."""
    candidate, champion = world.model("x", noise=0.2), world.model("y", noise=0.2, days=OLDER)
    verdicts = {}
    for bound in ("low", "high"):
        strict = {"bound": bound, "max_auc_drop": 0.0, "max_gauc_drop": 0.0}
        rules = {"main": MAIN.model_copy(update=strict), "others": OTHERS.model_copy(update=strict)}
        verdicts[bound] = judge(candidate, champion, world.evidence, CONF.model_copy(update=rules)).verdict
    assert verdicts == {"low": "stop", "high": "pass"}


def test_a_worse_secondary_task_stops_a_multi_task_model(world: World) -> None:
    candidate, champion = world.model("candidate"), world.model("champion", days=OLDER)
    noisy = {**candidate.scores, "gift": world.model("noisy", noise=3.0).scores["gift"]}
    verdict = judge(replace(candidate, scores=noisy), champion, world.evidence, CONF)
    assert verdict.verdict == "stop"
    assert all(reason.startswith("gift") for reason in verdict.reasons)


def test_shuffled_labels_are_stopped_by_the_floor(world: World) -> None:
    """Scores that say nothing about the labels; the label rate, and so PCOC, is unchanged."""
    shuffled = {task: np.random.default_rng(1).permutation(y) for task, y in world.evidence.labels.items()}
    evidence = replace(world.evidence, labels=shuffled, weights={task: np.ones(N) for task in shuffled})
    verdict = judge(world.model("candidate"), None, evidence, CONF)
    assert (verdict.verdict, verdict.rule) == ("stop", "floors")
    assert any(reason.startswith("enter: AUC 0.") for reason in verdict.reasons)


def test_a_miscalibrated_candidate_is_stopped(world: World) -> None:
    candidate = world.model("candidate")
    halved = replace(candidate, scores={task: p / 2 for task, p in candidate.scores.items()})
    verdict = judge(halved, None, world.evidence, CONF)
    assert verdict.rule == "floors"
    assert any("enter: PCOC 0." in reason for reason in verdict.reasons)


def test_a_first_publication_passes_by_first_model_and_only_above_the_floors(world: World) -> None:
    assert judge(world.model("candidate"), None, world.evidence, CONF).rule == "first_model"
    higher = CONF.model_copy(update={"main": MAIN.model_copy(update={"min_auc": 0.95})})
    assert judge(world.model("candidate"), None, world.evidence, higher).rule == "floors"


def test_no_thresholds_stop(world: World) -> None:
    verdict = judge(world.model("candidate"), None, world.evidence, None)
    assert (verdict.verdict, verdict.rule) == ("stop", "no_thresholds")


@pytest.mark.parametrize("absent", sorted(GateConf.model_fields))
def test_every_threshold_must_be_written_down(absent: str) -> None:
    with pytest.raises(ValidationError, match=absent):
        GateConf.model_validate({key: value for key, value in CONF.model_dump().items() if key != absent})


@pytest.mark.parametrize("absent", sorted(TaskRules.model_fields))
def test_every_threshold_of_a_task_must_be_written_down(absent: str) -> None:
    with pytest.raises(ValidationError, match=absent):
        TaskRules.model_validate({key: value for key, value in MAIN.model_dump().items() if key != absent})


def test_an_empty_pcoc_range_is_refused() -> None:
    with pytest.raises(ValidationError, match="swap"):
        TaskRules.model_validate({**MAIN.model_dump(), "min_pcoc": 1.3})


@pytest.mark.parametrize(
    ("days", "says"),
    [
        (DAYS.model_copy(update={"seen_until": "2026-01-10"}), "candidate candidate has seen 2026-01-10"),
        (DAYS.model_copy(update={"valid": ("2026-01-08",)}), "not before validation day"),
        (DAYS.model_copy(update={"train": ()}), "no train days"),
    ],
)
def test_a_candidate_that_may_have_seen_the_day_gets_no_verdict(world: World, days: Days, says: str) -> None:
    verdict = judge(world.model("candidate", days=days), None, world.evidence, CONF)
    assert (verdict.verdict, verdict.rule) == ("stop", "no_unseen_day")
    assert says in verdict.reasons[0]


def test_a_champion_that_has_seen_the_day_leaves_no_verdict(world: World) -> None:
    seen = OLDER.model_copy(update={"seen_until": "2026-01-12"})
    verdict = judge(world.model("candidate"), world.model("champion", days=seen), world.evidence, CONF)
    assert verdict.rule == "no_unseen_day"
    assert "champion" in verdict.reasons[0]


def test_no_rows_stop(world: World) -> None:
    none = np.zeros(0)
    evidence = replace(
        world.evidence,
        labels={"enter": none, "gift": none},
        weights={"enter": none, "gift": none},
        group=none.astype(np.int64),
    )
    candidate = replace(world.model("candidate"), scores={"enter": none, "gift": none})
    verdict = judge(candidate, None, evidence, CONF)
    assert (verdict.verdict, verdict.rule) == ("stop", "no_data")


def test_a_fully_masked_main_task_stops(world: World) -> None:
    evidence = replace(world.evidence, weights={**world.evidence.weights, "enter": np.zeros(N)})
    assert judge(world.model("candidate"), None, evidence, CONF).rule == "no_data"


def test_too_few_positives_stop_with_the_count(world: World) -> None:
    rules = OTHERS.model_copy(update={"min_positives": 5000})
    verdict = judge(world.model("candidate"), None, world.evidence, CONF.model_copy(update={"others": rules}))
    assert verdict.rule == "no_data"
    assert "gift" in verdict.reasons[0]
    assert "5,000" in verdict.reasons[0]


def test_a_task_left_out_is_not_judged_but_the_main_one_must_be(world: World) -> None:
    without_gift = replace(world.evidence, left_out={"gift": "12 positives"})
    verdict = judge(world.model("candidate", noise=0.1), None, without_gift, CONF)
    assert verdict.passed
    assert [task.task for task in verdict.tasks] == ["enter"]
    without_main = replace(world.evidence, left_out={"enter": "near-constant"})
    stopped = judge(world.model("candidate"), None, without_main, CONF)
    assert stopped.rule == "no_data"
    assert "near-constant" in stopped.reasons[0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("who", ["candidate", "champion"])
def test_scores_that_are_not_finite_stop(world: World, value: float, who: str) -> None:
    models = {"candidate": world.model("candidate"), "champion": world.model("champion", days=OLDER)}
    spoiled = models[who].scores["enter"].copy()
    spoiled[7] = value
    models[who] = replace(models[who], scores={**models[who].scores, "enter": spoiled})
    verdict = judge(models["candidate"], models["champion"], world.evidence, CONF)
    assert (verdict.verdict, verdict.rule) == ("stop", "not_finite")
    assert f"1 of 6,000 scores of the {who}" in verdict.reasons[0]


@pytest.mark.parametrize(
    "parity",
    [
        None,
        PARITY.model_copy(update={"rows": 100}),
        PARITY.model_copy(update={"single_row_batches": 0}),
        PARITY.model_copy(update={"differing_columns": {"c__leaf_0": 1}}),
        PARITY.model_copy(update={"logit_difference": 2e-4}),
        PARITY.model_copy(update={"probability_difference": 2e-5}),
        PARITY.model_copy(update={"probability_difference": float("nan")}),
    ],
)
def test_without_parity_nothing_is_published(world: World, parity: Parity | None) -> None:
    verdict = judge(world.model("candidate"), None, replace(world.evidence, parity=parity), CONF)
    assert (verdict.verdict, verdict.rule) == ("stop", "parity")


def test_figures_are_scikit_learns(world: World) -> None:
    candidate = world.model("candidate", noise=0.5)
    (enter, gift) = judge(candidate, None, world.evidence, CONF).tasks
    for task in (enter, gift):
        kept = world.evidence.weights[task.task] > 0
        label, score = world.evidence.labels[task.task][kept], candidate.scores[task.task][kept]
        assert task.candidate.auc == pytest.approx(roc_auc_score(label, score), abs=1e-12)
        assert task.candidate.logloss == pytest.approx(log_loss(label, score), abs=1e-12)
        assert task.candidate.pcoc == pytest.approx(score.mean() / label.mean(), abs=1e-12)
        assert (task.rows, task.positives) == (kept.sum(), label.sum())


def test_a_verdict_survives_its_file_and_reads_as_a_table(world: World) -> None:
    verdict = judge(world.model("candidate", noise=1.0), world.model("champion", days=OLDER), world.evidence, CONF)
    assert Verdict.model_validate_json(verdict.model_dump_json(indent=1)) == verdict
    text = explain_text(verdict)
    assert "deepfm: STOP by rule champion_comparison" in text
    assert all(column in text for column in ("AUC", "GAUC", "logloss", "PCOC", "enter", "gift"))
