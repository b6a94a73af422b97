"""A champion on a day: the gate's figures from another path, and counts by loops."""

from __future__ import annotations

import bisect
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.evaluation import FEATURE_EDGES, SCORE_EDGES, Evaluation
from features.manifest import OOV_ID, PADDING_ID
from tests.training.raw_trainset import GATE_DAY, RawTrainset, publish, write_raw_trainset
from tests.training.test_gate import PARITY
from tests.training.test_gate_day import LENIENT
from training.bootstrap import Judged
from training.champion_day import Subject, evaluate_day, histogram, needed_columns, read_batches, task_figures
from training.gate_day import judge_folders
from training.scorer import Scorer

SUBJECT = Subject(model="esmm", version="3", digest="folder", day=GATE_DAY, samples="rows")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> RawTrainset:
    return write_raw_trainset(tmp_path_factory.mktemp("trainset"))


@pytest.fixture(scope="module")
def folder(raw: RawTrainset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(raw, tmp_path_factory.mktemp("esmm") / "published", "esmm")


@pytest.fixture(scope="module")
def scorer(folder: Path) -> Scorer:
    return Scorer.open(str(folder))


@pytest.fixture(scope="module")
def evaluated(raw: RawTrainset, scorer: Scorer) -> Evaluation:
    return evaluate_day(scorer, [raw.samples], SUBJECT)


def test_figures_are_those_of_the_gate(raw: RawTrainset, folder: Path, evaluated: Evaluation) -> None:
    verdict = judge_folders("esmm", folder, None, raw.samples, PARITY, LENIENT)
    assert list(evaluated.tasks) == [task.task for task in verdict.tasks] == ["enter", "gift", "enter_and_gift"]
    for task in verdict.tasks:
        found, wanted = evaluated.tasks[task.task], task.candidate
        assert (found.rows, found.positives) == (task.rows, task.positives)
        for name in ("auc", "gauc", "logloss", "pcoc"):
            assert getattr(found, name) == pytest.approx(getattr(wanted, name), abs=1e-12), name
    assert evaluated.tasks["gift"].rows < evaluated.rows == len(raw.samples)


def test_histograms_count_every_row_in_its_bin(raw: RawTrainset, scorer: Scorer, evaluated: Evaluation) -> None:
    scores = scorer.score(raw.samples)
    for task, counts in evaluated.scores.items():
        assert counts == by_loop(scores[task].tolist(), SCORE_EDGES)
    encoded = scorer.encoder.encode(raw.samples)
    assert set(evaluated.features) == {"user_watch_ms_7d", "room_viewers"}
    for name, counts in evaluated.features.items():
        assert counts == by_loop(encoded[f"d__{name}"].to_pylist(), FEATURE_EDGES)
        assert sum(counts) == len(raw.samples)


def test_unknown_ids_are_counted_over_all_columns_of_a_vocabulary(
    raw: RawTrainset, scorer: Scorer, evaluated: Evaluation
) -> None:
    encoded = scorer.encoder.encode(raw.samples)
    in_sequences = [i for row in encoded["s__watched__anchor"].to_pylist() for i in row if i != PADDING_ID]
    ids = {
        "user": encoded["c__user_id"].to_pylist(),
        "anchor": encoded["c__anchor_id"].to_pylist() + in_sequences,
        "city": encoded["c__user_city"].to_pylist(),
    }
    assert {name: (found.values, found.oov) for name, found in evaluated.oov.items()} == {
        name: (len(values), Counter(values)[OOV_ID]) for name, values in ids.items()
    }
    assert 0.4 < (evaluated.oov["user"].share or 0) < 0.6, "every other user is unknown"


def test_nothing_depends_on_files_and_batches(
    raw: RawTrainset, scorer: Scorer, evaluated: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.champion_day.BATCH_ROWS", 64)
    urls = []
    for start, rows in ((0, 250), (250, 0), (250, 350)):
        urls.append(str(tmp_path / f"{start}-{rows}.parquet"))
        pq.write_table(raw.samples.slice(start, rows), urls[-1])
    batches = [*read_batches(urls, needed_columns(scorer))]
    assert max(len(batch) for batch in batches) == 64
    assert "position" not in batches[0].column_names
    again = evaluate_day(scorer, batches, SUBJECT)
    assert again.model_dump(exclude={"tasks"}) == evaluated.model_dump(exclude={"tasks"})
    for task, figures in evaluated.tasks.items():
        assert again.tasks[task].model_dump() == pytest.approx(figures.model_dump(), abs=1e-9), task


def test_a_day_without_rows_is_evaluated_and_has_no_figures(scorer: Scorer) -> None:
    empty = evaluate_day(scorer, [], SUBJECT)
    assert empty.rows == 0
    assert {figures.auc for figures in empty.tasks.values()} == {None}
    assert {*map(sum, empty.scores.values()), *map(sum, empty.features.values())} == {0}
    assert {len(counts) for counts in empty.scores.values()} == {len(SCORE_EDGES) + 2}
    assert Evaluation.model_validate_json(empty.model_dump_json()) == empty


def test_a_score_that_is_no_number_leaves_no_figure() -> None:
    rows = Judged.of([0.2, math.nan, 0.7], [0, 1, 1], [1, 1, 1], [1, 1, 1])
    assert task_figures(rows).model_dump() == {
        "rows": 3, "positives": 2, "auc": None, "gauc": None, "logloss": None, "pcoc": None,
    }  # fmt: skip


def test_one_class_has_a_logloss_and_no_order() -> None:
    figures = task_figures(Judged.of([0.5, 0.5], [0, 0], [1, 3], [1, 2]))
    assert (figures.auc, figures.gauc, figures.pcoc) == (None, None, None)
    assert figures.logloss == pytest.approx(math.log(2))


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=30))
def test_every_value_has_one_bin(values: list[float]) -> None:
    assert tuple(histogram(np.array(values), FEATURE_EDGES).tolist()) == by_loop(values, FEATURE_EDGES)


def by_loop(values: list[float], edges: tuple[float, ...]) -> tuple[int, ...]:
    counts = [0] * (len(edges) + 2)
    for value in values:
        counts[1 + bisect.bisect_right(edges, value) if math.isfinite(value) else 0] += 1
    return tuple(counts)


def test_edges_ascend() -> None:
    assert [*SCORE_EDGES] == sorted({*SCORE_EDGES})
    assert [*FEATURE_EDGES] == sorted({*FEATURE_EDGES})
