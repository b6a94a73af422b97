"""A step of a scheduled run: one command of Limelight's own environment, its output, and what its exit code means.

done            success
done_and_told   success, and the log says that the gate stopped a model
skip            skipped, and what only rests on it too
wait            up for reschedule: the same try looks again after conf scheduler.wait_minutes
retry           failed; Airflow tries again, later each time
fail            failed without a retry: somebody has to correct something
"""

from __future__ import annotations

import datetime
import logging
import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import Asset, BaseOperator
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSkipException,
)

ENDED_WELL = ("success", "skipped")

log = logging.getLogger("limelight")


def morning(context: Mapping[str, Any], zone: str) -> str:
    """The date of a run: its param, else that of the run which updated the asset, else its own day in the time zone."""
    if context["params"].get("date"):
        return str(context["params"]["date"])
    dates = [
        event.extra["date"]
        for events in (context.get("triggering_asset_events") or {}).values()
        for event in events
        if event.extra and "date" in event.extra
    ]
    if dates:
        return str(max(dates))
    run = context["dag_run"]
    return (run.logical_date or run.run_after).astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d")


def fill(command: Sequence[str], filled: Mapping[str, str]) -> list[str]:
    """The command with what the run knows; other braces, as in conf values, stay."""
    words = list(command)
    for name, value in filled.items():
        words = [word.replace(f"{{{name}}}", value) for word in words]
    return words


class LimelightTask(BaseOperator):
    """Runs one command; {date}, {kind} and {holder} in it are filled in.

    Args:
        asks: id of the task that has decided kind and date; None where nobody has to.
        asset: what it updates.
    """

    def __init__(
        self,
        *,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: str,
        zone: str,
        meanings: Mapping[str, str],
        wait_seconds: float,
        give_up_seconds: float,
        asks: str | None = None,
        asset: Asset | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.command = list(command)
        self.environment = dict(environment)
        self.folder = folder
        self.zone = zone
        self.meanings = dict(meanings)
        self.wait_seconds = wait_seconds
        self.give_up_seconds = give_up_seconds
        self.asks = asks
        self.asset = asset
        self.hook: SubprocessHook | None = None

    def execute(self, context: Any) -> str | None:
        """Run it. The last line of its output is kept: the decision, of the task that asks for one."""
        filled = self.filled(context)
        code, line = self.run_command(fill(self.command, filled))
        self.act_on(code, context)
        if self.asset is not None:
            context["outlet_events"][self.asset].extra = {"date": filled["date"]}
        return line

    def filled(self, context: Any) -> dict[str, str]:
        """What only the run knows: which retrain of which morning, and the name that its turn is kept under."""
        holder = f"{self.dag_id} {context['run_id']}"
        decided = context["ti"].xcom_pull(task_ids=self.asks) if self.asks is not None else None
        if decided:
            kind, date = str(decided).split()
            return {"kind": kind, "date": date, "holder": holder}
        return {"kind": "full", "date": morning(context, self.zone), "holder": holder}

    def run_command(self, command: list[str]) -> tuple[int, str]:
        """To its end, with its output in the task's log."""
        self.hook = SubprocessHook()
        result = self.hook.run_command(command, env=dict(os.environ) | self.environment, cwd=self.folder)
        return result.exit_code, result.output

    def act_on(self, code: int, context: Any) -> None:
        """Raise what Airflow understands, or return."""
        meaning = self.meanings.get(str(code), "retry")
        told = f"exit code {code}: {meaning}"
        if meaning == "done_and_told":
            self.log.warning("%s; the gate stopped a model and the champion stays: its verdict is above", told)
        elif meaning == "skip":
            raise AirflowSkipException(told)
        elif meaning == "wait":
            self.wait(told, context)
        elif meaning == "retry":
            raise AirflowException(told)
        elif meaning == "fail":
            raise AirflowFailException(told)

    def wait(self, told: str, context: Any) -> None:
        """Look again later, unless the run has waited for too long."""
        now = datetime.datetime.now(datetime.UTC)
        waited = (now - (context["dag_run"].start_date or now)).total_seconds()
        if waited > self.give_up_seconds:
            raise AirflowFailException(f"{told}; given up {waited / 3600:.1f} h after the run began")
        raise AirflowRescheduleException(now + datetime.timedelta(seconds=self.wait_seconds))

    def on_kill(self) -> None:
        """A task that is stopped stops its processes."""
        if self.hook is not None:
            self.hook.send_sigterm()


class CloseTask(LimelightTask):
    """The end of a run: gives back its turn however the others ended, and ends as badly as they did."""

    def execute(self, context: Any) -> str | None:
        """Run the command when anything was done; fail after it when a task has failed."""
        states = self.states(context)
        if states and all(state == "skipped" for state in states.values()):
            raise AirflowSkipException("nothing was done")
        failed = sorted(task for task, state in states.items() if state not in ENDED_WELL)
        filled = self.filled(context)
        command = fill(self.command, filled)
        code, line = self.run_command([*command, "--failed"] if failed and "--decision" in command else command)
        self.act_on(code, context)
        if failed:
            raise AirflowFailException(f"failed, or never run for that: {', '.join(failed)}")
        return line

    def states(self, context: Any) -> dict[str, str]:
        """Task → state, of all before this one."""
        ti = context["ti"]
        ids = sorted(self.upstream_task_ids)
        found = ti.get_task_states(dag_id=self.dag_id, task_ids=ids, run_ids=[context["run_id"]])
        return {task: str(state) for task, state in found[context["run_id"]].items()}


def tell_deadline(dag_id: str, command: Sequence[str], context: Mapping[str, Any] | None = None) -> None:
    """Told when a run has not ended in time: in the log, and by the command of conf scheduler.alert."""
    run = (context or {}).get("dag_run") or {}
    name = run.get("dag_run_id", "a run") if isinstance(run, Mapping) else getattr(run, "run_id", "a run")
    text = f"{dag_id}: {name} has not ended by its deadline"
    log.error("%s", text)
    if command:
        subprocess.run([*command, text], check=True)
