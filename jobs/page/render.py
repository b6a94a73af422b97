"""Page → one HTML file: no script, no font, no request; every text is escaped by the template or by the charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from jobs.drawing import GRID, INK, MUTED, PALETTE
from jobs.page.charts import GROUND, draw
from jobs.page.model import Page, State
from jobs.templates import environment_of

PAGE_TEMPLATE, INDEX_TEMPLATE = "page_template.html.j2", "index_template.html.j2"
DARK_PALETTE = ("#7aa2ff", "#ff9d6b", "#6fd48b", "#d0a2f0", "#5fc9dc", "#f28cb1", "#b3d94c", "#c3cad2")
DARK: Mapping[str, str] = {
    INK: "#e6ebf0",
    MUTED: "#a3afbb",
    GRID: "#333c46",
    GROUND: "#1a2027",
    **dict(zip(PALETTE, DARK_PALETTE, strict=True)),
}
"""Colour of a chart → what it is on a dark screen."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A page in the index: its run, and model → what the gate said."""

    run: str
    title: str
    states: Sequence[tuple[str, State]]

    @property
    def link(self) -> str:
        """Relative to the index."""
        return f"{quote(self.run)}/page.html"


def render(page: Page) -> str:
    """The page as HTML."""
    return _filled(PAGE_TEMPLATE, page=page)


def render_index(pages: Sequence[Listed]) -> str:
    """All pages, newest first, as HTML."""
    return _filled(INDEX_TEMPLATE, pages=pages)


def _filled(template: str, **values: Any) -> str:
    environment = environment_of("jobs.page")
    environment.filters["draw"] = draw
    return environment.get_template(template).render(dark=DARK, **values)
