"""The scripts of the stages on a real Spark standalone cluster: the content of local[2]; ranks on executors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from features.errors import ExitCode
from tests.e2e.conftest import WORKERS
from tests.e2e.standalone_cluster import Cluster, shown
from tests.small_world import SAMPLE_DAYS, TILE_DAYS, digests, raw_copy
from tests.training.trainset_factory import write_trainset

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

SMALL_TRAINING = {
    "model": {"name": "deepfm", "embedding_dim": 4, "hidden": [8]},
    "batch_size": 128,
    "evaluation_batch_size": 256,
    "epochs": 1,
    "threads": 1,
}


def test_stages_submitted_to_a_cluster_write_what_local_runs_write(
    cluster: Cluster, archive: Path, world: Path, tmp_path: Path
) -> None:
    warehouse = raw_copy(world, tmp_path / "warehouse")
    stages = {"tiles": TILE_DAYS, **dict.fromkeys(("profiles", "recent", "samples"), SAMPLE_DAYS)}
    for stage, days in stages.items():
        arguments = ["--warehouse", f"file://{warehouse}", "--from", str(days[0]), "--to", str(days[-1])]
        done = cluster.submit(f"jobs/{stage}.py", arguments, py_files=archive)
        assert done.returncode == 0, shown(done)
    assert digests(warehouse) == digests(world)


def test_an_error_of_a_submitted_stage_is_its_exit_code(cluster: Cluster, archive: Path, tmp_path: Path) -> None:
    arguments = ["--warehouse", str(tmp_path), "--from", "2025-03-01", "--to", "2025-03-01"]
    done = cluster.submit("jobs/tiles.py", arguments, py_files=archive)
    assert done.returncode == ExitCode.BAD_DATA, shown(done)
    assert "holds no raw day" in done.stdout, "spark-submit merges what the script says"


@pytest.mark.horovod
def test_ranks_run_on_executors(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "trainset").mkdir()
    write_trainset(tmp_path / "trainset", rows=1024, valid_rows=300, gate_rows=301)
    (tmp_path / "conf.json").write_text(json.dumps(SMALL_TRAINING), encoding="utf-8")
    arguments = ["--launcher", "spark", "--ranks", str(WORKERS), "--trainset", str(tmp_path / "trainset")]
    arguments += ["--out", str(tmp_path / "run"), "--conf", str(tmp_path / "conf.json")]
    done = cluster.submit("jobs/train.py", arguments)
    assert done.returncode == 0, shown(done)
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert (result["world_size"], result["steps"]) == (WORKERS, 8)
    assert 0.5 < result["metrics"]["gate"]["enter"]["auc"] <= 1
