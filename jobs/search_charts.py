"""The picture of a search: what each trial came to, the best so far, and what each key is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.drawing import GRID, MUTED, PALETTE, Scale, path, picture, svg, text

WIDTH, LEFT, RIGHT, TOP, HEIGHT, LINE, LABELS = 720, 64, 700, 34, 220, 22, 260
DONE, GIVEN_UP, BEST = PALETTE[0], MUTED, PALETTE[1]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A trial's figure: at its best epoch if it is complete, else the last one before it was ended."""

    number: int
    value: float
    complete: bool


def search_picture(
    title: str, trials: Sequence[Judged], importance: Mapping[str, float], *, lower_is_better: bool
) -> str:
    """Dots per trial, hollow where it was ended early; a line of the best so far; a bar per key of the space."""
    parts = [text(8, 20, title, size=13.5, weight=600), *_history(trials, lower_is_better=lower_is_better)]
    height = float(TOP + HEIGHT + 44)
    if importance:
        parts.append(text(8, height + 16, "importance of each key among complete trials", size=13.5, weight=600))
        parts += _bars(importance, height + 28)
        height += 28 + len(importance) * LINE + 12
    return picture(svg(parts, height, f"Trials of a search: {title}", width=WIDTH), WIDTH, height)


def _history(trials: Sequence[Judged], *, lower_is_better: bool) -> list[str]:
    values = [trial.value for trial in trials]
    margin = 0.06 * (max(values) - min(values)) or 0.01 * (abs(values[0]) or 1.0)
    bottom = TOP + HEIGHT
    y = Scale(low=min(values) - margin, high=max(values) + margin, start=bottom, end=TOP)
    x = Scale(low=-0.5, high=trials[-1].number + 0.5, start=LEFT, end=RIGHT)
    parts = []
    for tick in y.ticks():
        parts.append(path([(LEFT, y(tick)), (RIGHT, y(tick))], GRID, 1))
        parts.append(text(LEFT - 6, y(tick) + 4, f"{tick:g}", anchor="end", size=11, colour=MUTED))
    numbers = sorted({round(tick) for tick in x.ticks(8)})
    parts += [text(x(at), bottom + 15, str(at), anchor="middle", size=11, colour=MUTED) for at in numbers]
    parts.append(text((LEFT + RIGHT) / 2, bottom + 33, "trial", anchor="middle", size=12, colour=MUTED))
    if steps := _best_so_far(trials, lower_is_better=lower_is_better):
        points = [(x(number), y(value)) for number, value in steps]
        parts.append(path(points, BEST, 1.6))
    for trial in trials:
        fill, colour = (DONE, DONE) if trial.complete else ("#ffffff", GIVEN_UP)
        place = f'cx="{x(trial.number)}" cy="{y(trial.value)}"'
        parts.append(f'<circle {place} r="3.6" fill="{fill}" stroke="{colour}" stroke-width="1.4"/>')
    legend = "● complete   ○ ended early   — best so far"
    return [*parts, text(RIGHT, 20, legend, anchor="end", size=11, colour=MUTED)]


def _best_so_far(trials: Sequence[Judged], *, lower_is_better: bool) -> list[tuple[int, float]]:
    """Corners of the line, up to the last trial."""
    corners: list[tuple[int, float]] = []
    for trial in trials:
        best = corners[-1][1] if corners else None
        if best is not None:
            corners.append((trial.number, best))
        better = best is None or (trial.value < best if lower_is_better else trial.value > best)
        if trial.complete and better:
            corners.append((trial.number, trial.value))
    return corners


def _bars(importance: Mapping[str, float], top: float) -> list[str]:
    width = Scale(low=0.0, high=1.0, start=0, end=RIGHT - LABELS - 50)
    parts = []
    for place, (key, share) in enumerate(sorted(importance.items(), key=lambda pair: -pair[1])):
        middle = top + place * LINE + LINE / 2
        bar = f'x="{LABELS}" y="{middle - 7}" width="{width(share):.2f}" height="14" rx="2"'
        parts.append(text(LABELS - 8, middle + 4.5, key, anchor="end", size=12))
        parts.append(f'<rect {bar} fill="{DONE}"/>')
        parts.append(text(LABELS + width(share) + 6, middle + 4.5, f"{share:.2f}", size=11.5))
    return parts
