"""How a command that fails is told: one line with its cause, the remedy and the log."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from steps import Runner, SetupError, explain_failure, fail, timed

LOG = Path("build/setup.log")


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        ("WARNING: Retrying ... NewConnectionError('... [Errno -3] Temporary failure in name resolution')", "network"),
        ("ERROR: Could not find a version that satisfies the requirement six==1.17.0 (from versions: none)", "network"),
        ('ReadTimeoutError("HTTPSConnectionPool: Read timed out.") ConnectTimeout', "network"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "checksum"),
    ],
)
def test_the_cause_of_a_failure_is_named(output: str, cause: str) -> None:
    line = explain_failure(["pip", "install"], 1, f"Collecting x\n{output}\n", LOG)
    assert line.startswith(f"{cause}: ")
    assert "it resumes" in line
    assert str(LOG) in line
    assert "\n" not in line


def test_another_failure_shows_its_last_error() -> None:
    output = "compiling\nfatal error: Python.h: No such file\nmake: stopping\n"
    line = explain_failure(["make", "all"], 2, output, LOG)
    assert line == "`make all` ended with status 2: fatal error: Python.h: No such file. Log: build/setup.log"


def test_output_goes_to_the_log_only(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    runner = Runner(tmp_path / "build" / "setup.log")
    runner.run([sys.executable, "-c", "print('many words')"])
    assert "many words" in runner.log.read_text(encoding="utf-8")
    assert capfd.readouterr().out == ""


def test_a_failure_is_explained_by_its_own_output_not_by_earlier_steps(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "setup.log")
    runner.run([sys.executable, "-c", "print('No space left on device')"])
    with pytest.raises(SetupError, match=r"status 3: error: of this step"):
        runner.run([sys.executable, "-c", "import sys; print('error: of this step'); sys.exit(3)"])


def test_a_step_is_announced_and_then_timed(capsys: pytest.CaptureFixture[str]) -> None:
    with timed("torch"):
        assert capsys.readouterr().out == "setup: torch ...\n"
    assert capsys.readouterr().out.startswith("setup: torch: 0.")


def test_a_step_that_fails_is_not_reported_as_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SetupError), timed("torch"):
        raise SetupError("network: ...")
    assert capsys.readouterr().out == "setup: torch ...\n"


def test_every_lack_is_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail(SetupError("one\ntwo")) == 1
    assert capsys.readouterr().err == "setup: one\nsetup: two\n"
