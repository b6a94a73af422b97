"""One fault of every cheap kind on a training, at fixed points; and what the inspection is there to find."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.training_faults import Checkpoint, File, Parquet
from tests.chaos.trainings import Trainings
from training.result import RESULT_FILE

pytestmark = pytest.mark.timeout(600)

KINDS: dict[str, Callable[[Trainings, Path], File | Checkpoint | Parquet]] = {
    "file": lambda trainings, _: File(trainings),
    "checkpoint": Checkpoint,
    "parquet": lambda trainings, _: Parquet(trainings),
}

SEEDS = (1, 2, 3, 4, 6)  # with these, what is killed at a file is not published


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    return Trainings(tmp_path_factory.mktemp("trainings"))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_and_the_end_is_as_ever(trainings: Trainings, kind: str, tmp_path: Path) -> None:
    """Of a training alone: publications are tried by `make chaos`, as an export takes longer than all of this."""
    made = KINDS[kind](trainings, tmp_path)
    trials = (made.trial(random.Random(seed)) for seed in SEEDS)
    found = next(trial for trial in trials if trial is not None)
    assert (found.lost, found.diverged) == ([], []), found


def test_the_inspection_finds_what_is_half_there(trainings: Trainings) -> None:
    trainings.copy()
    run, order = trainings.training().run, trainings.training()
    checkpoint = run / "checkpoints" / "checkpoint.00000000.json"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text('{"files": {')
    (run / RESULT_FILE).write_text("{}")
    (run / "verdict.json").write_text("")
    (run / "published").mkdir()
    seen = trainings.look(order)
    assert [what.split()[0].rstrip(":") for what in seen.partial[:2]] == ["checkpoint.00000000.json", RESULT_FILE]
    assert len(seen.partial) == 4
    assert all(value is None for value in seen.contents.values())
