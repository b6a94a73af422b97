"""URLs with secrets at the doors: refused before anything is done, and nothing says them."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from features.errors import ExitCode
from jobs.cli import app

SECRET = "confidential-7f3a"
URL = f"s3a://AKIA1:{SECRET}@bucket/warehouse"
DAY = "2026-01-19"
COMMANDS = [
    ["ingest", "simulate", "-w", URL],
    ["check-raw", "-w", URL],
    ["backfill", "--from", DAY, "--to", DAY, "-w", URL],
    ["backfill", "--stale", "-w", URL],
    ["daily", "--date", DAY, "-w", URL],
    ["incremental", "--date", DAY, "-w", URL],
    ["serving", "--date", DAY, "-w", URL],
    ["status", "-w", URL],
    ["status", "--checks", "-w", URL],
    ["gc", "-w", URL],
    ["forget", "--user", "1", "-w", URL],
    ["plan", "-w", URL],
    ["audit", "-w", URL, "--trainset", "full"],
    ["rollback", "deepfm", "--why", "x", "-w", URL, "--yes"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_a_warehouse_with_a_secret_is_refused_at_every_door(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, command)
    assert done.exit_code == ExitCode.BAD_CONF, done.output
    assert SECRET not in done.output
    assert list(tmp_path.iterdir()) == []


def test_samples_with_a_secret_are_refused(tmp_path: Path) -> None:
    schema = tmp_path / "schema.yaml"
    schema.write_text("columns: {user: {role: categorical}, clicked: {role: label}}")
    given = ["--train", URL, "--valid", URL, "--schema", str(schema), "--model", "lr", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["fit", *given])
    assert done.exit_code == ExitCode.BAD_CONF
    assert SECRET not in done.output


def test_conf_in_force_is_shown_without_the_registrys_password() -> None:
    done = CliRunner().invoke(app, ["conf", "--set", f"registry.uri=https://ann:{SECRET}@mlflow:5000"])
    assert "uri: https://mlflow:5000" in done.output
    assert SECRET not in done.output
    wrong = CliRunner().invoke(app, ["conf", "--set", f"registry.url=https://ann:{SECRET}@mlflow:5000"])
    assert wrong.exit_code == ExitCode.BAD_CONF
    assert SECRET not in wrong.output


@pytest.mark.parametrize("name", ["../deepfm", "/etc/deepfm", "a/b", ""])
def test_names_of_models_that_lead_elsewhere_are_refused(name: str) -> None:
    done = CliRunner().invoke(app, ["conf", "--set", f"training.models=['{name}']"])
    assert done.exit_code == ExitCode.BAD_CONF
    assert "names of models become paths" in done.output
