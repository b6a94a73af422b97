"""The page in a real browser: nothing on its console, nothing asked of a network, nothing wider than a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.page.compose import compose
from jobs.page.facts import Facts, ModelFacts, RunFacts
from jobs.page.render import Listed, render, render_index
from tests.browser import MISSING, Browser, browser, chromium
from tests.jobs.page.built_facts import HOSTILE, facts

pytestmark = pytest.mark.skipif(chromium() is None, reason=MISSING)

LONG = "a_name_without_any_place_to_break_it_" * 6
BARE = Facts(run=RunFacts(name=LONG), models=(ModelFacts(model=LONG),), main_task="enter")
PAGES = {
    "many": render(compose(facts(30))),
    "one": render(compose(facts(1))),
    "hostile": render(compose(facts(30, HOSTILE))),
    "long": render(compose(facts(30, LONG))),
    "bare": render(compose(BARE)),
    "index": render_index([Listed(run="r", title=LONG, states=[(LONG, "passed"), ("mmoe", "stopped")])]),
}
OPEN_ALL = "document.querySelectorAll('details').forEach(found => { found.open = true; })"
WIDTHS = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_it_without_scrolling_sideways_and_without_a_complaint(
    tab: Browser, tmp_path: Path, name: str, dark: bool
) -> None:
    page = tmp_path / "page.html"
    page.write_text(PAGES[name], encoding="utf-8")
    tab.complaints.clear()
    tab.requests.clear()
    tab.open(page, width=390, dark=dark)
    assert tab.value(WIDTHS) == [390, 390]
    tab.value(OPEN_ALL)
    assert tab.value(WIDTHS) == [390, 390], "with everything unfolded"
    assert tab.complaints == []
    assert {url for url in tab.requests if not url.startswith("data:")} == {page.as_uri()}


def test_every_chart_has_a_table_that_can_be_unfolded(tab: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(PAGES["many"], encoding="utf-8")
    tab.open(page, width=390)
    assert tab.value("document.querySelectorAll('svg').length") > 5
    assert tab.value("[...document.querySelectorAll('svg')].every(s => s.closest('figure').querySelector('td'))")


def test_dark_and_light_differ(tab: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(PAGES["many"], encoding="utf-8")
    grounds = []
    for dark in (False, True):
        tab.open(page, width=1280, dark=dark)
        grounds.append(tab.value("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(244, 246, 248)", "rgb(17, 22, 27)"]
    fills = tab.value("[...document.querySelectorAll('svg text')].map(t => getComputedStyle(t).fill)")
    assert set(fills) <= {"rgb(230, 235, 240)", "rgb(163, 175, 187)"}
