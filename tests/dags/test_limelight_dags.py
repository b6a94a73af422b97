"""dags/ as Airflow reads it, in Airflow's own environment; skipped where `make airflow-demo` has not made that."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jobs.schedule import Place, Schedule, build_schedule
from jobs.schedule_conf import SchedulerConf
from pipeline.plan import PLAN

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-airflow" / "bin" / "python"
LOOK = Path(__file__).with_name("look_at_dags.py")

pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="Airflow is not installed: `make airflow-demo` makes .venv-airflow"
)


@pytest.fixture(scope="module")
def schedule() -> Schedule:
    nowhere = Place(
        warehouse="/w", python="/bin/python", spark_submit="/bin/spark-submit", root=str(ROOT), properties="p",
        place="local",
    )  # fmt: skip
    return build_schedule(nowhere, SchedulerConf(retries=2), ["deepfm", "esmm"], "Asia/Shanghai")


@pytest.fixture(scope="module")
def seen(schedule: Schedule, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Airflow makes of it, as look_at_dags.py tells."""
    home = tmp_path_factory.mktemp("airflow")
    (home / "limelight.json").write_text(schedule.model_dump_json(), encoding="utf-8")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "LIMELIGHT_SCHEDULE": str(home / "limelight.json"),
        "PYTHONPATH": str(ROOT / "dags"),
    }
    done = subprocess.run([PYTHON, LOOK], env=environment, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_airflow_reads_both_dags_without_an_error(seen: dict[str, Any]) -> None:
    assert seen["errors"] == {}
    assert sorted(seen["dags"]) == ["limelight_daily", "limelight_incremental"]


def test_tasks_and_edges_are_those_of_the_schedule(seen: dict[str, Any], schedule: Schedule) -> None:
    for dag in schedule.dags:
        tasks = seen["dags"][dag.id]["tasks"]
        assert {name: sorted(task["after"]) for name, task in tasks.items()} == {
            task.id: sorted(task.after) for task in dag.tasks
        }
        assert {task["pool"] for task in tasks.values()} == {"limelight"}
        assert {task["retries"] for task in tasks.values()} == {2}
        assert {name: task["seconds"] for name, task in tasks.items()} == {
            task.id: task.timeout_seconds for task in dag.tasks
        }
        assert {entry.name for entry in PLAN} <= {name.split("_")[0] for name in tasks}


def test_the_incremental_dag_waits_for_what_the_daily_one_writes(seen: dict[str, Any]) -> None:
    daily, incremental = seen["dags"]["limelight_daily"], seen["dags"]["limelight_incremental"]
    assert [name for name, task in daily["tasks"].items() if task["outlets"]] == ["samples"]
    assert daily["tasks"]["samples"]["outlets"] == incremental["waits_for"] == ["limelight_samples"]
    assert (daily["deadline_minutes"], incremental["deadline_minutes"]) == (300, 300)


def test_exit_codes_become_what_airflow_understands(seen: dict[str, Any]) -> None:
    assert seen["exit_codes"] == {
        "0": "success",
        "1": "AirflowException",
        "2": "AirflowFailException",
        "3": "AirflowFailException",
        "4": "AirflowFailException",
        "5": "AirflowRescheduleException",
        "6": "AirflowRescheduleException",
        "7": "success",
        "8": "AirflowException",
        "9": "AirflowSkipException",
        "137": "AirflowException",
        "143": "AirflowException",
        "-9": "AirflowException",
    }
    assert seen["waited_for_too_long"] == "AirflowFailException"


def test_a_command_is_filled_in_and_keeps_the_braces_of_conf(seen: dict[str, Any]) -> None:
    assert seen["filled"] == ["--date", "2026-01-19", "--set", "trigger.hours={incremental: 48, full: null}"]


def test_the_morning_of_a_run(seen: dict[str, Any]) -> None:
    assert seen["mornings"] == {"given": "2026-01-05", "by the asset": "2026-01-07", "by cron": "2026-01-02"}
