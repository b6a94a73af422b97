"""The page's charts as inline SVG, drawn for the width of a phone. Every chart also stands in a table beside it.

Colours are those of `jobs.drawing`; the page's style sheet changes them where the reader's screen is dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from jobs.drawing import GRID, INK, MUTED, PALETTE, Scale, path, svg, text
from jobs.page.model import BarChart, Chart, IntervalChart, LineChart
from jobs.report_charts import reliability

WIDTH = 360
GROUND = "#ffffff"  # inside a hollow point: the card's ground
SIGN = 6.6  # width of a sign of 12 units, about
LEFT, RIGHT = 46, 12


def draw(chart: Chart) -> Markup:
    """Any chart of a page; "" where it has no figure."""
    if isinstance(chart, LineChart):
        return lines(chart)
    if isinstance(chart, BarChart):
        return bars(chart)
    if isinstance(chart, IntervalChart):
        return intervals(chart)
    return reliability(_cut(chart.title), chart.bins) if chart.bins else Markup("")


def lines(chart: LineChart) -> Markup:
    """A line per name; a figure that is not known breaks it."""
    known = [value for line in chart.lines.values() for value in line if value is not None and math.isfinite(value)]
    if not known:
        return Markup("")
    if chart.level is not None:
        known.append(chart.level)
    spread = (max(known) - min(known)) or abs(known[0]) * 0.1 or 1.0
    rows = list(_rows_of(list(chart.lines)))
    top = 14 + 18 * len(rows)
    x = Scale(low=0, high=max(len(chart.places) - 1, 1), start=LEFT + 8, end=WIDTH - RIGHT - 8)
    y = Scale(low=min(known) - 0.1 * spread, high=max(known) + 0.1 * spread, start=top + 140, end=top)
    parts = [*_levels(y, chart.digits), *_places(chart, x, y.start)]
    if chart.level is not None:
        parts.append(path([(LEFT, y(chart.level)), (WIDTH - RIGHT, y(chart.level))], MUTED, 1.2, "4 3"))
    for place, (name, line) in enumerate(chart.lines.items()):
        colour = PALETTE[place % len(PALETTE)]
        points = [(x(i), y(v)) if v is not None and math.isfinite(v) else None for i, v in enumerate(line)]
        parts += [path(piece, colour, 2) for piece in _pieces(points) if len(piece) > 1]
        hollow = chart.hollow.get(name, frozenset())
        drawn = ((at, point) for at, point in enumerate(points) if point is not None)
        for at, (across, down) in drawn:
            fill = GROUND if at in hollow else colour
            mark = f'fill="{fill}" stroke="{colour}" stroke-width="2"'
            parts.append(f'<circle cx="{across}" cy="{down}" r="3.4" {mark}/>')
    parts += _legend(chart, rows)
    return svg(parts, y.start + 42, f"{chart.title} by {chart.along}; the table below has the figures", width=WIDTH)


def _pieces(points: Sequence[tuple[float, float] | None]) -> Iterator[list[tuple[float, float]]]:
    """Runs of known points."""
    piece: list[tuple[float, float]] = []
    for point in points:
        if point is None:
            if piece:
                yield piece
            piece = []
        else:
            piece.append(point)
    if piece:
        yield piece


def _levels(y: Scale, digits: int) -> Iterator[str]:
    for tick in y.ticks():
        yield path([(LEFT, y(tick)), (WIDTH - RIGHT, y(tick))], GRID, 1)
        yield text(LEFT - 5, y(tick) + 4, f"{tick:.{digits - 1}f}", anchor="end", size=12, colour=MUTED)


def _places(chart: LineChart, x: Scale, bottom: float) -> Iterator[str]:
    """Names along the axis, counted back from the newest so that it has one."""
    longest = max(len(_cut(name, 10)) for name in chart.places)
    room = max(1, int((x.end - x.start) / (longest * SIGN + 8)))
    step = max(1, math.ceil(len(chart.places) / room))
    for at in range(len(chart.places) - 1, -1, -step):
        is_last = at == len(chart.places) - 1 and at > 0
        where, anchor = (x(at) + 8, "end") if is_last else (x(at), "middle")
        yield text(where, bottom + 18, _cut(chart.places[at], 10), anchor=anchor, size=12, colour=MUTED)
    yield text((LEFT + WIDTH - RIGHT) / 2, bottom + 36, chart.along, anchor="middle", size=12, colour=MUTED)


def _rows_of(names: Sequence[str]) -> Iterator[list[tuple[float, str]]]:
    """Legend entries with their place, row by row."""
    row: list[tuple[float, str]] = []
    at = 4.0
    for name in names:
        width = 22 + SIGN * len(_cut(name))
        if row and at + width > WIDTH:
            yield row
            row, at = [], 4.0
        row.append((at, name))
        at += width + 10
    if row:
        yield row


def _legend(chart: LineChart, rows: Sequence[Sequence[tuple[float, str]]]) -> Iterator[str]:
    order = list(chart.lines)
    for below, row in enumerate(rows):
        for at, name in row:
            colour = PALETTE[order.index(name) % len(PALETTE)]
            yield f'<rect x="{at}" y="{4 + 18 * below}" width="11" height="11" rx="2" fill="{colour}"/>'
            yield text(at + 16, 14 + 18 * below, _cut(name), size=12)


def bars(chart: BarChart) -> Markup:
    """Horizontal bars from zero; what is not known has words and no bar."""
    if not chart.bars:
        return Markup("")
    high = max((value for _, value, _ in chart.bars if value is not None), default=0.0) or 1.0
    start, row = 132, 24
    room = WIDTH - start - 8 - SIGN * max(len(shown) for _, _, shown in chart.bars)
    x = Scale(low=0, high=high, start=start, end=start + room)
    parts: list[str] = []
    for place, (name, value, shown) in enumerate(chart.bars):
        middle = 16 + row * place
        parts.append(text(start - 8, middle + 4, _cut(name, 18), anchor="end", size=12))
        end = float(start)
        if value is not None:
            end = x(value)
            width = max(end - start, 1) if value > 0 else 0
            parts.append(
                f'<rect x="{start}" y="{middle - 7}" width="{width:.2f}" height="14" rx="2" fill="{PALETTE[0]}"/>'
            )
        parts.append(text(end + 6, middle + 4, "not known" if value is None else shown, size=12, colour=MUTED))
    return svg(parts, 10 + row * len(chart.bars), f"{chart.title}; the table below has the figures", width=WIDTH)


def intervals(chart: IntervalChart) -> Markup:
    """A dot and its interval per name, beside zero."""
    drawn = [interval for _, interval in chart.intervals if interval is not None]
    if not drawn:
        return Markup("")
    low, high = min(0.0, *(i.low for i in drawn)), max(0.0, *(i.high for i in drawn))
    pad = 0.05 * (high - low) or 0.01
    start, row = 146, 24
    x = Scale(low=low - pad, high=high + pad, start=start, end=WIDTH - RIGHT)
    bottom = 6 + row * len(chart.intervals)
    parts: list[str] = []
    for tick in x.ticks(3):
        parts.append(path([(x(tick), 4), (x(tick), bottom)], GRID, 1))
        parts.append(text(x(tick), bottom + 17, f"{tick:+.4g}", anchor="middle", size=12, colour=MUTED))
    parts.append(path([(x(0), 4), (x(0), bottom)], MUTED, 1.4, "4 3"))
    for place, (name, interval) in enumerate(chart.intervals):
        middle = 16 + row * place
        parts.append(text(start - 8, middle + 4, _cut(name, 20), anchor="end", size=12))
        if interval is None:
            parts.append(text(start, middle + 4, "not known", size=12, colour=MUTED))
            continue
        parts.append(path([(x(interval.low), middle), (x(interval.high), middle)], INK, 1.6))
        parts.append(f'<circle cx="{x(interval.point)}" cy="{middle}" r="4" fill="{PALETTE[0]}"/>')
    return svg(parts, bottom + 26, f"{chart.title}; the table below has the figures", width=WIDTH)


def _cut(name: str, most: int = 24) -> str:
    """A name that fits; the table has it whole."""
    return name if len(name) <= most else f"{name[: most - 1]}…"
