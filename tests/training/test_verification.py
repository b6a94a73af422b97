"""Damaged files are found before the first step, by all ranks, which have read them once between them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from features.errors import DataError
from features.manifest import TrainSet
from tests.training.thread_ranks import ThreadExchange, on_ranks
from tests.training.trainset_factory import write_trainset
from training.config import TrainConf
from training.exchange import SingleExchange
from training.run import train
from training.verification import verify_files


@pytest.fixture
def trainset(tmp_path: Path) -> TrainSet:
    return write_trainset(tmp_path, rows=512, valid_rows=64, gate_rows=64, group_rows=32)


def _flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 8
    path.write_bytes(bytes(content))


def _message(trainset: TrainSet, folder: Path, size: int) -> str:
    """What every rank says."""

    def rank(exchange: ThreadExchange) -> str:
        with pytest.raises(DataError) as caught:
            verify_files(trainset, str(folder), "local", exchange)
        return str(caught.value)

    said = set(on_ranks(size, rank))
    assert len(said) == 1
    return said.pop()


@pytest.mark.parametrize("size", [1, 3])
def test_files_as_they_were_written(
    trainset: TrainSet, tmp_path: Path, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        on_ranks(size, lambda exchange: verify_files(trainset, str(tmp_path), "always", exchange))
    files = [file for split in trainset.splits.values() for file in split.files]
    size_mb = sum((tmp_path / file.path).stat().st_size for file in files) / 1e6
    assert caplog.messages == [f"{len(files)} files, {size_mb:.1f} MB, are the bytes that were written"]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_all_damage_is_told_by_every_rank(trainset: TrainSet, tmp_path: Path, size: int) -> None:
    _flip(tmp_path / "train/part-00001.parquet", 40)
    _flip(tmp_path / "gate/part-00000.parquet", -20)
    (tmp_path / "train/part-00003.parquet").unlink()  # the feed names what is missing
    message = _message(trainset, tmp_path, size)
    assert "not the bytes that were written" in message
    assert "(2)" in message
    assert "train/part-00001.parquet, row group 0" in message
    assert "gate/part-00000.parquet, the footer" in message
    assert "export the train set again" in message


def test_who_does_not_ask_is_not_told(trainset: TrainSet, tmp_path: Path) -> None:
    _flip(tmp_path / "train/part-00001.parquet", 40)
    verify_files(trainset, str(tmp_path), "never", SingleExchange())


def test_a_training_asks(trainset: TrainSet, tmp_path: Path) -> None:
    _flip(tmp_path / "valid/part-00000.parquet", 40)
    conf = TrainConf.of({"model": {"name": "lr"}, "epochs": 1, "batch_size": 64})
    with pytest.raises(DataError, match=r"valid/part-00000\.parquet, row group 0"):
        train(conf, str(tmp_path), str(tmp_path / "run"), show_progress=False)
    assert trainset.splits["valid"].files[0].checksums
