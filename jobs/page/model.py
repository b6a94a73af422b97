"""What a daily page says, before it is HTML: every word and every number, as text or as a chart with its data table.

A chart cannot be made without the table of what it shows. A figure that is not known is None in a chart, which leaves
a gap, and a dash in a table; why a whole part is not known is said by `Missing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from training.bootstrap import Interval
from training.calibration_curve import Bin

UNKNOWN = "–"
State = Literal["passed", "stopped", "missing"]


@dataclass(frozen=True, kw_only=True)
class DataTable:
    """Rows of words and numbers; the first `left` columns are words."""

    kind: ClassVar[str] = "table"
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1


@dataclass(frozen=True, kw_only=True)
class Missing:
    """What is not shown, and why."""

    kind: ClassVar[str] = "missing"
    what: str
    why: str


@dataclass(frozen=True)
class Note:
    """A sentence."""

    text: str
    kind: ClassVar[str] = "note"


@dataclass(frozen=True, kw_only=True)
class LineChart:
    """Figures along runs or days.

    Attributes:
        places: names along the axis, oldest first.
        lines: name → one figure per place; None is a gap.
        hollow: name → places whose point is drawn hollow.
        level: a dashed line at this figure.
    """

    kind: ClassVar[str] = "lines"
    title: str
    along: str
    places: tuple[str, ...]
    lines: Mapping[str, tuple[float | None, ...]]
    digits: int
    table: DataTable
    hollow: Mapping[str, frozenset[int]]
    level: float | None = None


@dataclass(frozen=True, kw_only=True)
class BarChart:
    """One bar per name; None is said to be unknown, zero is a bar of no length."""

    kind: ClassVar[str] = "bars"
    title: str
    bars: tuple[tuple[str, float | None, str], ...]
    table: DataTable


@dataclass(frozen=True, kw_only=True)
class IntervalChart:
    """One interval per name around what it estimates, beside zero."""

    kind: ClassVar[str] = "intervals"
    title: str
    intervals: tuple[tuple[str, Interval | None], ...]
    table: DataTable


@dataclass(frozen=True, kw_only=True)
class ReliabilityChart:
    """Predicted against observed shares."""

    kind: ClassVar[str] = "reliability"
    title: str
    bins: tuple[Bin, ...]
    table: DataTable


@dataclass(frozen=True, kw_only=True)
class Fold:
    """What is shown when it is asked for."""

    kind: ClassVar[str] = "fold"
    title: str
    blocks: tuple[Block, ...]


Chart = LineChart | BarChart | IntervalChart | ReliabilityChart
Block = DataTable | Missing | Note | Chart | Fold


@dataclass(frozen=True, kw_only=True)
class ModelVerdict:
    """One model: what the gate said, by which rule and why, and what users get now."""

    model: str
    state: State
    headline: str
    users: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and what stands below it; `anchor` is its place in the page's address."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class Page:
    """The whole page, in the order in which it is read."""

    title: str
    subtitle: str
    verdicts: tuple[ModelVerdict, ...]
    notes: tuple[str, ...]
    sections: tuple[Section, ...]
