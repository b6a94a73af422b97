"""Rounds of the trigger on a real warehouse: decided once, carried out once, by one. Retrains are noted, not run."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from features.errors import ConfError, ExitCode, HeldError, LimelightError, NotReadyError, Problem
from jobs.champions import Champions
from jobs.retrain_facts import gather
from jobs.settings import Settings
from jobs.trigger import Outcome, Trigger
from jobs.trigger_table import in_a_line
from pipeline import tables
from pipeline.decision import Record
from pipeline.ledger import Ledger
from tests.jobs.trigger_world import (
    BETWEEN,
    MODEL,
    NEXT_DAY,
    ONE_DAY,
    World,
    commit_samples,
    copy_warehouse,
    make_world,
)
from tests.training.raw_trainset import GATE_DAY
from tests.warehouse_files import manifests

# MLflow 3.17 on SQLAlchemy 2.1; ours is the pairing, theirs the call
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

QUIET_DATE = GATE_DAY + 2 * ONE_DAY
DATE = NEXT_DAY + 2 * ONE_DAY  # two unseen days before the newest that can be mature: hours fire
Doing = Callable[[str, datetime.date, bool], int]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@dataclass
class Rounds:
    """A trigger, the retrains that it asked for, and what it told."""

    world: World
    settings: Settings
    doing: Doing = lambda *_: int(ExitCode.OK)
    retrains: list[tuple[str, datetime.date, bool]] = field(default_factory=list)
    told: list[Outcome] = field(default_factory=list)

    def trigger(self) -> Trigger:
        def retrain(action: str, date: datetime.date, resume: bool) -> int:
            self.retrains.append((action, date, resume))
            return self.doing(action, date, resume)

        world = self.world
        return Trigger(world.warehouse, self.settings, Champions(world.registry), retrain, tell=self.told.append)

    def round(self, date: datetime.date = DATE) -> Outcome:
        return self.trigger().round(date)

    def records(self) -> list[Record]:
        found = manifests(self.world.root).items()
        return [m.decision for name, m in found if name.startswith("decisions/") and m.decision is not None]


@pytest.fixture
def rounds(made: World, tmp_path: Path) -> Rounds:
    """On a warehouse of the test's own, beside the registry of all."""
    copy_warehouse(made, tmp_path)
    world = World(root=tmp_path, folder=made.folder, registry=made.registry)
    return Rounds(world=world, settings=world.settings)


def test_a_quiet_morning_evaluates_decides_and_does_nothing(rounds: Rounds) -> None:
    outcome = rounds.round(QUIET_DATE)
    assert (outcome.record.state, outcome.record.decision.action, outcome.exit_code) == ("finished", "nothing", 0)
    assert [found.day for found in outcome.evaluated.done] == [BETWEEN, GATE_DAY]
    assert rounds.retrains == []
    assert rounds.records() == [outcome.record]
    assert [found.missing for found in outcome.record.decision.findings if found.missing] == []
    again = rounds.round(QUIET_DATE)
    assert (again.made, again.record, again.evaluated.done) == (False, outcome.record, [])
    assert "every reason is quiet" in in_a_line(again)


def test_enough_hours_retrain_once(rounds: Rounds) -> None:
    outcome = rounds.round()
    assert rounds.retrains == [("incremental", DATE, False)]
    assert (outcome.record.state, outcome.record.attempt, outcome.made) == ("finished", 1, True)
    assert [told.record.state for told in rounds.told] == ["decided"]
    assert f"{MODEL} hours 72 > 48" in in_a_line(outcome)
    assert not rounds.round().made
    assert len(rounds.retrains) == 1
    commit_samples(rounds.world.warehouse, NEXT_DAY, seed=3)
    assert rounds.round().made, "other samples are other facts"
    assert len(rounds.retrains) == 2


def test_facts_come_from_manifests_alone(rounds: Rounds) -> None:
    rounds.round(QUIET_DATE)
    champions = Champions(rounds.world.registry).of([MODEL])
    for data in rounds.world.root.glob("*/data"):
        shutil.rmtree(data)
    facts = gather(rounds.world.warehouse, rounds.settings, champions, GATE_DAY)
    (model,) = facts.models
    assert model.champion is not None
    assert model.champion.reference is not None
    assert model.champion.making == model.making
    assert [*facts.samples] == [BETWEEN, GATE_DAY]


def test_conf_that_decides_a_train_set_asks_for_a_full_retrain(rounds: Rounds) -> None:
    rounds.settings = Settings.load("local", [*rounds.world.overrides, "days.train=3"])
    outcome = rounds.round(QUIET_DATE)
    assert [(action, date) for action, date, _ in rounds.retrains] == [("full", QUIET_DATE)]
    assert {found.reason for found in outcome.record.decision.reasons} == {"conf"}


def test_samples_that_the_champion_cannot_read_are_a_missing_fact(rounds: Rounds) -> None:
    commit_samples(rounds.world.warehouse, GATE_DAY, seed=5, without=["room_viewers"])
    outcome = rounds.round(QUIET_DATE)
    assert MODEL in outcome.evaluated.unread
    assert outcome.record.decision.action == "incremental"
    assert all("on its gate day" in str(found.missing) for found in outcome.record.decision.reasons)


def test_a_dry_run_decides_the_same_and_writes_nothing(rounds: Rounds) -> None:
    before = sorted(rounds.world.root.rglob("*"))
    decision, evaluated = rounds.trigger().dry_run(DATE)
    assert sorted(rounds.world.root.rglob("*")) == before
    assert len(evaluated.done) == 3
    assert decision == rounds.round().record.decision


def test_a_gate_that_stops_is_the_end_of_the_decision_and_its_exit_code(rounds: Rounds) -> None:
    rounds.doing = lambda *_: int(ExitCode.GATE_STOPPED)
    outcome = rounds.round()
    assert outcome.exit_code == ExitCode.GATE_STOPPED
    assert (outcome.record.state, outcome.record.why) == ("finished", "the gate stopped a model")
    assert rounds.round().exit_code == ExitCode.OK
    assert len(rounds.retrains) == 1


def fails(*_: object) -> int:
    raise LimelightError("training ended with exit code 1")


def test_a_retrain_that_fails_is_tried_again_and_then_given_up(rounds: Rounds) -> None:
    rounds.doing = fails
    for attempt in (1, 2, 3):
        with pytest.raises(LimelightError, match="exit code 1"):
            rounds.round()
        (record,) = rounds.records()
        assert (record.state, record.attempt) == ("interrupted" if attempt < 3 else "failed", attempt)
    assert [resume for _, _, resume in rounds.retrains] == [False, True, True]
    assert rounds.round().exit_code == ExitCode.FAILURE
    assert len(rounds.retrains) == 3


def test_an_error_that_nobody_foresaw_is_written_down_too(rounds: Rounds) -> None:
    def breaks(*_: object) -> int:
        raise ZeroDivisionError("division by zero")

    rounds.doing = breaks
    with pytest.raises(ZeroDivisionError):
        rounds.round()
    assert [record.why for record in rounds.records()] == ["ZeroDivisionError: division by zero"]


def not_ready(*_: object) -> int:
    raise NotReadyError([Problem(what="the raw day is late", remedy="Wait")])


def test_what_waits_for_input_is_gone_on_with_until_a_later_day_can_be_mature(rounds: Rounds) -> None:
    rounds.doing = not_ready
    for _ in range(5):
        with pytest.raises(NotReadyError):
            rounds.round()
    (record,) = rounds.records()
    assert (record.state, record.attempt) == ("waiting", 0)
    rounds.doing = lambda *_: 0
    commit_samples(rounds.world.warehouse, NEXT_DAY + ONE_DAY)
    assert rounds.round(DATE + ONE_DAY).record.date == DATE + ONE_DAY
    assert sorted(record.state for record in rounds.records()) == ["finished", "superseded"]


def test_what_was_begun_is_ended_as_of_its_own_date_on_the_next_day_and_is_outdated_after_it(rounds: Rounds) -> None:
    rounds.doing = fails
    with pytest.raises(LimelightError):
        rounds.round()
    with pytest.raises(LimelightError):
        rounds.round(DATE + ONE_DAY)
    assert [date for _, date, _ in rounds.retrains] == [DATE, DATE]
    rounds.doing = lambda *_: 0
    rounds.round(DATE + 2 * ONE_DAY)
    assert [date for _, date, _ in rounds.retrains][2:] == [DATE + 2 * ONE_DAY]


def test_a_second_trigger_is_told_who_retrains(rounds: Rounds) -> None:
    def meanwhile(*_: object) -> int:
        with pytest.raises(HeldError, match=r"decisions retrain is held by run trigger-\w+ \(host .*, pid "):
            Rounds(world=rounds.world, settings=rounds.settings).round()
        return 0

    rounds.doing = meanwhile
    assert rounds.round().record.state == "finished"


def test_a_retrain_by_hand_makes_the_decision_wait(rounds: Rounds) -> None:
    def held(*_: object) -> int:
        raise HeldError("retrains of-this-warehouse is held")

    rounds.doing = held
    with pytest.raises(HeldError):
        rounds.round()
    assert [(record.state, record.attempt) for record in rounds.records()] == [("waiting", 0)]


def test_a_run_that_lost_its_lease_cannot_write_over_its_heir(rounds: Rounds) -> None:
    def overtaken(*_: object) -> int:
        heir = Ledger(rounds.world.warehouse)
        record = heir.open()
        assert record is not None
        heir.move(record, "started", attempt=2)
        return 0

    rounds.doing = overtaken
    with pytest.raises(HeldError, match="another run committed generation 3 first"):
        rounds.round()
    assert [record.attempt for record in rounds.records()] == [2]


def test_without_thresholds_nothing_is_decided(rounds: Rounds) -> None:
    rounds.settings = rounds.settings.model_copy(update={"trigger": None})
    with pytest.raises(ConfError, match="no section `trigger`"):
        rounds.trigger()
    assert tables.Warehouse(str(rounds.world.root)).partitions("decisions") == []
