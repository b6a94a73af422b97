"""Facts → page: the verdict in words, what users get, and what is missing said to be missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from jobs.page.compose import compose
from jobs.page.facts import HISTORY, Facts, ModelFacts, RunFacts, kind_and_date
from jobs.page.lineage import Lineage
from jobs.page.model import (
    BarChart,
    Block,
    Chart,
    DataTable,
    Fold,
    IntervalChart,
    LineChart,
    Missing,
    Page,
    ReliabilityChart,
    Section,
)
from jobs.page.words import PASSES, STOPS, around, seconds
from tests.jobs.page.built_facts import day, facts, run, version
from tests.training.trainset_factory import write_trainset
from training.verdict import Rule


def blocks(section: Section) -> Iterator[Block]:
    """All of them, also what is folded."""
    waiting = list(section.blocks)
    while waiting:
        block = waiting.pop(0)
        yield block
        waiting += block.blocks if isinstance(block, Fold) else ()


def section(page: Page, anchor: str) -> Section:
    return next(found for found in page.sections if found.anchor == anchor)


def missing(page: Page, anchor: str) -> dict[str, str]:
    return {b.what: b.why for b in blocks(section(page, anchor)) if isinstance(b, Missing)}


def lines(page: Page, anchor: str) -> list[LineChart]:
    return [b for b in blocks(section(page, anchor)) if isinstance(b, LineChart)]


def test_the_verdict_says_who_passed_by_which_rule_and_what_users_get() -> None:
    deepfm, mmoe, esmm = compose(facts()).verdicts
    assert deepfm.state == "passed"
    assert deepfm.headline.startswith("deepfm passed by rule champion_comparison: it is not worse")
    assert deepfm.users == "Users now get this run's deepfm, version 3."
    assert mmoe.state == "stopped"
    assert mmoe.headline == "mmoe was stopped by rule floors: a figure misses its absolute floor."
    assert mmoe.users.startswith("Users now get mmoe version 2, published 2026-01-03T04:05:06+00:00 (gate passed")
    assert mmoe.reasons == ("AUC of gift is below the floor",)
    assert esmm.state == "missing"
    assert esmm.headline == "esmm was not judged in this run: its folder has no verdict."
    assert esmm.users == "Users get no esmm: none was ever published."


def one_model(found: ModelFacts) -> str:
    return compose(replace(facts(), models=(found,))).verdicts[0].users


def test_a_candidate_that_passed_and_is_in_no_registry_is_told() -> None:
    before = version("deepfm", 1, "another", champion=True)
    said = one_model(ModelFacts(model="deepfm", versions=(before,)))
    assert said.startswith("Users now get deepfm version 1")
    assert said.endswith("no version of it is in the registry: its publication did not end.")


def test_a_candidate_that_was_rolled_back_is_told_with_what_users_get_instead() -> None:
    ours = replace(version("deepfm", 2, "deepfm-29", champion=False), state="rolled back")
    said = one_model(ModelFacts(model="deepfm", versions=(ours, version("deepfm", 1, "another", champion=True))))
    assert "Users now get deepfm version 1" in said
    assert said.endswith("This run's is version 2, rolled back.")
    alone = one_model(ModelFacts(model="deepfm", versions=(ours,)))
    assert alone.startswith("Users get no deepfm: it has no champion.")


def test_every_rule_has_words() -> None:
    assert set(STOPS) == set(get_args(Rule))
    assert set(PASSES) <= set(STOPS)


@pytest.mark.parametrize("runs", [1, 2, 30])
def test_figures_go_back_fourteen_runs_and_no_further(runs: int) -> None:
    page = compose(facts(runs))
    auc, gauc, pcoc = lines(page, "quality")
    shown = min(runs, HISTORY + 1)
    assert len(auc.places) == len(auc.lines["deepfm"]) == len(auc.table.rows) == shown
    assert auc.table.rows[-1][0] == f"full-{day(runs - 1)}"
    assert (gauc.level, pcoc.level) == (None, 1.0)
    assert ("earlier runs" in missing(page, "quality")) == (runs == 1)


def test_a_run_without_a_figure_is_a_gap_and_a_stopped_one_is_marked() -> None:
    auc = lines(compose(facts(4)), "quality")[0]
    assert [value is None for value in auc.lines["mmoe"]] == [True, False, False, False]  # not trained in run 0
    assert auc.hollow["mmoe"] == {3}
    assert auc.table.rows[0][2] == "–"
    assert auc.table.rows[3][2].endswith("(stopped)")
    assert set(auc.lines["esmm"]) == {None}


def test_every_chart_has_as_many_rows_of_data_as_it_shows() -> None:
    page = compose(facts())
    charts = [b for part in page.sections for b in blocks(part) if isinstance(b, Chart)]
    assert {type(chart) for chart in charts} == {LineChart, BarChart, IntervalChart, ReliabilityChart}
    for chart in charts:
        shown = {
            LineChart: lambda c: c.places, BarChart: lambda c: c.bars, IntervalChart: lambda c: c.intervals,
            ReliabilityChart: lambda c: c.bins,
        }[type(chart)](chart)  # fmt: skip
        assert len(chart.table.rows) == len(shown), chart.title


def test_every_row_of_a_table_is_as_wide_as_its_head() -> None:
    for runs in (1, 30):
        for part in compose(facts(runs)).sections:
            tables = [b.table if isinstance(b, Chart) else b for b in blocks(part) if isinstance(b, Chart | DataTable)]
            assert all(len(row) == len(table.head) for table in tables for row in table.rows), part.anchor


def test_drift_is_against_the_gate_day_of_the_version_that_was_evaluated() -> None:
    (chart,) = lines(compose(facts()), "drift")
    assert len(chart.places) == 4  # five days, of which one is the gate day
    moved = [value for value in chart.lines["scores"] if value is not None]
    assert len(moved) == 4
    assert moved == sorted(set(moved))
    assert missing(compose(facts()), "drift")["drift under the champion of mmoe"].startswith("no champion of this name")


def test_drift_without_its_facts_is_missing() -> None:
    built = facts()
    unknown = missing(compose(replace(built, gate_days={})), "drift")["drift under the champion of deepfm"]
    assert unknown == "version 2 was not evaluated on its gate day, which no run that is still there names"
    no_conf = missing(compose(replace(built, empty_share=None)), "drift")
    assert "trigger" in no_conf["drift under the champion of deepfm"]
    deepfm = replace(built.models[0], evaluations=built.models[0].evaluations[:1])
    alone = missing(compose(replace(built, models=(deepfm,))), "drift")
    assert "on no day after its gate day" in alone["drift under the champion of deepfm"]


def test_a_vocabulary_without_ids_has_no_share() -> None:
    (chart,) = [b for b in blocks(section(compose(facts()), "coverage")) if isinstance(b, BarChart)]
    assert {name: value for name, value, _ in chart.bars} == {"user": 0.061, "gift": 0.0, "never": None}
    assert ("never", "0", "0", "–") in chart.table.rows


def test_evicted_keys_are_shown_beside_the_ids_of_their_vocabulary(tmp_path: Path) -> None:
    described = write_trainset(tmp_path, rows=64, valid_rows=64, gate_rows=64)
    fitted = tuple(
        v.model_copy(update={"path": "file", "evicted": 1200 if v.name == "user_id" else 0})
        for v in described.vocabularies
    )
    built = replace(facts(), trainset=described.model_copy(update={"vocabularies": fitted}))
    rows = [
        row
        for block in blocks(section(compose(built), "coverage"))
        if isinstance(block, DataTable)
        for row in block.rows
    ]
    assert [row for row in rows if "evicted" in row[0]] == [("vocabulary user_id, evicted keys", "1,200")]


def test_a_run_of_which_nothing_is_left_but_its_name_has_every_part_missing() -> None:
    page = compose(Facts(run=RunFacts(name="own name"), models=(ModelFacts(model="deepfm"),), main_task="enter"))
    assert page.title == "Run of own name"
    assert page.verdicts[0].state == "missing"
    for part in page.sections:
        assert any(isinstance(block, Missing) for block in blocks(part)), part.anchor
        assert not any(isinstance(block, Chart) for block in blocks(part)), part.anchor


def test_lineage_goes_down_to_raw_and_counts_what_is_not_as_it_was_read() -> None:
    folds = [b for b in section(compose(facts()), "lineage").blocks if isinstance(b, Fold)]
    tables = [fold.title.partition(":")[0] for fold in folds]
    assert tables == ["trainsets", "samples", "profiles_user", "raw/impressions"]
    assert folds[1].title == "samples: 3 partitions, 2026-01-01 to 2026-01-03, 2 not as read"
    empty = missing(compose(replace(facts(), lineage=Lineage())), "lineage")
    assert empty == {"lineage of the train set": "there is no committed train set full-2026-01-30"}


@pytest.mark.parametrize(
    ("name", "kind", "date"),
    [
        ("full-2026-01-20", "full", day(19)),
        ("incremental-2026-01-20", "incremental", day(19)),
        ("full-2026-13-20", "other", None),
        ("full-2026-01-20-again", "other", None),
    ],
)
def test_names_of_runs(name: str, kind: str, date: object) -> None:
    assert kind_and_date(name) == (kind, date)


def test_runs_are_ordered_by_date_and_then_by_when_they_were_made() -> None:
    first, second = run(3), run(4)
    later = replace(run(3), name=f"incremental-{day(3)}", made_at=second.made_at)
    assert sorted([second, later, first], key=lambda found: found.order) == [first, later, second]


def test_numbers_have_units_and_signs() -> None:
    assert [seconds(s) for s in (0.04, 59.94, 61, 3700)] == ["0.0 s", "59.9 s", "1 min 01 s", "1 h 01 min"]
    assert around(None) == "–"
