"""Page → HTML: hostile names stay text, nothing is asked of a network, every chart has its table and its name."""

from __future__ import annotations

import itertools
import re

import pytest

from jobs.page.charts import draw
from jobs.page.compose import compose
from jobs.page.facts import Facts, ModelFacts, RunFacts
from jobs.page.model import BarChart, DataTable, IntervalChart, LineChart
from jobs.page.render import DARK_PALETTE, Listed, render, render_index
from tests.html_tags import Html
from tests.jobs.page.built_facts import HOSTILE, facts

TABLE = DataTable(caption="c", head=("a",), rows=())
LUMINANCE = (0.2126, 0.7152, 0.0722)


@pytest.fixture(scope="module", params=[1, 30])
def page(request: pytest.FixtureRequest) -> Html:
    return Html(render(compose(facts(request.param, HOSTILE))))


def test_hostile_names_stay_text(page: Html) -> None:
    assert page.count("script") == page.count("img") == 0
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert HOSTILE in page.text


def test_nothing_is_asked_of_a_network(page: Html) -> None:
    assert not {"script", "img", "iframe", "object", "embed", "source", "use", "image"} & {tag for tag, _ in page.tags}
    links = [attributes["href"] for _, attributes in page.tags if "href" in attributes]
    assert {link for link in links if link and not link.startswith("#")} == {"data:,", "../index.html"}
    assert not [name for _, attributes in page.tags for name in attributes if name in {"src", "srcset", "action"}]
    assert not re.search(r"@import|url\(", page.text)


def test_every_drawing_has_a_name_and_stands_with_its_table(page: Html) -> None:
    figures = page.count("figure")
    assert figures > 5
    assert all(a.get("role") == "img" and a.get("aria-label") for tag, a in page.tags if tag == "svg")
    assert page.count("svg") <= figures
    inside = [tag for tag, _ in page.tags if tag in {"figure", "table"}]
    assert all(after == "table" for tag, after in itertools.pairwise(inside) if tag == "figure")
    assert all(a.get("role") == "region" and a.get("aria-label") for _, a in page.tags if a.get("class") == "scroll")


def test_the_verdict_comes_first(page: Html) -> None:
    order = [page.text.index(words) for words in ("deepfm passed by rule", "Users now get", "Quality on the gate day")]
    assert order == sorted(order)
    titles = [attributes["id"] for tag, attributes in page.tags if tag == "section" and "id" in attributes]
    wanted = ["quality", "calibration", "segments", "drift", "coverage", "stages", "training", "lineage"]
    assert titles == wanted


def test_the_same_facts_make_the_same_bytes() -> None:
    assert render(compose(facts())) == render(compose(facts()))


def test_a_run_of_which_nothing_is_left_is_drawn_without_a_chart() -> None:
    bare = Facts(run=RunFacts(name=HOSTILE), models=(ModelFacts(model=HOSTILE),), main_task="enter")
    found = Html(render(compose(bare)))
    assert found.count("svg") == found.count("script") == 0
    assert found.text.count("Missing: ") >= 8


def test_the_index_escapes_names_and_quotes_links() -> None:
    listed = Listed(run="a b#c?d", title=HOSTILE, states=[(HOSTILE, "passed")])
    found = Html(render_index([listed]))
    assert found.count("script") == 0
    assert [a["href"] for tag, a in found.tags if tag == "a"] == ["a%20b%23c%3Fd/page.html"]
    assert "No run has a page yet" in render_index([])


def line(*values: float | None) -> LineChart:
    places = tuple(str(place) for place in range(len(values)))
    return LineChart(
        title="t", along="run", places=places, lines={"a": values}, digits=3, hollow={"a": frozenset({0})}, table=TABLE
    )


def test_a_gap_breaks_the_line_and_is_no_point() -> None:
    whole, broken = draw(line(0.1, 0.2, 0.3, 0.4)), draw(line(0.1, 0.2, None, 0.4))
    assert (whole.count("<circle"), broken.count("<circle")) == (4, 3)
    thick = 'stroke-width="2"/>'
    paths = [found for found in re.findall(r"<path [^>]*>", broken) if found.endswith(thick)]
    assert [found.count("L") for found in paths] == [1]  # 0.1 to 0.2; 0.4 stands alone
    assert whole.count("#ffffff") == 1


@pytest.mark.parametrize("values", [(None, None), (float("nan"),), ()])
def test_without_figures_there_is_no_drawing(values: tuple[float | None, ...]) -> None:
    assert draw(line(*values)) == ""


@pytest.mark.parametrize("values", [(0.0,), (0.5, 0.5), (1e-9, 1e9)])
def test_flat_and_extreme_lines_are_drawn(values: tuple[float, ...]) -> None:
    assert draw(line(*values)).count("<circle") == len(values)


def test_what_is_not_known_has_no_bar() -> None:
    bars = (("known", 2.0, "2 s"), ("zero", 0.0, "0 s"), ("not", None, "–"))
    drawn = draw(BarChart(title="t", bars=bars, table=TABLE))
    assert drawn.count("<rect") == 2
    assert drawn.count("not known") == 1
    assert draw(IntervalChart(title="t", intervals=(("a", None),), table=TABLE)) == ""


def contrast(colour: str, ground: str) -> float:
    """WCAG's ratio, 1 to 21."""

    def light(hexes: str) -> float:
        parts = [int(hexes[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip(LUMINANCE, linear, strict=True))

    high, low = sorted((light(colour), light(ground)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(
    ("colour", "ground"),
    [("#1f2933", "#f4f6f8"), ("#55606c", "#f4f6f8"), ("#1a6b35", "#e4f4e8"), ("#a3160c", "#fdeae8"),
     ("#6b4e00", "#fdf3d8"), ("#1d4ed8", "#ffffff"), ("#e6ebf0", "#11161b"), ("#a3afbb", "#1a2027"),
     ("#7fdc9b", "#173723"), ("#ff9d94", "#471c19"), ("#f0cd72", "#3d3113"), ("#8fb4ff", "#1a2027"),
     ("#66717d", "#ffffff"), *((colour, "#1a2027") for colour in DARK_PALETTE)],
)  # fmt: skip
def test_text_stands_out_from_its_ground(colour: str, ground: str) -> None:
    assert contrast(colour, ground) >= 4.5
