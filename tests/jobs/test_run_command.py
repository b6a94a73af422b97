"""What a command says of a retrain."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.manifest import TrainSet
from jobs.run_command import growth_note
from tests.training.trainset_factory import write_trainset


@pytest.fixture(scope="module")
def trainset(tmp_path_factory: pytest.TempPathFactory) -> TrainSet:
    folder: Path = tmp_path_factory.mktemp("trainset")
    return write_trainset(folder, rows=64, valid_rows=64, gate_rows=64)


def test_an_incremental_retrain_says_what_was_added_evicted_and_replayed(trainset: TrainSet) -> None:
    assert growth_note({}, trainset) == ("Warm start from the champion: 0 ids added to the vocabularies, 0 evicted.")
    of_users = {v.name: 1200 if v.name == "user_id" else 0 for v in trainset.vocabularies}
    vocabularies = tuple(v.model_copy(update={"evicted": of_users[v.name]}) for v in trainset.vocabularies)
    replayed = {"2026-01-02": 30, "2026-01-01": 1000}
    grown = trainset.model_copy(update={"vocabularies": vocabularies, "replayed": replayed})
    assert growth_note({"user_id": 7, "anchor_id": 3}, grown) == (
        "Warm start from the champion: 10 ids added to the vocabularies (anchor_id 3, user_id 7), "
        "1,200 evicted (user_id 1,200); 1,030 rows of 2026-01-01 to 2026-01-02 replayed."
    )
