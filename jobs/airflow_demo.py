"""`make airflow-demo`: a real Airflow runs both DAGs to their end, with a task killed on the way.

1. simulate a history of 18 days
2. start Airflow (SQLite, LocalExecutor, loopback)
3. limelight_daily; the process of its task `samples` is killed by SIGKILL, and Airflow tries again
4. its samples update the asset: limelight_incremental runs, waits for its turn, asks the trigger, and does nothing
5. simulate two more days; limelight_incremental finds that it is time, and retrains
6. print runs, tasks, tries and states; stop what was started
"""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from rich.table import Table

from features.errors import ExitCode, ResourceError
from jobs.airflow_api import Airflow
from jobs.console import Steps, console, people_first
from jobs.plan_command import ROOT, schedule_of

HISTORY_DAYS, FIRST_DAY = 18, datetime.date(2025, 3, 1)
IMPRESSIONS = 40_000
KILLED = "samples"
RUN_SECONDS = 1200.0
POLL_SECONDS = 1.0
DAILY, INCREMENTAL = "limelight_daily", "limelight_incremental"
ENDED = ("success", "failed")
WIDE_OPEN = ("detectable_auc_drop=1", "max_auc=1", "max_auc_gain=0.5", "max_calibration_loss=10", "max_logloss_rise=10",
             "max_score_psi=100", "min_pcoc=0.05", "max_pcoc=20", "max_auc_drop=0.5", "max_gauc_drop=0.5")  # fmt: skip
# So few rows prove nothing to the gate, nor do they to the trigger, of which hours alone are left.
OVERRIDES = (
    *("training.models=[deepfm]", "days.train=3", "days.fit=2", "leaves.trees=4", "export.files=2"),
    *("gate.main.min_rows=100", "gate.main.min_auc=0.5", "gate.others.min_positives=1", "gate.others.min_negatives=1"),
    *(f"gate.{group}.{threshold}" for group in ("main", "others") for threshold in WIDE_OPEN),
    *("gate.segments.max_auc_drop=0.5", "gate.segments.max_calibration_loss=10", "gate.rounds=50"),
    *(
        f"trigger.{reason}={{incremental: 9, full: null}}"
        for reason in ("auc_drop", "calibration", "score_psi", "feature_psi", "oov")
    ),
    *("trigger.hours={incremental: 47, full: 240}", "trigger.min_rows=50", "trigger.min_positives=5"),
    *("scheduler.cron=null", "scheduler.retry_minutes=0.1", "scheduler.max_retry_minutes=0.2"),
    "scheduler.wait_minutes=0.25",
)


def run_demo(out: Path) -> int:
    """The demo, into `out`; an earlier one's warehouse and Airflow are replaced.

    Returns:
        0 when all came as it should.

    Raises:
        ResourceError: when Airflow is not installed, or something did not come in time.
    """
    executable = ROOT / ".venv-airflow" / "bin" / "airflow"
    if not executable.exists():
        raise ResourceError("there is no .venv-airflow: `make airflow-demo` makes it")
    steps = Steps()
    for folder in ("warehouse", "truth", "airflow"):
        shutil.rmtree(out / folder, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    warehouse = out.absolute() / "warehouse"
    with steps.step("18 simulated days"):
        ingest(warehouse, out / "truth", 0, HISTORY_DAYS)
    schedule = out.absolute() / "limelight.json"
    schedule.write_text(schedule_of(str(warehouse), "local", OVERRIDES).model_dump_json(indent=1), encoding="utf-8")
    variables = {"LIMELIGHT_SCHEDULE": str(schedule), "PYTHONPATH": str(ROOT / "dags")}
    airflow = Airflow(
        executable=executable, home=out.absolute() / "airflow", dags=ROOT / "dags", variables=variables
    )  # fmt: skip
    with steps.step("airflow db migrate, pool"):
        airflow.run("db", "migrate")
        airflow.run("pools", "set", "limelight", "1", "one retrain of a warehouse at a time")
    with airflow.running():
        console.print(f"  [dim]Airflow answers at {airflow.url}; its logs are in {airflow.home}[/]", soft_wrap=True)
        fine = play(airflow, warehouse, out, steps)
        show_runs(airflow)
    return int(ExitCode.OK if fine else ExitCode.FAILURE)


def play(airflow: Airflow, warehouse: Path, out: Path, steps: Steps) -> bool:
    """Steps 3 to 5; whether every run ended as it should."""
    morning = FIRST_DAY + datetime.timedelta(days=HISTORY_DAYS)
    with steps.step("DAGs are there"):
        wait_for(lambda: len(known_dags(airflow)) == 2, "both DAGs in Airflow", airflow)
    with steps.step(f"{DAILY} {morning}") as step:
        run = airflow.trigger(DAILY, str(morning))
        pid = kill_task(airflow, KILLED)
        console.print(f"  killed the process of {KILLED}: SIGKILL to {pid}")
        states = [wait_for_run(airflow, DAILY, run)]
        step.note = states[0]
    with steps.step(f"{INCREMENTAL}, by the asset") as step:
        wait_for(lambda: len(of_dag(airflow, INCREMENTAL)) == 1, "a run by the asset", airflow)
        states.append(wait_for_run(airflow, INCREMENTAL, of_dag(airflow, INCREMENTAL)[0]["dag_run_id"]))
        step.note = states[-1]
    with steps.step("2 further simulated days"):
        ingest(warehouse, out / "truth", HISTORY_DAYS, HISTORY_DAYS + 2)
    later = morning + datetime.timedelta(days=2)
    with steps.step(f"{INCREMENTAL} {later}") as step:
        states.append(wait_for_run(airflow, INCREMENTAL, airflow.trigger(INCREMENTAL, str(later))))
        step.note = states[-1]
    tries = {task["task_id"]: task["try_number"] for task in airflow.tasks(DAILY, run)}
    return states == ["success"] * 3 and tries[KILLED] > 1


def ingest(warehouse: Path, truth: Path, first: int, end: int) -> None:
    """Simulated days from `first` to before `end`.

    Raises:
        ResourceError: when the command failed; its output is above.
    """
    days = ["--days", str(end)] if first == 0 else ["--from-day", str(first), "--to-day", str(end)]
    command = [
        *(sys.executable, "-m", "jobs.cli", "ingest", "simulate", "-w", str(warehouse), "--truth", str(truth)),
        *("--impressions", str(IMPRESSIONS)),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    if subprocess.run([*command, *days], env=environment, stdout=subprocess.DEVNULL, check=False).returncode != 0:
        raise ResourceError("the simulator failed; its output is above")


def known_dags(airflow: Airflow) -> list[str]:
    """DAGs that are there; an import error is told at once.

    Raises:
        ResourceError: when dags/ cannot be read.
    """
    errors = airflow.ask("/api/v2/importErrors")["import_errors"]
    if errors:
        raise ResourceError(f"Airflow cannot read dags/: {errors[0]['stack_trace']}")
    return [dag["dag_id"] for dag in airflow.ask("/api/v2/dags")["dags"]]


def of_dag(airflow: Airflow, dag: str) -> list[dict[str, Any]]:
    """Runs of one DAG."""
    return [run for run in airflow.runs() if run["dag_id"] == dag]


def kill_task(airflow: Airflow, stage: str) -> int:
    """SIGKILL the driver of a stage's task, once it runs below our Airflow; its pid."""
    found: list[int] = []

    def is_there() -> bool:
        for started in airflow.processes:
            for process in _children(started.pid):
                words = _words(process)
                if words and words[0].endswith("java") and any(word.endswith(f"jobs/{stage}.py") for word in words):
                    found.append(process.pid)
                    return True
        return False

    wait_for(is_there, f"the process of {stage}", airflow)
    os.kill(found[0], signal.SIGKILL)
    return found[0]


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _words(process: psutil.Process) -> Sequence[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return ()


def wait_for_run(airflow: Airflow, dag: str, run: str) -> str:
    """Until a run has ended; its state."""
    state = ""

    def has_ended() -> bool:
        nonlocal state
        state = next(found["state"] for found in of_dag(airflow, dag) if found["dag_run_id"] == run)
        return state in ENDED

    wait_for(has_ended, f"the end of {run}", airflow)
    return state


def wait_for(is_so: Callable[[], bool], what: str, airflow: Airflow) -> None:
    """Look again and again.

    Raises:
        ResourceError: when it does not come.
    """
    deadline = time.monotonic() + RUN_SECONDS
    while not is_so():
        if time.monotonic() > deadline:
            raise ResourceError(f"{what} did not come within {RUN_SECONDS:.0f} s; Airflow's logs are in {airflow.home}")
        time.sleep(POLL_SECONDS)


def show_runs(airflow: Airflow) -> None:
    """Every run with its tasks, their tries, states and seconds."""
    for run in airflow.runs():
        title = f"{run['dag_id']}: {run['dag_run_id']}, {run['state']}"
        table = Table("task", "tries", "state", "began", "seconds", title=title, title_justify="left")
        tasks = airflow.tasks(run["dag_id"], run["dag_run_id"])
        for task in sorted(tasks, key=lambda found: str(found["start_date"] or "9")):
            seconds = "" if task["duration"] is None else f"{task['duration']:.0f}"
            began = _clock(task["start_date"])
            table.add_row(task["task_id"], str(task["try_number"]), task["state"] or "none", began, seconds)
        console.print(table)


def _clock(time_of: str | None) -> str:
    return time_of[11:19] if time_of else ""


def _leave(number: int, _: object) -> None:
    """As by an exception, so that what was started is stopped."""
    sys.exit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when both DAGs ended well and the killed task was tried again, else 1."""
    parser = argparse.ArgumentParser(prog="python -m jobs.airflow_demo", description="Both DAGs on a real Airflow.")
    parser.add_argument("--out", type=Path, default=Path("build/airflow-demo"), help="folder of warehouse and logs")
    signal.signal(signal.SIGTERM, _leave)
    with people_first():
        return run_demo(parser.parse_args(arguments).out)


if __name__ == "__main__":
    sys.exit(main())
