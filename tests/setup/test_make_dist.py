"""The archive for spark-submit: whole, importable as it is, and the same bytes for the same code."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import make_dist


def test_the_archive_is_importable_without_the_checkout(tmp_path: Path) -> None:
    archive = tmp_path / "limelight.zip"
    make_dist.pack(make_dist.ROOT, archive)
    code = "import features.errors; print(features.errors.__file__)"
    told = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(archive)}, cwd=tmp_path, capture_output=True, text=True
    )
    assert told.stdout.startswith(str(archive)), told.stderr


def test_the_same_code_gives_the_same_bytes(tmp_path: Path) -> None:
    source = tmp_path / "checkout"
    (source / "jobs" / "__pycache__").mkdir(parents=True)
    (source / "jobs" / "cli.py").write_text("app = 1\n", encoding="utf-8")
    (source / "jobs" / "notes.txt").write_text("not code\n", encoding="utf-8")
    (source / "jobs" / "__pycache__" / "cli.py").write_text("", encoding="utf-8")
    (source / "conf").mkdir()
    (source / "conf" / "base.yaml").write_text("a: 1\n", encoding="utf-8")
    first, second = tmp_path / "first.zip", tmp_path / "second.zip"
    assert make_dist.pack(source, first) == 2
    (source / "jobs" / "cli.py").touch()
    make_dist.pack(source, second)
    assert first.read_bytes() == second.read_bytes()
    assert zipfile.ZipFile(first).namelist() == ["conf/base.yaml", "jobs/cli.py"]
