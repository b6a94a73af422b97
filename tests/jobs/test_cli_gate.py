"""`limelight gate`: a verdict of a training or of a published version, in short and in full."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from features.errors import ExitCode
from jobs import console as shown
from jobs.cli import app
from tests.training.test_gate import CONF, DAYS, OLDER, World
from training.gate import judge
from training.published import Output, seal
from training.registry import Registry
from training.verdict import VERDICT_FILE, Verdict

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture(scope="module")
def passed() -> Verdict:
    world = World()
    return judge(world.model("candidate", days=DAYS), world.model("champion", days=OLDER), world.evidence, CONF)


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown.console, "width", 200)


def limelight(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["gate", *arguments])


def test_a_training_is_explained_in_short_and_in_full(passed: Verdict, tmp_path: Path) -> None:
    (tmp_path / VERDICT_FILE).write_text(passed.model_dump_json(indent=1))
    short, full = limelight(str(tmp_path)), limelight(str(tmp_path / VERDICT_FILE), "--explain")
    assert (short.exit_code, full.exit_code) == (ExitCode.OK, ExitCode.OK)
    assert "deepfm: PASS by rule champion_comparison" in short.stdout
    assert "detectable drop of AUC" not in short.stdout
    for words in ("detectable drop of AUC", "growth of |ln PCOC|", "PSI of scores", "not_finite", "between them"):
        assert words in full.stdout


def test_a_stopped_model_is_exit_code_7_and_its_rule_is_marked(passed: Verdict, tmp_path: Path) -> None:
    world = World()
    worse = judge(world.model("candidate", noise=1.0), world.model("champion", days=OLDER), world.evidence, CONF)
    (tmp_path / VERDICT_FILE).write_text(worse.model_dump_json())
    told = limelight(str(tmp_path), "--explain")
    assert told.exit_code == ExitCode.GATE_STOPPED
    assert "STOP by rule champion_comparison" in told.stdout
    assert "stopped" in told.stdout


def test_a_published_version_is_explained(passed: Verdict, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.onnx").write_text("graph")
    seal(folder, "deepfm", (Output(name="enter", all_of=("enter",)),))
    warehouse = tmp_path / "warehouse"
    (warehouse / "mlflow").mkdir(parents=True)
    registry = Registry.open(f"sqlite:///{warehouse}/mlflow/mlflow.db", (warehouse / "mlflow" / "artifacts").as_uri())
    version = registry.publish("deepfm", folder, passed)
    assert registry.verdict("deepfm") == registry.verdict("deepfm", version) == passed
    told = limelight("--model", "deepfm", "--version", version, "--explain", "-w", str(warehouse))
    assert told.exit_code == ExitCode.OK, told.output
    assert "deepfm: PASS" in told.stdout
    unknown = limelight("--model", "deepfm", "--version", "9", "-w", str(warehouse))
    assert unknown.exit_code == ExitCode.BAD_DATA
    assert "deepfm has no version 9" in unknown.stderr


def test_one_of_the_two_must_be_named(tmp_path: Path) -> None:
    for arguments in ([], [str(tmp_path), "--model", "deepfm"], [str(tmp_path), "--version", "3"]):
        told = limelight(*arguments)
        assert told.exit_code == ExitCode.USAGE


def test_a_file_that_is_no_verdict_is_refused(tmp_path: Path) -> None:
    (tmp_path / VERDICT_FILE).write_text("{}")
    told = limelight(str(tmp_path))
    assert told.exit_code == ExitCode.BAD_DATA
    assert "no verdict that this Limelight can read" in told.stderr.replace("\n", " ")
