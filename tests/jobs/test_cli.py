"""The doors: every command and every stage's script explains itself, and mistakes cost one line and the right code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from features.errors import ExitCode
from jobs.cli import app
from pipeline.plan import PLAN

ROOT = Path(__file__).resolve().parents[2]
DAYS = ["--from", "2025-03-04", "--to", "2025-03-05"]


def limelight(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})


COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]


def test_every_command_of_the_design_is_there() -> None:
    wanted = {"ingest", "check-raw", "backfill", "daily", "incremental", "status", "rollback", "gate", "demo"}
    assert wanted <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_its_options(command: str) -> None:
    told = limelight(command, "--help")
    assert told.exit_code == 0
    assert f"limelight {command}" in told.stdout or "Usage:" in told.stdout
    assert len([line for line in told.stdout.splitlines() if line.strip()]) > 4


@pytest.mark.parametrize("door", [stage.door for stage in PLAN])
def test_the_door_of_every_stage_explains_itself(door: str, tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, str(ROOT / door), "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith(f"usage: {door}")


@pytest.mark.parametrize("stage", ["tiles", "profiles", "recent", "samples"])
def test_the_data_side_needs_no_torch(stage: str) -> None:
    code = f"import sys, runpy; sys.modules['torch'] = None; runpy.run_path('jobs/{stage}.py', run_name='looked_at')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [[], ["--stale", *DAYS], DAYS[:2]])
def test_a_backfill_is_of_days_or_of_what_is_stale(arguments: list[str]) -> None:
    told = limelight("backfill", *arguments)
    assert told.exit_code == ExitCode.USAGE
    assert "give either --stale, or --from and --to" in told.stderr


def test_an_unknown_conf_key_is_one_line_that_names_its_neighbour(tmp_path: Path) -> None:
    told = limelight("backfill", "-w", str(tmp_path), *DAYS, "--set", "days.trian=3")
    assert told.exit_code == ExitCode.BAD_CONF
    assert told.stderr.splitlines() == ["error conf days.trian is unknown; did you mean train?"]


def test_all_bad_conf_values_are_told_at_once(tmp_path: Path) -> None:
    bad = ["--set", "leaves.depth=99", "--set", "training.ranks=0", "--set", "gate.rounds=1"]
    told = limelight("backfill", "-w", str(tmp_path), *DAYS, *bad)
    assert told.exit_code == ExitCode.BAD_CONF
    for key in ("leaves.depth = 99", "training.ranks = 0", "gate.rounds = 1"):
        assert f"conf {key}" in told.stderr


def test_a_full_disk_stops_before_the_work(tmp_path: Path) -> None:
    told = limelight("backfill", "-w", str(tmp_path / "new"), *DAYS, "--set", "raw.min_free_bytes=1000000000000000000")
    assert told.exit_code == ExitCode.NO_RESOURCES
    assert "GB free and 1000000000.00 GB are needed: free some, or lower conf raw.min_free_bytes" in told.stderr
    assert list(tmp_path.iterdir()) == []


def test_days_are_checked(tmp_path: Path) -> None:
    assert limelight("daily", "--date", "3rd of March").exit_code == ExitCode.USAGE
    turned = limelight("backfill", "-w", str(tmp_path), "--from", "2025-03-05", "--to", "2025-03-04")
    assert turned.exit_code == ExitCode.BAD_CONF
    assert "--from 2025-03-05 is after --to 2025-03-04" in turned.stderr


def test_an_unknown_source_names_those_there_are(tmp_path: Path) -> None:
    told = limelight("ingest", "kuairant", "-w", str(tmp_path))
    assert told.exit_code == ExitCode.BAD_CONF
    assert "simulate, kuairand, kuailive, completejourney" in told.stderr


def test_a_verdict_that_is_not_there(tmp_path: Path) -> None:
    told = limelight("gate", str(tmp_path))
    assert told.exit_code == ExitCode.BAD_CONF
    assert f"there is no verdict at {tmp_path}" in told.stderr.replace("\n", " ").replace("  ", " ")


def test_what_is_in_force_is_shown() -> None:
    assert "depth: 3" in limelight("conf", "--set", "leaves.depth=3").stdout
    assert "jobs/samples.py" in limelight("plan").stdout
    listed = limelight("features", "user_enters").stdout
    assert "user_enters_7d" in listed
    assert "anchor_age" not in listed
