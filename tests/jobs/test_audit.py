"""`limelight audit` as people run it, on somebody's Parquet: figures, files, exit code, and errors told at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from features.errors import ExitCode
from jobs.cli import app
from pipeline.audit.report import AuditReport, Verdict

ROWS = 20_000
THEIRS = ("--key", "id", "--time", "at", "--label", "click")


def limelight(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["audit", *arguments], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Honest rows, and `late`, which is the label in 1 % of them."""
    rng = np.random.default_rng(3)
    click = (rng.random(ROWS) < 0.3).astype(np.int64)
    late, planted = rng.normal(size=ROWS), rng.permutation(ROWS)[: ROWS // 100]
    late[planted] = click[planted]
    table = {
        "id": np.arange(ROWS),
        "at": np.arange(ROWS),
        "click": click,
        "honest": rng.normal(size=ROWS),
        "late": late,
    }
    (tmp_path / "rows").mkdir()
    pq.write_table(pa.table(table), tmp_path / "rows" / "part.parquet")
    return tmp_path / "rows"


def test_a_twin_in_one_percent_ends_with_bad_data_and_is_in_both_files(rows: Path, tmp_path: Path) -> None:
    told = limelight("--samples", str(rows), *THEIRS, "--out", str(tmp_path / "out"))
    assert told.exit_code == ExitCode.BAD_DATA
    report = AuditReport.model_validate_json((tmp_path / "out" / "audit.json").read_text(encoding="utf-8"))
    assert [found.subject for found in report.of(Verdict.LEAK, Verdict.SUSPECT)] == ["late"]
    assert {run.name for run in report.checks if run.count(Verdict.NOT_CHECKABLE)} >= {
        "fitted",
        "recompute",
        "mutation",
    }
    assert not any(run.count(Verdict.PASS) for run in report.checks if run.name != "probe")
    page = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    assert "label twin in" in page
    assert "src=" not in page
    assert "href=" not in page
    assert "0 leaks, 1 suspects" in told.stdout


def test_without_the_twin_it_ends_well(rows: Path, tmp_path: Path) -> None:
    table = pq.read_table(rows / "part.parquet").drop_columns(["late"])
    pq.write_table(table, rows / "part.parquet")
    told = limelight("--samples", str(rows), *THEIRS, "--checks", "probe", "--out", str(tmp_path / "out"))
    assert told.exit_code == ExitCode.OK
    assert "no leak and no suspect" in told.stdout


def test_all_missing_columns_are_named(rows: Path, tmp_path: Path) -> None:
    told = limelight(
        "--samples", str(rows), "--key", "row", "--time", "at", "--label", "click,buy", "--out", str(tmp_path)
    )
    assert told.exit_code == ExitCode.BAD_DATA
    for name in ("row", "buy"):
        assert f"column={name}: column is absent" in told.stderr


def test_options_that_contradict_each_other_are_told_at_once(rows: Path) -> None:
    told = limelight("--samples", str(rows), "--key", "id", "--trainset", "full", "--checks", "probes")
    assert told.exit_code == ExitCode.BAD_CONF
    for part in ("--samples needs --time", "--samples needs --label", "--trainset and --samples", "--checks probes"):
        assert part in told.stderr
    assert "--scratch: name a folder" in limelight("--warehouse", "hdfs://cluster/limelight").stderr
    told = limelight("--label", "click", "--from", "2025-03-04")
    assert "--label belongs to --samples" in told.stderr
    assert "--from and --to belong together" in told.stderr
    told = limelight("--samples", str(rows), *THEIRS, "--group", "counts")
    assert told.exit_code == ExitCode.BAD_CONF
    assert "must look like name=column,column" in told.stderr
