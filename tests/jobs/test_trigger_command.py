"""`limelight trigger` as it is typed: what it shows, its exit codes, and the service."""

from __future__ import annotations

import datetime
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from features.errors import ExitCode
from jobs.cli import app
from jobs.trigger_command import TriggerOptions
from pipeline.trigger import MEASURES
from tests.jobs.trigger_world import MODEL, NEXT_DAY, ONE_DAY, World, make_world, own_world
from tests.training.raw_trainset import GATE_DAY

# MLflow 3.17 on SQLAlchemy 2.1; ours is the pairing, theirs the call
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

ROOT = Path(__file__).resolve().parents[2]
QUIET_DATE, DATE = str(GATE_DAY + 2 * ONE_DAY), str(NEXT_DAY + 2 * ONE_DAY)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    return own_world(made, tmp_path)


def arguments(world: World, *more: str) -> list[str]:
    overrides = [part for value in world.overrides for part in ("--set", value)]
    return ["trigger", "-w", str(world.root), *overrides, *more]


def limelight(*typed: str) -> Result:
    return CliRunner().invoke(app, list(typed))


@pytest.fixture
def retrains(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Retrains that were asked for; each is stopped by the gate."""
    asked: list[str] = []

    def retrain(options: TriggerOptions, action: str, date: datetime.date, resume: bool) -> int:
        asked.append(f"{action} {date} {resume}")
        return int(ExitCode.GATE_STOPPED)

    monkeypatch.setattr(TriggerOptions, "retrain", retrain)
    return asked


def test_a_quiet_decision_shows_every_reason(world: World, retrains: list[str]) -> None:
    told = limelight(*arguments(world, "--date", QUIET_DATE))
    assert told.exit_code == ExitCode.OK, told.output
    for reason in ("catalog", "conf", "settings", *MEASURES):
        assert reason in told.stdout
    assert told.stdout.count("quiet") == 3 + len(MEASURES) + 1
    assert "nothing (every reason is quiet); decision 2026-01-10-" in told.stdout
    assert "→ nothing is finished" in told.stdout
    assert retrains == []
    assert "decided before, as of 2026-01-12: finished" in limelight(*arguments(world, "--date", QUIET_DATE)).stdout


def test_a_retrain_ends_with_its_own_exit_code(world: World, retrains: list[str]) -> None:
    told = limelight(*arguments(world, "--date", DATE))
    assert told.exit_code == ExitCode.GATE_STOPPED
    assert retrains == [f"incremental {DATE} False"]
    assert f"incremental ({MODEL} hours)" in told.stdout
    assert "→ incremental is finished: the gate stopped a model" in told.stdout
    assert limelight(*arguments(world, "--date", DATE)).exit_code == ExitCode.OK
    assert len(retrains) == 1


def test_a_dry_run_says_what_it_would_do(world: World, retrains: list[str]) -> None:
    before = sorted(world.root.rglob("*"))
    told = limelight(*arguments(world, "--date", DATE, "--dry-run"))
    assert told.exit_code == ExitCode.OK
    assert f"incremental ({MODEL} hours)" in told.stdout
    assert "dry run: nothing was changed" in told.stdout
    assert sorted(world.root.rglob("*")) == before
    assert retrains == []


@pytest.mark.parametrize(
    "wrong", [["--watch", "--date", DATE], ["--watch", "--dry-run"], ["--every", "5"], ["--watch", "--every", "0"]]
)
def test_options_that_contradict_each_other(world: World, wrong: list[str]) -> None:
    assert limelight(*arguments(world, *wrong)).exit_code == ExitCode.USAGE


def test_a_threshold_that_is_left_out_or_unknown_is_a_conf_error(world: World) -> None:
    told = limelight(*arguments(world, "--set", "trigger.auc_drp=1"))
    assert told.exit_code == ExitCode.BAD_CONF
    assert "conf trigger.auc_drp is unknown; did you mean auc_drop?" in told.stderr


def test_the_service_tells_each_decision_once_and_stops_at_a_signal(world: World) -> None:
    """By today's date all days are long past, so hours ask for nothing here."""
    never = ["--set", "trigger.hours={incremental: null, full: null}", "--watch", "--every", "1"]
    command = [sys.executable, "-m", "jobs.cli", *arguments(world, *never)]
    environment = os.environ | {"COLUMNS": "300", "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "every reason is quiet" in line:
                process.send_signal(signal.SIGTERM)
    assert process.returncode == ExitCode.OK, lines
    text = "".join(lines)
    assert f"watching {world.root} every 1 s" in text
    assert text.count("every reason is quiet") == 1
    assert "SIGTERM: stopped after" in lines[-1]
