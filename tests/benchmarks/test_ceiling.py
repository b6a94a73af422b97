"""The train set in which only histories tell of a user: what is left of it, and that a model can be built for it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks import ceiling
from features.manifest import TRAINSET_FILE, TrainSet
from tests.training.trainset_factory import write_trainset
from training import models


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ceiling.World:
    root = tmp_path_factory.mktemp("ceiling")
    (root / "trainset").mkdir()
    trainset = write_trainset(root / "trainset", rows=128, valid_rows=32, gate_rows=32)
    nothing = pa.table({"impression_id": pa.array([], pa.int64())})
    return ceiling.World(
        root=root / "models", trainset=trainset, trainset_root=root / "trainset", heat=nothing, truth=nothing
    )


def _inputs(trainset: TrainSet) -> set[str]:
    return {field.name for field in trainset.categorical} | {field.name for field in trainset.dense}


def test_only_histories_tell_of_a_user(world: ceiling.World) -> None:
    found = ceiling.of_histories(world)
    names = _inputs(found.trainset)
    gone = _inputs(world.trainset) - names
    assert "anchor_id" in names
    assert not any(name.startswith("user_") for name in names)
    assert {"user_id"} <= gone
    assert all(name.startswith(("user_", "leaf")) for name in gone)
    assert found.trainset.sequences == world.trainset.sequences


def test_its_manifest_and_files_can_be_read_again(world: ceiling.World) -> None:
    for _ in range(2):  # the second time as a run that goes on
        found = ceiling.of_histories(world)
    text = (found.trainset_root / TRAINSET_FILE).read_text(encoding="utf-8")
    assert TrainSet.model_validate_json(text) == found.trainset
    files = [Path(file.path) for split in found.trainset.splits.values() for file in split.files]
    assert files
    assert all((found.trainset_root / file).is_file() for file in files)


@pytest.mark.parametrize("name", ceiling.HISTORIES)
def test_models_are_built_for_both(world: ceiling.World, name: str) -> None:
    for trainset in (world.trainset, ceiling.of_histories(world).trainset):
        conf = ceiling.settings_of(name, trainset)
        models.build(conf.model.name, trainset, conf.model.conf, conf.seed)
