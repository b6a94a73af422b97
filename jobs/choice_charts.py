"""Pictures for choosing a model: figures of several models side by side, and what a group of inputs is worth."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from jobs.drawing import GRID, INK, MUTED, PALETTE, Scale, path, picture, svg, text

COLUMNS = {
    "auc": "AUC",
    "gauc": "GAUC",
    "logloss": "logloss",
    "pcoc": "PCOC",
    "parameters": "parameters",
    "rows_per_second": "rows/s",
}
COUNTS = ("parameters", "rows_per_second")
LABELS, PANEL, VALUE, GAP, LINE = 150, 158, 58, 20, 22
BEST, OTHER = PALETTE[2], PALETTE[0]
MAX_BARS = 40

Figures = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A model's figure in a column."""

    value: float | None
    is_best: bool


@dataclass(frozen=True, kw_only=True)
class LossBar:
    """What a group's permutation costs: the mean over repeats, the least and the most."""

    label: str
    mean: float
    low: float
    high: float


def comparison_picture(
    split: str, tasks: Mapping[str, Mapping[str, Figures]], best: Mapping[str, Mapping[str, Collection[str]]]
) -> str:
    """A block per task, a line per model by falling AUC, a panel per column; each panel has its own scale.

    Args:
        split: that the figures are of.
        tasks: task → model → column → figure.
        best: task → column → models to mark.
    """
    parts: list[str] = []
    top = 8.0
    for task, models in tasks.items():
        columns = [column for column in COLUMNS if any(m.get(column) is not None for m in models.values())]
        order = sorted(models, key=lambda name: -(models[name].get("auc") or 0.0))
        parts.append(text(8, top + 16, f"{task} on {split}", size=13.5, weight=600))
        first = top + 48
        for place, name in enumerate(order):
            parts.append(text(LABELS - 8, first + place * LINE + 4.5, name, anchor="end", size=12.5))
        for place, column in enumerate(columns):
            dots = [Dot(value=models[name].get(column), is_best=name in best[task][column]) for name in order]
            parts += _panel(column, dots, LABELS + place * (PANEL + GAP), first)
        top = first + len(order) * LINE + 26
    width = LABELS + len(COLUMNS) * (PANEL + GAP)
    chart = svg(parts, top, f"Figures of the models on {split}, the best of each column in another colour", width=width)
    return picture(chart, width, top)


def _panel(column: str, dots: Sequence[Dot], left: float, first: float) -> list[str]:
    """Dots with their values; a dashed line is where PCOC should be, counts start at 0."""
    x = _scale(column, [dot.value for dot in dots if dot.value is not None], left)
    bottom = first + len(dots) * LINE - 8
    parts = [text(left, first - 14, COLUMNS[column], size=12, colour=MUTED)]
    for tick in x.ticks(2):
        shown = _short(tick) if column in COUNTS else f"{tick:g}"
        parts.append(path([(x(tick), first - 8), (x(tick), bottom)], GRID, 1))
        parts.append(text(x(tick), bottom + 13, shown, anchor="middle", size=10, colour=MUTED))
    if column == "pcoc":
        parts.append(path([(x(1.0), first - 8), (x(1.0), bottom)], MUTED, 1, "4 3"))
    for place, dot in enumerate(dots):
        middle = first + place * LINE
        if dot.value is None:
            parts.append(text(left + 4, middle + 4, "undefined", size=11, colour=MUTED))
            continue
        colour, weight = (BEST, 700) if dot.is_best else (OTHER, 400)
        shown = f"{dot.value:,.0f}" if column in COUNTS else f"{dot.value:.4f}"
        parts.append(f'<circle cx="{x(dot.value)}" cy="{middle}" r="4" fill="{colour}"/>')
        parts.append(text(left + PANEL - VALUE + 8, middle + 4.5, shown, size=11, weight=weight))
    return parts


def _scale(column: str, values: Sequence[float], left: float) -> Scale:
    wanted = {"pcoc": [1.0], "parameters": [0.0], "rows_per_second": [0.0]}.get(column, [])
    low, high = min([*values, *wanted]), max([*values, *wanted])
    margin = 0.08 * (high - low) or 0.01 * (abs(high) or 1.0)
    return Scale(low=low - margin, high=high + margin, start=left, end=left + PANEL - VALUE)


def _short(count: float) -> str:
    """1,500,000 → 1.5M."""
    size, unit = next(((size, unit) for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if count >= size), (1.0, ""))
    return f"{count / size:g}{unit}"


def importance_picture(split: str, tasks: Mapping[str, Sequence[LossBar]]) -> str:
    """A block per task: bars of the mean loss of AUC, whiskers from the least to the most of the repeats."""
    width, parts, top = 620, [], 8.0
    for task, bars in tasks.items():
        drawn = bars[:MAX_BARS]
        low, high = min([0.0, *(bar.low for bar in drawn)]), max([1e-4, *(bar.high for bar in drawn)])
        x = Scale(low=low, high=high, start=200, end=width - 70)
        left_out = f", {len(bars) - MAX_BARS} smaller ones left out" if len(bars) > MAX_BARS else ""
        parts.append(
            text(8, top + 16, f"loss of AUC of {task} on {split} when permuted{left_out}", size=13, weight=600)
        )
        first, bottom = top + 28, top + 28 + len(drawn) * LINE
        for tick in x.ticks():
            parts.append(path([(x(tick), first), (x(tick), bottom)], GRID, 1))
            parts.append(text(x(tick), bottom + 14, f"{tick:g}", anchor="middle", size=10.5, colour=MUTED))
        for place, bar in enumerate(drawn):
            parts += _loss_bar(bar, x, first + place * LINE + LINE / 2)
        top = bottom + 30
    return picture(svg(parts, top, f"Loss of AUC per group on {split}", width=width), width, top)


def _loss_bar(bar: LossBar, x: Scale, middle: float) -> list[str]:
    start, end = sorted((x(0.0), x(bar.mean)))
    return [
        text(192, middle + 4.5, bar.label, anchor="end", size=12),
        f'<rect x="{start}" y="{middle - 7}" width="{end - start:.2f}" height="14" rx="2" fill="{PALETTE[0]}"/>',
        path([(x(bar.low), middle), (x(bar.high), middle)], INK, 1.4),
        *(path([(x(at), middle - 4), (x(at), middle + 4)], INK, 1.4) for at in (bar.low, bar.high)),
        text(max(end, x(bar.high)) + 6, middle + 4.5, f"{bar.mean:.4f}", size=11.5),
    ]
