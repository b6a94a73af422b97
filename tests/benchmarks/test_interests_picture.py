"""The picture has a line per arm, a dot per number of interests, higher where the AUC is."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

from benchmarks.interests_picture import gain_picture

FOUND = {
    str(number): {
        "pooling": 0.84 - 0.02 * number,
        "din": 0.83,
        "ceiling": 0.85,
        "by_seed": {"pooling": [0.83 - 0.02 * number, 0.85 - 0.02 * number], "din": [0.83, 0.83]},
    }
    for number in (1, 2, 4, 8)
}


def test_dots_stand_where_the_figures_are() -> None:
    root = ElementTree.fromstring(gain_picture(FOUND))
    dots = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in root.findall(".//{*}circle")]
    din, pooling = dots[:4], dots[4:]
    across = [x for x, _ in din]
    steps = [after - before for before, after in pairwise(across)]
    assert max(steps) == min(steps) > 0  # twice as many are one step
    assert [x for x, _ in pooling] == across
    assert len({y for _, y in din}) == 1
    assert [y for _, y in pooling] == sorted(y for _, y in pooling)  # downwards
    assert {"1", "2", "4", "8", "truth", "DIN", "pooling"} <= {text.text for text in root.findall(".//{*}text")}
