"""`jobs/train.py --profile` without a folder: below --out, and printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.launch import training_arguments
from jobs.train import main
from tests.training.trainset_factory import write_trainset
from training.config import TrainConf

CONF = TrainConf.of({"model": {"name": "lr", "task": "enter"}, "batch_size": 64, "epochs": 1, "threads": 1})


@pytest.mark.parametrize("folder", ["", "elsewhere"])
def test_a_profile_is_printed_unless_a_folder_is_named(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_trainset(tmp_path / "trainset", rows=1024, valid_rows=64, gate_rows=64)
    arguments = training_arguments(CONF, str(tmp_path / "trainset"), str(tmp_path / "run"))
    named = [str(tmp_path / folder)] if folder else []
    assert main([*arguments, "--profile", *named]) == 0
    text = (tmp_path / (folder or "run/profile") / "profile.txt").read_text()
    assert (text in capsys.readouterr().out) == (not folder)
    assert (tmp_path / "run" / "profile").exists() == (not folder)
