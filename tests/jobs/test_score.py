"""`limelight score` as somebody types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from features.errors import ExitCode
from jobs.cli import app
from jobs.settings import Settings
from tests.training.raw_trainset import RawTrainset, publish, write_raw_trainset
from tests.training.test_registry import verdict
from training.registry import Registry
from training.scorer import Scorer

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> RawTrainset:
    made = write_raw_trainset(tmp_path_factory.mktemp("trainset"), gate_rows=50)
    pq.write_table(made.samples, Path(made.root) / "rows.parquet")
    return made


@pytest.fixture(scope="module")
def folder(raw: RawTrainset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(raw, tmp_path_factory.mktemp("model") / "published", "deepfm")


def limelight(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["score", *map(str, arguments)])
    return done.exit_code, " ".join(done.output.split())


def scores_in(out: Path) -> list[float]:
    return [json.loads(line)["enter"] for line in out.read_text().splitlines()]


def test_a_folder_is_checked(folder: Path, tmp_path: Path) -> None:
    code, said = limelight("--check", "--folder", folder)
    assert code == ExitCode.OK
    assert "deepfm: 9 files as published; the examples get their scores of enter within 1e-05" in said
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "booster.ubj").write_bytes(b"another")
    code, said = limelight("--check", "--folder", copy)
    assert code == ExitCode.BAD_DATA
    assert "changed (1); e.g. booster.ubj" in said


def test_a_file_is_scored_by_a_folder_and_by_the_champion_of_a_name(
    raw: RawTrainset, folder: Path, tmp_path: Path
) -> None:
    rows, out, warehouse = Path(raw.root) / "rows.parquet", tmp_path / "scores.jsonl", tmp_path / "warehouse"
    code, said = limelight(rows, "--out", out, "--folder", folder)
    assert code == ExitCode.OK, said
    assert "50 rows scored by deepfm" in said
    assert "does not read" in said
    wanted = Scorer.open(str(folder)).score(raw.samples)["enter"].tolist()
    assert scores_in(out) == pytest.approx(wanted, abs=1e-6)
    registry = Registry.open(*Settings.load("local").tracking(str(warehouse)))
    code, said = limelight(rows, "--out", tmp_path / "no.jsonl", "--model", "deepfm", "-w", warehouse)
    assert code == ExitCode.NOT_READY
    assert "deepfm has no champion" in said
    registry.publish("deepfm", folder, verdict("deepfm"))
    code, said = limelight(rows, "--out", tmp_path / "again.jsonl", "--model", "deepfm", "-w", warehouse)
    assert code == ExitCode.OK, said
    assert "version 1 of deepfm" in said
    assert (tmp_path / "again.jsonl").read_bytes() == out.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--check"], ExitCode.BAD_CONF),
        (["--check", "--folder", "a", "--model", "b"], ExitCode.BAD_CONF),
        (["rows.parquet", "--folder", "a"], ExitCode.USAGE),
        (["rows.parquet", "--check", "--folder", "a", "--out", "x.jsonl"], ExitCode.USAGE),
        (["--folder", "a"], ExitCode.USAGE),
    ],
)
def test_what_contradicts_itself_is_refused(arguments: list[str], code: ExitCode) -> None:
    assert limelight(*arguments)[0] == code
