"""The picture of `din_gain`: AUC over the number of interests, for the truth and both ways to read a history."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jobs.drawing import GRID, INK, MUTED, PALETTE, Scale, path, picture, svg, text

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 390, 34, 246
LINES = {"ceiling": ("truth", MUTED), "din": ("DIN", PALETTE[0]), "pooling": ("pooling", PALETTE[1])}


def gain_picture(found: Mapping[str, Mapping[str, Any]]) -> str:
    """An SVG file.

    Args:
        found: number of interests → as `benchmarks.interests.measure` gives it.
    """
    places = {number: math.log2(float(number)) for number in found}
    values = [value for one in found.values() for value in (one["ceiling"], *_every(one))]
    margin = 0.06 * (max(values) - min(values)) or 0.01
    x = Scale(low=min(places.values()), high=max(places.values()), start=LEFT + 16, end=RIGHT - 16)
    y = Scale(low=min(values) - margin, high=max(values) + margin, start=BOTTOM, end=TOP)
    parts = [text(8, 18, "AUC on test: mean and range over seeds", size=13, weight=600)]
    for tick in y.ticks(5):
        parts.append(path([(LEFT, y(tick)), (RIGHT, y(tick))], GRID, 1))
        parts.append(text(LEFT - 6, y(tick) + 4, f"{tick:.2f}", anchor="end", size=11, colour=MUTED))
    for number, place in places.items():
        parts.append(text(x(place), BOTTOM + 17, number, anchor="middle", size=11, colour=MUTED))
    parts.append(text((LEFT + RIGHT) / 2, BOTTOM + 38, "interests at the same time", anchor="middle", colour=MUTED))
    for name, (label, colour) in LINES.items():
        points = [(x(places[number]), y(one[name])) for number, one in found.items()]
        parts.append(path(points, colour, 2, "5 4" if name == "ceiling" else ""))
        parts.append(text(RIGHT - 8, points[-1][1] + (-6 if name == "ceiling" else 4), label, size=12, colour=INK))
        if name != "ceiling":
            parts += [_range(x(places[number]), one["by_seed"][name], y, colour) for number, one in found.items()]
            parts += [f'<circle cx="{across}" cy="{up}" r="3.5" fill="{colour}"/>' for across, up in points]
    return picture(svg(parts, HEIGHT, "AUC over the number of interests", width=WIDTH), WIDTH, HEIGHT)


def _every(one: Mapping[str, Any]) -> list[float]:
    return [value for seeds in one["by_seed"].values() for value in seeds]


def _range(across: float, values: list[float], y: Scale, colour: str) -> str:
    return path([(across, y(min(values))), (across, y(max(values)))], colour, 1.4)
