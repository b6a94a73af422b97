"""The latency benchmark: its request is one user's, its figures are of the work, and other keys survive."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks.score_latency import KEY, main, percentiles, request
from tests.training.raw_trainset import publish, write_raw_trainset
from training.scorer import Scorer, read_examples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = write_raw_trainset(tmp_path_factory.mktemp("trainset"), gate_rows=30)
    return publish(raw, tmp_path_factory.mktemp("model") / "published", "deepfm")


def test_a_request_is_one_users_with_many_candidates(folder: Path) -> None:
    rows = request(read_examples(folder)[0], Scorer.open(str(folder)), 50)
    assert len(rows) == 50
    for name in ("user_id", "user_city", "user_watch_ms_7d"):
        assert len(set(rows[name].to_pylist())) == 1
    assert len({tuple(events) for events in rows["watched_anchor"].to_pylist()}) == 1
    assert len(set(rows["anchor_id"].to_pylist())) > 5


def test_every_turn_is_counted_once() -> None:
    turns: list[int] = []
    found = percentiles(lambda: turns.append(1), 30)
    assert len(turns) == 50, "30, and a warm-up of 20"
    assert 0 <= found["p50_ms"] <= found["p99_ms"]


def test_figures_are_added_and_other_keys_and_cores_stay(folder: Path, tmp_path: Path) -> None:
    out, cores = tmp_path / "bench" / "operations.json", os.sched_getaffinity(0)
    for others in ({}, {"chaos": {"trials": 100}}):
        if others:
            out.write_text(json.dumps(others))
        main(["--folder", str(folder), "--requests", "3", "--rounds", "2", "--out", str(out)])
        found = json.loads(out.read_text())
        assert {key: found[key] for key in others} == others
        assert [*found[KEY]] == ["deepfm"]
        assert len(found[KEY]["deepfm"]) == 2
        for measured in found[KEY]["deepfm"]:
            assert set(measured["100_candidates"]) == set(measured["500_candidates"]) == {"graph", "encoding"}
            assert measured["requests"] == 3
    assert os.sched_getaffinity(0) == cores
    assert [path.name for path in out.parent.iterdir()] == [out.name]
