"""The stage `evaluate` on a real warehouse, registry and graph: what is new, once, and again when something changed."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pytest

from features.errors import DataError, ExitCode
from features.evaluation import Evaluation
from jobs import evaluate
from jobs.champions import Champions
from jobs.console import Steps
from jobs.evaluate import Evaluated, evaluate_new, require_read
from pipeline.evaluations import InUse, read_evaluation, standing_evaluation
from pipeline.trigger_facts import Committed
from tests.jobs.trigger_world import (
    BETWEEN,
    MODEL,
    NEXT_DAY,
    ONE_DAY,
    ROWS,
    World,
    commit_samples,
    copy_warehouse,
    make_world,
)
from tests.training.raw_trainset import GATE_DAY, TRAIN_DAY
from tests.warehouse_files import manifests
from training.champion_day import Subject, evaluate_day
from training.scorer import Scorer

# MLflow 3.17 on SQLAlchemy 2.1; ours is the pairing, theirs the call
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

TABLE = f"evaluations_{MODEL}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    """A warehouse of the test's own beside the registry of all."""
    copy_warehouse(made, tmp_path)
    return World(root=tmp_path, folder=made.folder, registry=made.registry)


def look(world: World, until: datetime.date = NEXT_DAY) -> Evaluated:
    champions = Champions(world.registry).of([MODEL, "never_published"])
    assert champions["never_published"] is None
    return evaluate_new(world.warehouse, champions, until, Steps())


def days(evaluated: Evaluated) -> list[datetime.date]:
    return [found.day for found in evaluated.done]


def test_every_unseen_day_is_evaluated_once(world: World) -> None:
    first = look(world, GATE_DAY)
    assert days(first) == [BETWEEN, GATE_DAY]
    assert days(look(world)) == [NEXT_DAY]
    assert days(look(world)) == []
    found = manifests(world.root)[f"{TABLE}/dt={GATE_DAY}"]
    assert found.evaluation == first.done[1]
    assert (found.files, found.counts, found.generation) == ((), {"evaluated": ROWS}, 1)
    assert found.inputs == {f"samples/dt={GATE_DAY}": manifests(world.root)[f"samples/dt={GATE_DAY}"].digest}
    assert first.done[1].tasks["enter"].auc is not None


def test_samples_that_changed_and_a_new_champion_are_evaluated_again(world: World) -> None:
    look(world)
    commit_samples(world.warehouse, NEXT_DAY, seed=7)
    again = look(world)
    assert days(again) == [NEXT_DAY]
    version = world.publish()
    later = look(world)
    assert days(later) == [BETWEEN, GATE_DAY, NEXT_DAY]
    assert {found.version for found in later.done} == {version} != {found.version for found in again.done}


def test_a_day_that_was_cut_in_other_bins_is_evaluated_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    look(world)
    monkeypatch.setattr("pipeline.evaluations.SCORE_EDGES", (0.5,))
    assert days(look(world)) == [BETWEEN, GATE_DAY, NEXT_DAY]


def test_a_crash_leaves_the_days_before(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = evaluate_day

    def crash(scorer: Scorer, batches: Iterable[pa.Table], subject: Subject) -> Evaluation:
        if subject.day == GATE_DAY:
            raise KeyboardInterrupt
        return real(scorer, batches, subject)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "evaluate_day", crash)
        with pytest.raises(KeyboardInterrupt):
            look(world)
    assert [name for name in manifests(world.root) if name.startswith(TABLE)] == [f"{TABLE}/dt={BETWEEN}"]
    assert days(look(world)) == [GATE_DAY, NEXT_DAY]


def test_samples_that_lack_what_a_champion_reads_are_told_and_leave_other_days_alone(world: World) -> None:
    commit_samples(world.warehouse, NEXT_DAY, seed=8, without=["room_viewers", "label_enter"])
    evaluated = look(world)
    assert days(evaluated) == [BETWEEN, GATE_DAY]
    assert (
        f"samples of {NEXT_DAY} lack 2 columns that it reads, e.g. label_enter, room_viewers" in evaluated.unread[MODEL]
    )
    with pytest.raises(DataError, match=r"champion of deepfm cannot be evaluated: .*limelight daily"):
        require_read(evaluated)
    require_read(Evaluated())


def test_what_is_read_is_of_the_version_and_the_samples_as_they_are(world: World) -> None:
    look(world)
    published = Champions(world.registry).of([MODEL])[MODEL]
    assert published is not None
    assert (published.trained_until, published.gate_day, published.in_use.seen_until) == (
        TRAIN_DAY,
        GATE_DAY,
        TRAIN_DAY,
    )
    champion = published.in_use
    other = InUse(model=MODEL, version="99", digest=champion.digest, seen_until=TRAIN_DAY)
    assert read_evaluation(world.warehouse, other, GATE_DAY) is None
    assert read_evaluation(world.warehouse, champion, NEXT_DAY + ONE_DAY) is None
    assert standing_evaluation(world.warehouse, champion, GATE_DAY, {}) is not None
    written_since = {GATE_DAY: Committed(rows=ROWS, digest="written since")}
    assert standing_evaluation(world.warehouse, champion, GATE_DAY, written_since) is None


def test_the_door_does_the_same_without_spark(made: World, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--warehouse", str(made.root), "--place", "local", "--date", str(NEXT_DAY + 2 * ONE_DAY)]
    arguments += ["--set", f"training.models=[{MODEL}]"]
    assert evaluate.main(arguments) == ExitCode.OK
    assert f"evaluate {MODEL}" in capsys.readouterr().out
    assert manifests(made.root)[f"{TABLE}/dt={NEXT_DAY}"].evaluation is not None
    assert evaluate.main(arguments) == ExitCode.OK
    assert "evaluate" not in capsys.readouterr().out
