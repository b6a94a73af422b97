"""The picture has a line per arm with a dot per day, higher where the AUC is, and says what is what."""

from __future__ import annotations

from xml.etree import ElementTree

from benchmarks.incremental_gap import FULL, INCREMENTAL, NEVER
from benchmarks.incremental_picture import HEIGHT, LINES, WIDTH, days_picture

AUCS = {FULL: [0.71, 0.72, 0.70], INCREMENTAL: [0.709, 0.721, 0.70], NEVER: [0.70, 0.69, 0.68]}


def test_dots_stand_where_the_figures_are() -> None:
    root = ElementTree.fromstring(days_picture(AUCS, "enter"))
    dots = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in root.findall(".//{*}circle")]
    by_arm = {arm: dots[3 * place : 3 * place + 3] for place, arm in enumerate(LINES)}
    assert all([x for x, _ in of_arm] == [x for x, _ in dots[:3]] for of_arm in by_arm.values())
    assert dots[0][0] < dots[1][0] < dots[2][0]
    heights = {value: up for arm, of_arm in by_arm.items() for value, (_, up) in zip(AUCS[arm], of_arm, strict=True)}
    assert [value for value, _ in sorted(heights.items(), key=lambda one: one[1])] == sorted(heights, reverse=True)
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in dots)
    assert {"full retrain every morning", "incremental", "never updated", "1", "3"} <= {
        text.text for text in root.findall(".//{*}text")
    }


def test_one_flat_day_is_a_picture_too() -> None:
    assert ElementTree.fromstring(days_picture({arm: [0.7] for arm in LINES}, "enter")).find(".//{*}circle") is not None
