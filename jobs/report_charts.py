"""The report's charts as inline SVG: no script, no font, no request. Every axis names its unit.

Charts are drawn 420 units wide, so that they stay readable at the width of a phone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from jobs.drawing import GRID, INK, MUTED, PALETTE, WIDTH, Scale, path, svg, text, x_axis
from training.bootstrap import Interval
from training.calibration_curve import Bin

HEAT = "#e8890c"


@dataclass(frozen=True, kw_only=True)
class AucBar:
    """One model on one task; whiskers from the bootstrap by user, marks for baseline and ceiling."""

    label: str
    auc: float | None
    interval: Interval | None = None
    heat: float | None = None
    ceiling: float | None = None


def auc_bars(bars: Sequence[AucBar]) -> Markup:
    """Horizontal bars from 0.5 (chance) to the AUC."""
    known = [value for bar in bars for value in (bar.auc, bar.heat, bar.ceiling) if value is not None]
    known += [bar.interval.high for bar in bars if bar.interval is not None]
    lows = [bar.interval.low for bar in bars if bar.interval is not None]
    x = Scale(low=min([0.5, *known, *lows]), high=min(1.0, max([0.6, *known]) + 0.02), start=116, end=WIDTH - 50)
    row, top = 30, 8
    bottom = top + row * len(bars)
    parts = x_axis(x, top, bottom, "AUC on the gate day (0.5 = chance)", digits=2)
    for place, bar in enumerate(bars):
        parts += _auc_bar(bar, x, top + place * row)
    return svg(parts, bottom + 40, "AUC of each task beside the heat baseline and the ceiling")


def _auc_bar(bar: AucBar, x: Scale, top: float) -> list[str]:
    middle = top + 14
    parts = [text(108, middle + 4.5, bar.label, anchor="end", size=12.5)]
    if bar.auc is None:
        return [*parts, text(x(x.low) + 6, middle + 4, "undefined", colour=MUTED)]
    left, right = sorted((x(0.5), x(bar.auc)))
    parts.append(f'<rect x="{left}" y="{top + 6}" width="{right - left:.2f}" height="16" rx="2" fill="{PALETTE[0]}"/>')
    end = right
    if bar.interval is not None:
        low, high = x(bar.interval.low), x(bar.interval.high)
        end = max(end, high)
        parts.append(path([(low, middle), (high, middle)], INK, 1.4))
        parts += [path([(at, middle - 4), (at, middle + 4)], INK, 1.4) for at in (low, high)]
    for value, colour, dash in ((bar.heat, HEAT, ""), (bar.ceiling, INK, "3 2")):
        if value is not None:
            end = max(end, x(value))
            parts.append(path([(x(value), top + 2), (x(value), top + 26)], colour, 2.6, dash))
    parts.append(text(end + 6, middle + 4.5, f"{bar.auc:.3f}", size=12.5, weight=600))
    return parts


def reliability(name: str, bins: Sequence[Bin]) -> Markup:
    """Predicted against observed share, a dot per bin with its 95 % interval; the diagonal is calibrated."""
    size, left, top = 200, 40, 22
    high = max(max(max(b.predicted, b.high) for b in bins) * 1.05, 1e-6)
    x = Scale(low=0, high=high, start=left, end=size - 8)
    y = Scale(low=0, high=high, start=size - 36, end=top)
    digits = max(0, 1 - math.floor(math.log10(high * 100)))
    parts = [text(left, 14, name, size=12.5, weight=600)]
    for tick in x.ticks(3):
        share = f"{tick * 100:.{digits}f}"
        parts += [
            path([(x(tick), y(0)), (x(tick), top)], GRID, 1),
            path([(left, y(tick)), (x.end, y(tick))], GRID, 1),
        ]
        parts.append(text(x(tick), size - 22, share, anchor="middle", size=10, colour=MUTED))
        parts.append(text(left - 4, y(tick) + 3.5, share, anchor="end", size=10, colour=MUTED))
    parts.append(path([(x(0), y(0)), (x(high), y(high))], MUTED, 1, "4 3"))
    for b in bins:
        parts += [
            path([(x(b.predicted), y(b.low)), (x(b.predicted), y(b.high))], PALETTE[0], 1.4),
            f'<circle cx="{x(b.predicted)}" cy="{y(b.observed)}" r="3" fill="{PALETTE[0]}"/>',
        ]
    parts.append(text((left + size) / 2, size - 6, "predicted, %", anchor="middle", size=10.5, colour=MUTED))
    middle = (top + size - 36) / 2
    parts.append(
        f'<text x="11" y="{middle}" transform="rotate(-90 11 {middle})" text-anchor="middle" '
        f'font-size="10.5" fill="{MUTED}">observed, %</text>'
    )
    return svg(parts, size, f"Calibration of {name}", width=size)


def lines(series: Mapping[str, Sequence[float | None]], y_label: str, digits: int) -> Markup:
    """One line per task over epochs, with a legend that wraps."""
    drawn = {name: values for name, values in series.items() if any(v is not None for v in values)}
    values = [value for line in drawn.values() for value in line if value is not None]
    epochs = max((len(line) for line in drawn.values()), default=0)
    if not values:
        return Markup("")
    spread = (max(values) - min(values)) or abs(values[0]) or 1.0
    columns = 4
    legend = 18 * math.ceil(len(drawn) / columns)
    x = Scale(low=1, high=max(epochs, 2), start=52, end=WIDTH - 12)
    y = Scale(low=min(values) - 0.08 * spread, high=max(values) + 0.08 * spread, start=190 + legend, end=legend + 22)
    parts = [text(4, 13, y_label, size=12, colour=MUTED)]
    for tick in y.ticks():
        parts.append(path([(x.start, y(tick)), (x.end, y(tick))], GRID, 1))
        parts.append(text(x.start - 6, y(tick) + 4, f"{tick:.{digits}f}", anchor="end", size=11, colour=MUTED))
    parts += [
        text(x(epoch), y.start + 16, str(epoch), anchor="middle", size=11, colour=MUTED)
        for epoch in range(1, epochs + 1, max(1, math.ceil(epochs / 10)))
    ]
    parts.append(text((x.start + x.end) / 2, y.start + 33, "epoch", anchor="middle", size=12, colour=MUTED))
    for place, (name, line) in enumerate(drawn.items()):
        colour = PALETTE[place % len(PALETTE)]
        points = [(x(epoch), y(value)) for epoch, value in enumerate(line, start=1) if value is not None]
        parts.append(path(points, colour, 2))
        parts += [f'<circle cx="{a}" cy="{b}" r="2.6" fill="{colour}"/>' for a, b in points]
        at, below = 8 + (place % columns) * 102, 28 + 18 * (place // columns)
        parts.append(f'<rect x="{at}" y="{below - 8}" width="10" height="10" rx="2" fill="{colour}"/>')
        parts.append(text(at + 15, below + 1, name, size=11.5))
    return svg(parts, y.start + 40, f"{y_label} by epoch")
