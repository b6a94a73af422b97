"""Runs in Airflow's environment: reads dags/ as Airflow does, and prints as JSON what it has made of it."""

from __future__ import annotations

import datetime
import json
import os
import sys
from types import SimpleNamespace
from typing import Any

from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import AirflowException

from limelight_task import fill, morning

CODES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 137, 143, -9)
NOW = datetime.datetime.now(datetime.UTC)


def act(task: Any, code: int, began: datetime.datetime) -> str:
    """The exception that an exit code becomes."""
    context = {"dag_run": SimpleNamespace(start_date=began)}
    try:
        task.act_on(code, context)
    except AirflowException as error:
        return type(error).__name__
    return "success"


def mornings() -> dict[str, str]:
    """The date of a run by hand, of one that the asset started, and of one at half past six in Shanghai."""
    run = SimpleNamespace(logical_date=datetime.datetime(2026, 1, 1, 22, 30, tzinfo=datetime.UTC), run_after=None)
    events = [SimpleNamespace(extra={"date": "2026-01-07"}), SimpleNamespace(extra={"date": "2026-01-06"})]
    contexts: dict[str, dict[str, object]] = {
        "given": {"params": {"date": "2026-01-05"}, "triggering_asset_events": {"a": events}},
        "by the asset": {"params": {"date": None}, "triggering_asset_events": {"a": events}},
        "by cron": {"params": {"date": None}, "triggering_asset_events": {}},
    }
    return {name: morning(context | {"dag_run": run}, "Asia/Shanghai") for name, context in contexts.items()}


def main() -> None:
    bag = DagBag(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    dags = {}
    for dag in bag.dags.values():
        tasks = {
            task.task_id: {
                "after": list(task.upstream_task_ids),
                "pool": task.pool,
                "retries": task.retries,
                "seconds": task.execution_timeout.total_seconds(),
                "outlets": [outlet.name for outlet in task.outlets],
            }
            for task in dag.tasks
        }
        deadlines = dag.deadline if isinstance(dag.deadline, list) else [dag.deadline]
        condition = getattr(dag.timetable, "asset_condition", None)
        dags[dag.dag_id] = {
            "tasks": tasks,
            "deadline_minutes": deadlines[0].interval.total_seconds() / 60,
            "waits_for": [asset.name for asset in getattr(condition, "objects", [])],
        }
    task = bag.dags["limelight_daily"].get_task("tiles")
    told = {
        "errors": bag.import_errors,
        "dags": dags,
        "exit_codes": {str(code): act(task, code, NOW) for code in CODES},
        "waited_for_too_long": act(task, 5, NOW - datetime.timedelta(days=1)),
        "filled": fill(
            ["--date", "{date}", "--set", "trigger.hours={incremental: 48, full: null}"], {"date": "2026-01-19"}
        ),
        "mornings": mornings(),
    }
    sys.stdout.write(f"\n{json.dumps(told)}\n")


main()
