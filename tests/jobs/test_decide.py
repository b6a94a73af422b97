"""A scheduled retrain in steps: who has the turn between them, and what the ledger says of its decision."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from features.errors import ExitCode, HeldError
from jobs import close, decide
from jobs.close import close_step
from jobs.decide import decide_step
from jobs.turn import turn, turn_of_run
from pipeline.ledger import Ledger
from tests.jobs.trigger_world import NEXT_DAY, ONE_DAY, World, make_world, own_world
from tests.training.raw_trainset import GATE_DAY

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

QUIET, DUE = GATE_DAY + 2 * ONE_DAY, NEXT_DAY + 2 * ONE_DAY
RUN, OTHER = "limelight_incremental run 1", "limelight_daily run 2"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    return own_world(made, tmp_path)


def decided(world: World, date: datetime.date, holder: str = RUN) -> tuple[str, datetime.date] | None:
    return decide_step(str(world.root), date, holder, "local", world.overrides)


def closed(world: World, holder: str = RUN, *, decision: bool = True, failed: bool = False) -> str:
    return close_step(str(world.root), holder, "local", world.overrides, decision=decision, failed=failed)


def state(world: World) -> str | None:
    record = Ledger(world.warehouse).open()
    return record.state if record is not None else None


def test_a_quiet_morning_keeps_nothing(world: World) -> None:
    assert decided(world, QUIET) is None
    with turn(world.warehouse), Ledger(world.warehouse).lease("anybody"):
        pass


def test_a_decision_keeps_the_turn_until_it_is_closed(world: World) -> None:
    assert decided(world, DUE) == ("incremental", DUE)
    assert state(world) == "started"
    with pytest.raises(HeldError, match=f"retrains of-this-warehouse is kept for run {RUN}"), turn(world.warehouse):
        pass
    with pytest.raises(HeldError, match="kept for run"):
        decided(world, DUE, OTHER)
    with turn_of_run(str(world.root), RUN, "local", world.overrides):  # a step of the run itself
        pass
    assert closed(world) == f"incremental of {DUE} is finished: its steps ended; the verdicts say what was published"
    assert state(world) is None
    with turn(world.warehouse), Ledger(world.warehouse).lease("anybody"):
        pass
    assert decided(world, DUE) is None, "the same facts are not decided again"


def test_a_killed_decision_is_gone_on_with_by_its_retry(world: World) -> None:
    assert decided(world, DUE) == ("incremental", DUE)
    assert decided(world, DUE) == ("incremental", DUE)
    record = Ledger(world.warehouse).open()
    assert record is not None
    assert record.attempt == 2


def test_a_retrain_that_fails_is_begun_again_until_its_attempts_are_used_up(world: World) -> None:
    for attempt, after in ((1, "interrupted"), (2, "interrupted"), (3, "failed")):
        assert decided(world, DUE) == ("incremental", DUE), attempt
        assert f"is {after}" in closed(world, failed=True)
    assert decided(world, DUE) is None


def test_a_retrain_that_nobody_decided_gives_its_turn_back(world: World) -> None:
    with turn_of_run(str(world.root), OTHER, "local", ()):
        pass
    with pytest.raises(HeldError, match=f"kept for run {OTHER}"):
        closed(world)
    assert closed(world, OTHER, decision=False) == "the turn to retrain is given back"
    with turn(world.warehouse):
        pass


def test_the_doors_end_with_exit_codes_that_a_scheduler_knows(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [part for value in world.overrides for part in ("--set", value)]
    common = ["--warehouse", str(world.root), "--place", "local", *overrides, "--holder", RUN]
    assert decide.main([*common, "--date", str(QUIET)]) == ExitCode.SKIPPED
    capsys.readouterr()
    assert decide.main([*common, "--date", str(DUE)]) == ExitCode.OK
    assert capsys.readouterr().out.splitlines()[-1] == f"incremental {DUE}"
    assert close.main([*common, "--decision", "--failed"]) == ExitCode.OK
    assert "is interrupted" in capsys.readouterr().out
