"""A profile of a tiny training: all parts, in a trace that loads; nothing else changes; short trainings are told."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.test_run import conf_of, contents, run, terminated_at
from tests.training.trainset_factory import write_trainset
from training.parts import Part
from training.profiler import FEWEST_STEPS, ProfileRequest, Window
from training.step_profile import OTHER, PARTS, PREFIX, StepProfile

STEPS = 16  # an epoch
WINDOW = Window(skipped=3, warming_up=2, measured=6)
EXTREMES = [Window(skipped=1, warming_up=50, measured=1), Window(skipped=50, warming_up=1, measured=1)]


@pytest.fixture(scope="module")
def trainset_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("trainset")
    write_trainset(folder, rows=STEPS * 64, valid_rows=100, gate_rows=101)
    return str(folder)


def request_in(folder: Path, window: Window = WINDOW) -> ProfileRequest:
    return ProfileRequest(url=str(folder / "profile"), window=window)


def read(folder: Path) -> tuple[StepProfile, dict[str, Any]]:
    """The table and the trace."""
    profile = StepProfile.model_validate_json((folder / "profile" / "profile.json").read_text())
    with gzip.open(folder / "profile" / "trace.json.gz", "rt") as file:
        return profile, json.load(file)


def test_a_profile_has_all_parts_and_leaves_the_training_as_it_was(
    trainset_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    conf = conf_of("deepfm", batch_size=64)
    run(conf, trainset_url, tmp_path / "plain")
    run(conf, trainset_url, tmp_path / "profiled", profile=request_in(tmp_path))
    assert contents(tmp_path / "profiled") == contents(tmp_path / "plain")
    profile, trace = read(tmp_path)
    assert (profile.first_step, profile.steps, profile.batch_size, profile.device) == (6, 6, 64, "CPU")
    assert tuple(profile.parts) == PARTS
    assert sum(part.ms for part in profile.parts.values()) == pytest.approx(profile.step_ms)
    assert sum(part.percent for part in profile.parts.values()) == pytest.approx(100)
    assert all(part.ms > 0 for part in profile.parts.values())
    assert profile.parts["forward"].ms > profile.parts[OTHER].ms / 100
    assert profile.step_ms_before is not None
    assert (tmp_path / "profile" / "profile.txt").read_text() == profile.text()
    named = [event for event in trace["traceEvents"] if event.get("cat") == "user_annotation"]
    counts = {part: sum(event["name"] == PREFIX + part for event in named) for part in Part}
    assert counts == {
        Part.STEP: 6, Part.WAITING: 6, Part.COPY: 6, Part.FORWARD: 12, Part.BACKWARD: 6, Part.EXCHANGE: 24,
        Part.UPDATE: 6, Part.DEVICE: 1,
    }  # fmt: skip
    assert any(event.get("name") == "aten::addmm" for event in trace["traceEvents"])
    assert "profile: steps 6 to 11 will be measured" in caplog.text
    assert "6 steps measured, trace and table in" in caplog.text


def test_a_profile_of_a_whole_epoch_has_no_judging_in_it(trainset_url: str, tmp_path: Path) -> None:
    window = Window(skipped=4, warming_up=2, measured=STEPS - 6)
    run(conf_of(batch_size=64, epochs=1), trainset_url, tmp_path / "out", profile=request_in(tmp_path, window))
    profile, trace = read(tmp_path)
    steps = [event for event in trace["traceEvents"] if event.get("name") == PREFIX + Part.STEP]
    assert profile.steps == len(steps) == STEPS - 6
    operations = [event["ts"] for event in trace["traceEvents"] if event.get("name", "").startswith("aten::")]
    assert max(operations) < max(event["ts"] + event["dur"] for event in steps)


def test_a_resumed_training_is_profiled_from_where_it_stands(
    trainset_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A profile of 11 steps with 8 left in the epoch: a smaller one. And none of what is complete."""
    caplog.set_level("INFO")
    conf = conf_of(batch_size=64, epochs=1)
    with terminated_at(3, monkeypatch):
        run(conf, trainset_url, tmp_path / "out", profile=request_in(tmp_path))
    assert "profile: steps 6 to 11 will be measured" in caplog.text
    assert read(tmp_path)[0].steps == 3  # steps 6 to 8: ranks agree every 8 steps whether to stop
    run(conf, trainset_url, tmp_path / "out", profile=request_in(tmp_path), resume=True)
    assert "a small one, as 8 steps are left in the epoch and a whole one takes 11" in caplog.text
    profile, _ = read(tmp_path)
    assert (profile.first_step, profile.steps) == (12, 5)
    run(conf, trainset_url, tmp_path / "out", profile=request_in(tmp_path), resume=True)
    assert "is complete, and no step is left to measure" in caplog.text


def test_a_training_too_short_to_measure_is_told_and_goes_on(
    trainset_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    conf = conf_of(batch_size=512, epochs=1)
    result = run(conf, trainset_url, tmp_path / "short", profile=request_in(tmp_path))
    assert result.steps == 2
    assert "no profile: 2 steps left in the epoch, and the smallest profile takes 3" in caplog.text
    late = Window(skipped=9, warming_up=1, measured=6)
    with terminated_at(3, monkeypatch):
        run(conf_of(batch_size=64), trainset_url, tmp_path / "cut", profile=request_in(tmp_path, late))
    assert "no profile: no step from 11 on, where measuring begins, is whole" in caplog.text
    assert not (tmp_path / "profile").exists()


@pytest.mark.parametrize("window", [Window(), WINDOW, *EXTREMES])
def test_a_window_fits_into_what_is_left(window: Window) -> None:
    assert [window.within(steps) for steps in range(FEWEST_STEPS)] == [None] * FEWEST_STEPS
    for steps in range(FEWEST_STEPS, 100):
        fitted = window.within(steps)
        assert fitted is not None
        assert fitted.steps == min(steps, window.steps)
        assert min(fitted.skipped, fitted.warming_up, fitted.measured) >= 1
