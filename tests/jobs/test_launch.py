"""Launchers: what a rank is told, and what is said when there is no room for the ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from features.errors import ExitCode, LimelightError, ResourceError
from jobs.launch import SLOTS_TIMEOUT_S, SPARK_START_TIMEOUT_S, launch, run_on_spark, slots, training_arguments
from jobs.settings import TrainingSettings
from jobs.train import parse_arguments
from training.config import TrainConf

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CONF = TrainConf.of({"model": {"name": "deepfm"}, "batch_size": 64})


def test_settings_travel_as_a_file(tmp_path: Path) -> None:
    arguments = training_arguments(CONF, "trainset", str(tmp_path), resume=True, init_from="earlier", profile="there")
    options = parse_arguments(arguments)
    assert options.profile == "there"
    assert (options.trainset, options.out, options.resume, options.init_from) == (
        "trainset",
        str(tmp_path),
        True,
        "earlier",
    )
    assert TrainConf.of(json.loads(Path(options.conf).read_text())) == CONF


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(TrainingSettings(launcher="alone"), id="alone"),
        pytest.param(TrainingSettings(launcher="horovodrun", ranks=2), id="horovodrun", marks=pytest.mark.horovod),
    ],
)
def test_a_failing_rank_is_an_error_with_its_exit_code(tmp_path: Path, settings: TrainingSettings) -> None:
    arguments = training_arguments(CONF, str(tmp_path / "none"), str(tmp_path / "run"))
    with pytest.raises(LimelightError, match=f"training ended with exit code {int(ExitCode.BAD_DATA)}") as caught:
        launch(settings, arguments)
    assert caught.value.exit_code is ExitCode.BAD_DATA
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["train_conf.json"]


def test_more_ranks_than_slots_is_told_with_both_numbers(spark: SparkSession) -> None:
    assert slots(spark) == 2
    with pytest.raises(ResourceError, match=r"3 ranks want 3 Spark slots and 2 are free after 0 s: ask for more"):
        run_on_spark(3, [], slots_timeout_s=0)
    assert SLOTS_TIMEOUT_S + SPARK_START_TIMEOUT_S <= 60
