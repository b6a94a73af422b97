"""The picture of a search."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from jobs.search_charts import Judged, search_picture


@pytest.mark.parametrize("lower_is_better", [False, True])
def test_the_picture_has_a_dot_per_trial_and_a_bar_per_key(lower_is_better: bool) -> None:
    trials = [
        Judged(number=0, value=0.6, complete=True),
        Judged(number=1, value=0.9, complete=False),
        Judged(number=3, value=0.7, complete=True),
    ]
    picture = search_picture("auc of <click>", trials, {"a": 0.75, "b": 0.25}, lower_is_better=lower_is_better)
    elements = list(ET.fromstring(picture).iter())
    dots = [e.get("fill") for e in elements if e.tag.endswith("circle")]
    assert (len(dots), dots.count("#ffffff")) == (3, 1)
    texts = [e.text for e in elements if e.tag.endswith("text")]
    assert {"auc of <click>", "a", "0.75", "b", "0.25"} <= set(texts)
    assert len([e for e in elements if e.tag.endswith("rect")]) == 1 + 2
