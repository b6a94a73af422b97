"""The picture of `bench_incremental`: AUC over ten days of a model retrained in full, incrementally, and never."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.incremental_gap import FULL, INCREMENTAL, NEVER
from jobs.drawing import GRID, INK, MUTED, PALETTE, Scale, path, picture, svg, text

WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 58, 540, 58, 264
LINES = {
    FULL: ("full retrain every morning", PALETTE[0], ""),
    INCREMENTAL: ("incremental", PALETTE[1], ""),
    NEVER: ("never updated", MUTED, "5 4"),
}
LEGEND = {FULL: 10, INCREMENTAL: 222, NEVER: 340}


def days_picture(aucs: Mapping[str, Sequence[float]], task: str) -> str:
    """An SVG file.

    Args:
        aucs: arm → AUC on each day, [days] each.
        task: what was judged.
    """
    values = [value for of_arm in aucs.values() for value in of_arm]
    days = len(next(iter(aucs.values())))
    margin = 0.08 * (max(values) - min(values)) or 0.01
    x = Scale(low=1, high=max(days, 2), start=LEFT + 14, end=RIGHT - 14)
    y = Scale(low=min(values) - margin, high=max(values) + margin, start=BOTTOM, end=TOP)
    parts = [text(8, 18, f"AUC of {task} on a day that no arm has seen", size=13, weight=600)]
    for tick in y.ticks(5):
        parts.append(path([(LEFT, y(tick)), (RIGHT, y(tick))], GRID, 1))
        parts.append(text(LEFT - 6, y(tick) + 4, f"{tick:.3f}", anchor="end", size=11, colour=MUTED))
    parts += [text(x(d), BOTTOM + 17, str(d), anchor="middle", size=11, colour=MUTED) for d in range(1, days + 1)]
    parts.append(text((LEFT + RIGHT) / 2, BOTTOM + 38, "mornings after the first model", anchor="middle", colour=MUTED))
    for arm, (label, colour, dash) in LINES.items():
        start = LEGEND[arm]
        parts.append(path([(start, 38), (start + 24, 38)], colour, 2, dash))
        parts.append(text(start + 30, 42, label, size=12, colour=INK))
        points = [(x(day), y(value)) for day, value in enumerate(aucs[arm], start=1)]
        parts.append(path(points, colour, 2, dash))
        parts += [f'<circle cx="{across}" cy="{up}" r="3" fill="{colour}"/>' for across, up in points]
    return picture(svg(parts, HEIGHT, f"AUC of {task}, day by day", width=WIDTH), WIDTH, HEIGHT)
