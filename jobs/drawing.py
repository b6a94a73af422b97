"""What charts are drawn with: SVG without script, font or request. Every text is escaped here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH = 420
PALETTE = ("#2563eb", "#d9480f", "#2b8a3e", "#862e9c", "#0b7285", "#a61e4d", "#5c940d", "#495057")
INK, MUTED, GRID = "#1f2933", "#66717d", "#e4e8ec"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A linear map from values [low, high] to units [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Place of a value."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)

    def ticks(self, about: int = 4) -> list[float]:
        """Round values, about so many of them."""
        rough = (self.high - self.low) / about
        power = 10 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [round(i * step, 10) for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def x_axis(x: Scale, top: float, bottom: float, label: str, *, digits: int) -> list[str]:
    """Grid lines, the values below them, and what is measured."""
    parts = []
    for tick in x.ticks():
        parts.append(path([(x(tick), top), (x(tick), bottom)], GRID, 1))
        parts.append(text(x(tick), bottom + 15, f"{tick:.{digits}f}", anchor="middle", size=11, colour=MUTED))
    parts.append(text((x.start + x.end) / 2, bottom + 33, label, anchor="middle", size=12, colour=MUTED))
    return parts


def text(
    x: float, y: float, text: str, *, anchor: str = "start", size: float = 12, colour: str = INK, weight: int = 400
) -> str:
    """A piece of text; escaped."""
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" '
        f'fill="{colour}">{escape(text)}</text>'
    )


def path(points: Sequence[tuple[float, float]], colour: str, width: float, dash: str = "") -> str:
    """A line through points."""
    steps = " ".join(f"{'M' if i == 0 else 'L'}{x} {y}" for i, (x, y) in enumerate(points))
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path d="{steps}" fill="none" stroke="{colour}" stroke-width="{width}"{dashed}/>'


def svg(parts: Sequence[str], height: float, title: str, width: int = WIDTH) -> Markup:
    """A chart of its parts, to stand in a page."""
    opening = f'<svg viewBox="0 0 {width} {height:g}" role="img" aria-label="{escape(title)}">'
    return Markup(opening + "".join(parts) + "</svg>")  # every text went through escape


def picture(chart: Markup, width: float, height: float) -> str:
    """A chart as a file of its own: on white, in the reader's sans-serif font."""
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" font-family="sans-serif"'
    ground = '<rect width="100%" height="100%" fill="#ffffff"/>'
    first, _, rest = chart.removeprefix("<svg").partition(">")
    return f"{opening}{first}>{ground}{rest}\n"
