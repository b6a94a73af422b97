"""Real ranks, one of which fails, is killed or is stopped: the others say so and end, and nothing hangs."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.train import main
from tests.training.launch import LaunchError, run_ranks
from tests.training.trainset_factory import write_trainset
from training.batch import Batch
from training.config import RankTimeouts, TrainConf
from training.ranks import RankLostError, environment, told_of_lost_ranks
from training.step import Learner, StepLosses

LOST_S = 20  # also what one rank may start later than the other
FAULT_STEP = 5
END_S = 500.0  # of both ranks, their start included; 15 to 30 s on idle cores


def test_horovod_is_told_what_conf_says() -> None:
    assert environment(RankTimeouts(lost_seconds=7)) == {"HOROVOD_GLOO_TIMEOUT_SECONDS": "7"}


def test_a_failed_collective_call_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from horovod.common.exceptions import HorovodInternalError

    monkeypatch.setenv("HOROVOD_RANK", "3")
    with (
        pytest.raises(RankLostError, match=r"(?s)rank 3 ends because another rank has ended.*for 60 s.*says: gone$"),
        told_of_lost_ranks(RankTimeouts()),
    ):
        raise HorovodInternalError("gone\nand more")
    with pytest.raises(ZeroDivisionError), told_of_lost_ranks(RankTimeouts()):
        _ = 1 / 0


_FAULTS: dict[str, Callable[[], object]] = {
    "reads a damaged row group": lambda: None,
    "is killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "is stopped": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}


def _train_with_a_fault(trainset_url: str, out: str, fault: str) -> None:
    """A rank of a training; one of `_FAULTS` comes over rank 1 in a step."""
    rank, learn, taken = int(os.environ["HOROVOD_RANK"]), Learner.step, iter(range(10**6))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # horovodrun's, to those that are left: they are to end by themselves

    def failing(self: Learner, batch: Batch, flag: bool = False) -> StepLosses:
        if next(taken) == FAULT_STEP and rank == 1:
            _FAULTS[fault]()
        return learn(self, batch, flag)

    Learner.step = failing  # type: ignore[method-assign]
    conf = TrainConf.of(
        {
            "model": {"name": "deepfm", "embedding_dim": 4},
            "batch_size": 64,
            "threads": 1,
            "device": "cpu",
            "ranks": {"lost_seconds": LOST_S},
            "verify_files": "never",  # what the feed says of damage is what is tested
        }
    )
    Path(out, f"conf-{rank}.json").write_text(conf.model_dump_json())
    sys.exit(main(["--trainset", trainset_url, "--out", f"{out}/run", "--conf", f"{out}/conf-{rank}.json"]))


def _damage(folder: Path, group: int) -> str:
    """Zero the pages of a row group's first columns; the file's name in the manifest."""
    path = folder / "train/part-00000.parquet"
    with pq.ParquetFile(path) as file:
        columns = [file.metadata.row_group(group).column(number) for number in range(6)]
        start = min(column.dictionary_page_offset or column.data_page_offset for column in columns)
        length = sum(column.total_compressed_size for column in columns)
    data = bytearray(path.read_bytes())
    data[start : start + length] = bytes(length)
    path.write_bytes(bytes(data))
    return "train/part-00000.parquet"


@pytest.mark.horovod
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", _FAULTS)
def test_one_rank_fails_and_all_end(tmp_path: Path, fault: str) -> None:
    """The other one ends by itself, and says why."""
    write_trainset(tmp_path, rows=2048, valid_rows=64, gate_rows=64)
    damaged = fault == "reads a damaged row group"
    if damaged:
        name = _damage(tmp_path, group=1)  # of rank 1: row groups are dealt out by their numbers
    with pytest.raises(LaunchError) as caught:
        run_ranks(
            _train_with_a_fault, ranks=2, timeout_s=END_S, trainset_url=str(tmp_path), out=str(tmp_path), fault=fault
        )
    message = str(caught.value)
    assert "2 ranks ended with" in message
    assert f"error: rank 0 ends because another rank has ended, or has not answered for {LOST_S} s" in message
    if damaged:
        assert f"error: {name}, row group 1: unreadable" in message
