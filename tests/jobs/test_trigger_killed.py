"""A trigger that is killed, and two at once: real processes, ended by SIGKILL at every file that a round creates."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from features.errors import ExitCode
from pipeline import leases
from pipeline.ledger import Ledger
from pipeline.tables import Warehouse
from tests.jobs.trigger_process import CREATED_FILE, RETRAINS_FILE, Order, new_barrier, started
from tests.jobs.trigger_world import MODEL, NEXT_DAY, ONE_DAY, OVERRIDES, World, copy_warehouse, make_world
from tests.warehouse_files import manifests

# MLflow 3.17 on SQLAlchemy 2.1; ours is the pairing, theirs the call
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
    pytest.mark.skipif(leases.machine() is None, reason="needs /proc to know that a process is gone"),
]

DATE = NEXT_DAY + 2 * ONE_DAY
RETRAIN = f"incremental {DATE}"
ROUND = [  # the files that a round creates exclusively, in order; the retrain comes before the last two
    "decisions/leases/retrain/lease.000001",
    *(
        f"evaluations_{MODEL}/{file}"
        for day in (9, 10, 11)
        for file in (
            f"leases/dt=2026-01-{day:02}/lease.000001",
            f"manifests/dt=2026-01-{day:02}/manifest.000001",
            f"leases/dt=2026-01-{day:02}/released.000001",
        )
    ),
    "decisions/manifests/KEY/manifest.000001",
    "decisions/manifests/KEY/manifest.000002",
    "decisions/manifests/KEY/manifest.000003",
    "decisions/leases/retrain/released.000001",
]
DECIDED, STARTED, FINISHED = 11, 12, 13


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def order(made: World, tmp_path: Path) -> Order:
    """A round in a warehouse of the test's own."""
    copy_warehouse(made, tmp_path)
    return Order(warehouse=str(tmp_path), folder=str(made.folder), overrides=OVERRIDES, date=DATE)


def retrains(order: Order) -> list[str]:
    path = Path(order.warehouse) / RETRAINS_FILE
    return path.read_text().splitlines() if path.exists() else []


def states(order: Order) -> list[tuple[str, int]]:
    found = manifests(Path(order.warehouse)).items()
    return [(m.decision.state, m.decision.attempt) for name, m in found if m.decision and name.startswith("decisions/")]


def killed(order: Order) -> None:
    process = started(order)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def rerun(order: Order) -> None:
    process = started(replace(order, step=None, in_retrain=False))
    process.join()
    assert process.exitcode == 0


def test_a_round_creates_these_files(order: Order) -> None:
    rerun(order)
    created = (Path(order.warehouse) / CREATED_FILE).read_text().splitlines()
    named = ["/".join("KEY" if part.startswith("key=") else part for part in name.split("/")) for name in created]
    assert named == ROUND
    assert (retrains(order), states(order)) == ([RETRAIN], [("finished", 1)])


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", range(1, len(ROUND) + 1))
def test_killed_at_any_file_a_plain_rerun_completes_and_decides_once(
    order: Order, step: int, moment: Literal["before", "after"]
) -> None:
    killed(replace(order, step=step, moment=moment))
    before = states(order)
    rerun(order)
    assert len(states(order)) == 1, "one key, one decision"
    assert states(order)[0][0] == "finished"
    evaluated = [m for name, m in manifests(Path(order.warehouse)).items() if name.startswith("evaluations_")]
    assert [m.generation for m in evaluated] == [1, 1, 1]
    # Ended, but not written down as ended: this alone is done once more.
    unwritten = (step, moment) == (FINISHED, "before")
    assert retrains(order) == [RETRAIN] * (2 if unwritten else 1)
    decided = step > DECIDED or (step, moment) == (DECIDED, "after")
    assert bool(before) == decided
    rerun(order)
    assert len(retrains(order)) == (2 if unwritten else 1), "what is finished is not repeated"


def test_killed_between_deciding_and_starting_the_decision_stands_and_is_carried_out(order: Order) -> None:
    killed(replace(order, step=DECIDED, moment="after"))
    record = Ledger(Warehouse(order.warehouse)).open()
    assert record is not None
    assert (record.state, record.decision.action, retrains(order)) == ("decided", "incremental", [])
    rerun(replace(order, overrides=(*OVERRIDES, "trigger.hours={incremental: 500, full: null}")))
    assert retrains(order) == [RETRAIN], "thresholds of later are not asked"
    carried = Ledger(Warehouse(order.warehouse)).of_key(record.decision.key)
    assert carried is not None
    assert carried.decision == record.decision


def test_a_retrain_that_is_killed_again_and_again_is_given_up(order: Order) -> None:
    for attempt in (1, 2, 3):
        killed(replace(order, in_retrain=True))
        assert states(order) == [("started", attempt)]
    rerun(order)
    assert states(order) == [("failed", 3)]
    assert len(retrains(order)) == 3


def test_while_one_holds_the_lease_another_process_is_refused(order: Order) -> None:
    with Ledger(Warehouse(order.warehouse)).lease("somebody"):
        process = started(order)
        process.join()
    assert process.exitcode == ExitCode.HELD_BY_ANOTHER_RUN
    assert (retrains(order), states(order)) == ([], [])
    rerun(order)
    assert retrains(order) == [RETRAIN]


def test_two_triggers_at_once_retrain_once(order: Order) -> None:
    barrier = new_barrier(2)
    both = [started(order, barrier) for _ in range(2)]
    for process in both:
        process.join()
    codes = sorted(process.exitcode or 0 for process in both)
    assert codes in ([0, 0], [0, ExitCode.HELD_BY_ANOTHER_RUN]), "the second is refused, or finds it done"
    assert (retrains(order), states(order)) == ([RETRAIN], [("finished", 1)])
