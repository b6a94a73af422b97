"""Settings: conf, what the source says, and what one training gets of both."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from features.errors import ConfError
from features.manifest import TrainSet
from jobs.settings import Settings, model_values, train_conf
from pipeline.sources.report import SourceFacts, SourceTasks
from tests.training.trainset_factory import write_trainset

FACTS = SourceFacts(
    source="somewhere",
    zone="Asia/Shanghai",
    tasks=SourceTasks(main="watch", tasks=("watch", "gift"), esmm=("watch", "gift")),
    first_day=datetime.date(2025, 3, 1),
    last_day=datetime.date(2025, 3, 9),
)


@pytest.fixture(scope="module")
def trainset(tmp_path_factory: pytest.TempPathFactory) -> TrainSet:
    return write_trainset(tmp_path_factory.mktemp("trainset"), rows=256, valid_rows=64, gate_rows=64)


@pytest.mark.parametrize("place", ["local", "cluster"])
def test_the_shipped_conf_is_valid_everywhere(place: str) -> None:
    settings = Settings.load(place)
    assert settings.gate is not None
    assert settings.gate.main_task == settings.pipeline.tasks.main == "enter"


def test_the_source_decides_the_tasks_unless_conf_does() -> None:
    followed = Settings.load("local", facts=FACTS)
    assert (followed.pipeline.tasks.main, followed.pipeline.tasks.only) == ("watch", ("watch", "gift"))
    assert followed.gate is not None
    assert followed.gate.main_task == "watch"
    assert Settings.load("local", ["tasks.main=gift"], FACTS).pipeline.tasks.main == "gift"


def test_a_local_warehouse_tracks_beside_itself_and_a_remote_one_asks_for_a_server(tmp_path: Path) -> None:
    settings = Settings.load("local")
    for url in (str(tmp_path), f"file://{tmp_path}"):
        uri, artifacts = settings.tracking(url)
        assert uri == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
        assert artifacts == f"file://{tmp_path}/mlflow/artifacts"
    with pytest.raises(ConfError, match=r"hdfs://lake is not local: name an MLflow server in conf registry.uri"):
        settings.tracking("hdfs://lake")
    named = Settings.load("local", ["registry.uri=http://tracking"])
    assert named.tracking("hdfs://lake") == ("http://tracking", None)


def test_trainings_of_a_remote_warehouse_need_a_folder(tmp_path: Path) -> None:
    settings = Settings.load("local")
    for url in (str(tmp_path), f"file://{tmp_path}"):
        assert settings.runs_folder(url) == tmp_path / "runs"
    with pytest.raises(ConfError, match=r"s3://lake is not local.* name one in conf training.runs"):
        settings.runs_folder("s3://lake")
    named = Settings.load("local", [f"training.runs={tmp_path}"])
    assert named.runs_folder("s3://lake") == tmp_path


def test_a_training_follows_the_main_task_and_the_source_pair(trainset: TrainSet, tmp_path: Path) -> None:
    settings = Settings.load("local", ["training.incremental_epochs=2"], FACTS)
    deepfm = train_conf("deepfm", settings, str(tmp_path), trainset)
    esmm = train_conf("esmm", settings, str(tmp_path), trainset, FACTS.tasks.esmm, incremental=True)
    assert not isinstance(deepfm, str)
    assert not isinstance(esmm, str)
    assert (deepfm.model.conf["task"], deepfm.early_stopping.task) == ("watch", "watch")
    assert (esmm.model.conf["parent"], esmm.model.conf["child"], esmm.epochs) == ("watch", "gift", 2)
    assert deepfm.tracking.uri == settings.tracking(str(tmp_path))[0]


def test_a_model_whose_task_was_left_out_is_not_trained_and_says_why(trainset: TrainSet, tmp_path: Path) -> None:
    without = trainset.model_copy(update={"left_out": {"gift": "3 positives on the gate day"}})
    reason = train_conf("esmm", Settings.load("local"), str(tmp_path), without, ("enter", "gift"))
    assert reason == "esmm needs the task gift, which was left out: 3 positives on the gate day"


def test_an_unknown_model_names_those_there_are() -> None:
    with pytest.raises(ConfError, match=r"no model 'deepfn'; conf/models has autoint, .*deepfm, .*xdeepfm"):
        model_values("deepfn")
