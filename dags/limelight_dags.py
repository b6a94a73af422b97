"""limelight_daily and limelight_incremental for Airflow 3.3, as `limelight plan --json` wrote them.

Airflow reads this file; it needs nothing of Limelight but that JSON: $LIMELIGHT_SCHEDULE, or limelight.json beside it.
docs/airflow.md says how to deploy it.
"""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from airflow.sdk import DAG, Asset, CronTriggerTimetable, Param
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference, SyncCallback

from limelight_task import CloseTask, LimelightTask, tell_deadline

UNDERSTOOD = 1  # version of the JSON
DECIDE = "decide"  # the task whose output says which retrain of which morning is run
FIRST_MORNING = datetime.datetime(2024, 1, 1)  # of a backfill; nothing is caught up by itself


def read_schedule() -> dict[str, Any]:
    """The JSON.

    Raises:
        ValueError: when it was written by another version of Limelight.
    """
    path = Path(os.environ.get("LIMELIGHT_SCHEDULE") or Path(__file__).with_name("limelight.json"))
    schedule: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if schedule["version"] != UNDERSTOOD:
        raise ValueError(
            f"{path} has version {schedule['version']} and this file reads {UNDERSTOOD}: copy dags/ and write the JSON "
            "anew, both from the same Limelight"
        )
    return schedule


def when(spec: dict[str, Any], zone: str, asset: Asset) -> CronTriggerTimetable | list[Asset] | None:
    """What starts a DAG; None: a person, or another DAG."""
    if spec["cron"]:
        return CronTriggerTimetable(spec["cron"], timezone=zone)
    return [asset] if spec["by_asset"] else None


def make_dag(spec: dict[str, Any], schedule: dict[str, Any]) -> DAG:
    """One DAG of the schedule."""
    conf, zone = schedule["conf"], ZoneInfo(schedule["zone"])
    asset = Asset(name="limelight_samples", uri=schedule["asset"])
    with DAG(
        dag_id=spec["id"],
        description=spec["doc"],
        schedule=when(spec, schedule["zone"], asset),
        start_date=FIRST_MORNING.replace(tzinfo=zone),
        catchup=False,
        max_active_runs=1,
        params={"date": Param(None, type=["null", "string"], description="morning, YYYY-MM-DD; null: the run's own")},
        deadline=DeadlineAlert(
            reference=DeadlineReference.DAGRUN_QUEUED_AT,
            interval=datetime.timedelta(minutes=conf["deadline_minutes"]),
            callback=SyncCallback(tell_deadline, kwargs={"dag_id": spec["id"], "command": conf["alert"]}),
        ),
        tags=["limelight"],
    ) as dag:
        deciding = next((task["id"] for task in spec["tasks"] if task["id"] == DECIDE), None)
        tasks = {task["id"]: make_task(task, schedule, asset, deciding) for task in spec["tasks"]}
        for task in spec["tasks"]:
            for before in task["after"]:
                tasks[before] >> tasks[task["id"]]
    return dag


def make_task(task: dict[str, Any], schedule: dict[str, Any], asset: Asset, deciding: str | None) -> LimelightTask:
    """One task: its command, and how often and how long it is tried."""
    conf = schedule["conf"]
    kind = CloseTask if task["rule"] == "all_done" else LimelightTask
    return kind(
        task_id=task["id"],
        command=task["command"],
        environment=schedule["environment"],
        folder=schedule["folder"],
        zone=schedule["zone"],
        meanings=schedule["meanings"],
        wait_seconds=conf["wait_minutes"] * 60,
        give_up_seconds=conf["give_up_hours"] * 3600,
        asks=deciding if task["id"] != deciding else None,
        asset=asset if task["updates_asset"] else None,
        outlets=[asset] if task["updates_asset"] else [],
        trigger_rule=task["rule"],
        pool=conf["pool"],
        retries=conf["retries"],
        retry_delay=datetime.timedelta(minutes=conf["retry_minutes"]),
        retry_exponential_backoff=True,
        max_retry_delay=datetime.timedelta(minutes=conf["max_retry_minutes"]),
        execution_timeout=datetime.timedelta(seconds=task["timeout_seconds"]),
    )


schedule = read_schedule()
for spec in schedule["dags"]:
    globals()[spec["id"]] = make_dag(spec, schedule)
