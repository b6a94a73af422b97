"""What a feed says of files, columns and threads that fail it, and that it ends."""

from __future__ import annotations

import os
import pickle
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from petastorm.etl.dataset_metadata import UNISCHEMA_KEY
from petastorm.workers_pool.ventilator import ConcurrentVentilator

from features.errors import DataError, LimelightError
from features.manifest import DataFile
from tests.training.feeds import Exported, feed_of, write_unequal
from tests.training.trainset_factory import Sizes, write_trainset
from training import block_reader
from training.block_reader import BlockWorker


@pytest.fixture(scope="module")
def trainset(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return write_unequal(tmp_path_factory.mktemp("trainset"))


@pytest.fixture
def broken(tmp_path: Path) -> Exported:
    """A train set of its own, to be harmed."""
    return write_trainset(tmp_path, rows=256, group_rows=16, files=4, sizes=Sizes(watched=3)), tmp_path


def _rewrite(path: Path, change: Any) -> None:
    """Replace a file's columns, keeping its row groups."""
    with pq.ParquetFile(path) as file:
        groups = [file.read_row_group(i) for i in range(file.num_row_groups)]
    with pq.ParquetWriter(path, change(groups[0]).schema) as writer:
        for group in groups:
            writer.write_table(change(group))


def _error(trainset: Exported) -> str:
    before = set(threading.enumerate())
    with pytest.raises(DataError) as caught:
        list(feed_of(trainset, batch_size=16).epoch(0))
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
    assert set(threading.enumerate()) <= before
    return str(caught.value)


def test_missing_and_unreadable_files_are_named_together(broken: Exported) -> None:
    (broken[1] / "train/part-00001.parquet").unlink()
    (broken[1] / "train/part-00003.parquet").unlink()
    (broken[1] / "train/part-00002.parquet").write_bytes(b"PAR1 no parquet PAR1")
    message = _error(broken)
    assert "files missing" in message
    assert "(2); e.g. train/part-00001.parquet, train/part-00003.parquet" in message
    assert "files unreadable" in message
    assert "train/part-00002.parquet" in message
    assert "export the train set again" in message


def test_other_row_groups_than_the_manifest_lists(broken: Exported) -> None:
    path = broken[1] / "train/part-00001.parquet"
    pq.write_table(pq.read_table(path), path, row_group_size=32)
    assert "train/part-00001.parquet (2 row groups of 64 rows, not 4 of 64)" in _error(broken)


def test_a_row_group_of_another_size_than_the_manifest_says(broken: Exported) -> None:
    path = broken[1] / "train/part-00002.parquet"
    _rewrite(path, lambda group: group.slice(0, 15))
    assert "train/part-00002.parquet, row group" in (message := _error(broken))
    assert "15 rows, the manifest says 16" in message


def test_a_truncated_file_is_named_with_its_row_groups(broken: Exported) -> None:
    path = broken[1] / "train/part-00002.parquet"
    path.write_bytes(path.read_bytes()[:-300])
    message = _error(broken)
    assert "files unreadable" in message
    assert "train/part-00002.parquet, row groups 0 to 3 (" in message


def test_a_file_that_is_cut_off_while_it_is_read(tmp_path: Path) -> None:
    described = write_trainset(tmp_path, rows=1024, group_rows=16)
    batches = feed_of((described, tmp_path), batch_size=16, row_groups=16).epoch(0)
    next(batches)
    for path in (tmp_path / "train").iterdir():
        os.truncate(path, 1000)
    with pytest.raises(DataError, match=r"train/part-0000\d.parquet, row group \d: unreadable"):
        list(batches)


@pytest.mark.parametrize("error", [MemoryError("no room"), KeyError("x")])
def test_any_other_error_of_a_reader_says_where_it_was(
    broken: Exported, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(block_reader, "pack", fail)
    with pytest.raises(type(error)) as caught:
        next(feed_of(broken).epoch(0))
    assert any("while reading train/part-0000" in note for note in caught.value.__notes__)


def _die(*_: Any, **__: Any) -> None:
    raise SystemExit("a thread ends without a word")


_DIES = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@_DIES
@pytest.mark.parametrize("threads", [1, 3])
def test_a_reader_thread_that_dies_ends_the_feed(
    trainset: Exported, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    before = set(threading.enumerate())
    process = BlockWorker.process

    def dying(self: BlockWorker, piece_index: int, **ventilated: Any) -> None:
        _die() if piece_index == 40 else process(self, piece_index, **ventilated)

    monkeypatch.setattr(BlockWorker, "process", dying)
    with pytest.raises(LimelightError, match=f"of {threads} that read has died"):
        list(feed_of(trainset, threads=threads).epoch(0))
    assert set(threading.enumerate()) <= before


@_DIES
def test_the_thread_that_hands_out_may_die_too(trainset: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ConcurrentVentilator, "_ventilate", _die)
    with pytest.raises(LimelightError, match="the thread that hands row groups out has died"):
        list(feed_of(trainset).epoch(0))


def test_data_pages_that_are_damaged(broken: Exported) -> None:
    path = broken[1] / "train/part-00000.parquet"
    data = bytearray(path.read_bytes())
    data[4:200] = bytes(196)
    path.write_bytes(bytes(data))
    message = _error(broken)
    assert "train/part-00000.parquet, row group 0: unreadable" in message


def _without_two(group: pa.Table) -> pa.Table:
    return group.drop_columns(["d__heat", "y__gift"])


def _with_null(group: pa.Table) -> pa.Table:
    return group.set_column(0, "row_id", pa.array([None, *range(15)], pa.int64()))


def _as_float64(group: pa.Table) -> pa.Table:
    place = group.column_names.index("d__heat")
    return group.set_column(place, "d__heat", group.column("d__heat").cast(pa.float64()))


def _with_short_lists(group: pa.Table) -> pa.Table:
    place = group.column_names.index("s__watched__age")
    return group.set_column(place, "s__watched__age", pa.array([[1, 2, 3]] * 13 + [[1]] * 3, pa.list_(pa.int32())))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_without_two, "columns missing (2); e.g. d__heat, y__gift"),
        (_with_null, "column=row_id: train/part-00000.parquet, row group"),
        (_as_float64, "type double, expected float"),
        (_with_short_lists, "lists not of length 3 (3); e.g. 1"),
    ],
)
def test_columns_that_break_the_contract(broken: Exported, change: Any, expected: str) -> None:
    for number in range(4):
        _rewrite(broken[1] / f"train/part-{number:05d}.parquet", change)
    assert expected in _error(broken)


class _Payload:
    """What runs when it is unpickled: by builtins, which Petastorm's own unpickler lets through."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, (self.code,)


def test_a_folder_in_place_of_a_file_is_not_asked_for_petastorms_pickled_schema(broken: Exported) -> None:
    """Petastorm reads one from `_common_metadata`, where it is given a folder of Parquet files."""
    trainset, root = broken
    proof = root / "was run"
    payload = pickle.dumps(_Payload(f"open({str(proof)!r}, 'w').close()"))
    schema = pq.read_schema(root / "train/part-00000.parquet").with_metadata({UNISCHEMA_KEY: payload})
    pq.write_metadata(schema, root / "train/_common_metadata")
    train = trainset.splits["train"]
    groups = tuple(rows for file in train.files for rows in file.row_groups)
    folder = train.model_copy(update={"files": (DataFile(path="train", row_groups=groups),)})
    planted = trainset.model_copy(update={"splits": {**trainset.splits, "train": folder}})
    assert "files missing" in _error((planted, root))
    assert not proof.exists()
