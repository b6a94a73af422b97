"""What a candidate is judged on: the gate day's samples, whole or named as what cannot be read."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from features.errors import DataError
from features.manifest import TrainSet
from jobs.release import read_gate_samples
from tests.training.raw_trainset import GATE_DAY, RawTrainset, raw_samples, write_raw_trainset


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> RawTrainset:
    return write_raw_trainset(tmp_path_factory.mktemp("trainset"), gate_rows=40)


def test_damaged_samples_are_named_and_so_is_what_to_do(raw: RawTrainset, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("whole.parquet", "cut.parquet", "gone.parquet")]
    for file in files[:2]:
        pq.write_table(raw_samples(20, GATE_DAY, 1), file)
    gate = raw.trainset.splits["gate"]

    def named(*paths: Path) -> TrainSet:
        split = gate.model_copy(update={"sample_files": tuple(map(str, paths))})
        return raw.trainset.model_copy(update={"splits": {**raw.trainset.splits, "gate": split}})

    assert len(read_gate_samples(named(files[0]))) == 20
    files[1].write_bytes(files[1].read_bytes()[:-100])
    with pytest.raises(DataError, match=rf"day={GATE_DAY}.*cannot be read \(2\).*cut\.parquet.*backfill") as caught:
        read_gate_samples(named(*files))
    assert "gone.parquet" in str(caught.value)
    assert "whole.parquet" not in str(caught.value)


def test_a_train_set_without_samples_is_said(raw: RawTrainset) -> None:
    with pytest.raises(DataError, match="names no gate-day samples"):
        read_gate_samples(raw.trainset)
