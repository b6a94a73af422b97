"""verdict.json: of today, of an earlier Limelight, and what is neither."""

from __future__ import annotations

import json
import math

import pytest

from features.errors import DataError
from tests.training.test_registry import verdict
from training.verdict import read_verdict
from training.verdict_table import explain_in_full_text


def test_a_verdict_is_read_back() -> None:
    found = verdict("deepfm")
    assert read_verdict(found.model_dump_json(), "here") == found


def test_a_difference_that_is_no_number_is_read_back_as_such() -> None:
    found = verdict("deepfm", passed=False)
    assert found.parity is not None
    parity = found.parity.model_copy(update={"logit_difference": math.nan})
    text = found.model_copy(update={"parity": parity}).model_dump_json()
    again = read_verdict(text, "here").parity
    assert again is not None
    assert math.isnan(again.logit_difference)


def test_a_verdict_of_an_earlier_limelight_is_read_without_its_thresholds() -> None:
    """Then there was no format version, no segments, no checks, and a conf of fewer thresholds."""
    new = ("format_version", "segments", "checks")
    document = {key: value for key, value in json.loads(verdict("deepfm").model_dump_json()).items() if key not in new}
    task: dict[str, object] = {
        "task": "enter",
        "rows": 10,
        "positives": 4,
        "negatives": 6,
        "users": 3,
        "champion": None,
    }
    task |= {"candidate": {"auc": 0.7, "gauc": 0.6, "logloss": 0.5, "pcoc": 1.1}, "gauc_interval": None}
    task |= {"auc_interval": {"low": 0.6, "point": 0.7, "high": 0.8}, "auc_difference": None, "gauc_difference": None}
    document |= {"tasks": [task], "conf": {"main_task": "enter", "main": {"min_rows": 1}}}
    found = read_verdict(json.dumps(document), "here")
    assert (found.format_version, found.conf, found.tasks[0].candidate.auc) == (1, None, 0.7)
    assert "judged by an earlier Limelight" in explain_in_full_text(found)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format_version": 3}'])
def test_what_is_no_verdict_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(DataError, match=r"runs/a/verdict\.json is no verdict that this Limelight can read"):
        read_verdict(text, "runs/a/verdict.json")
