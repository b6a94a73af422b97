"""Keys of several benchmarks in one file."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.operations import merge_into


def test_keys_of_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "bench" / "operations.json"
    merge_into(path, {"rows": 1})
    path.write_text(json.dumps({"rows": 1, "chaos": {"lost": 0}}))
    merge_into(path, {"rows": 2})
    assert json.loads(path.read_text()) == {"rows": 2, "chaos": {"lost": 0}}
    assert [one.name for one in path.parent.iterdir()] == ["operations.json"]


def test_those_who_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "operations.json"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: merge_into(path, {str(number): number}), range(40)))
    assert json.loads(path.read_text()) == {str(number): number for number in range(40)}
