"""The figures that models are judged by where the truth is known, against naive counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.known_truth import SCHEMA_FILE, Training, auc, auc_of_truth, sigmoid, write
from training.config import TrainConf
from training.samples.schema import SampleSchema

ROWS = st.lists(st.tuples(st.floats(0.01, 0.99), st.integers(0, 5)), min_size=1, max_size=30)


def naive_auc(positive: np.ndarray, negative: np.ndarray, score: np.ndarray) -> float:
    """Share of pairs in the right order, a tie counting half; rows weigh what they are given."""
    pairs = positive[:, None] * negative[None, :]
    right = (score[:, None] > score[None, :]) + 0.5 * (score[:, None] == score[None, :])
    return float((pairs * right).sum() / pairs.sum())


@settings(deadline=None)  # time is not what is tested
@given(rows=ROWS)
def test_auc_of_the_truth_is_the_double_sum(rows: list[tuple[float, int]]) -> None:
    probability, score = np.array([row[0] for row in rows]), np.array([float(row[1]) for row in rows])
    assert auc_of_truth(probability, score) == pytest.approx(naive_auc(probability, 1 - probability, score))


def test_auc_of_drawn_labels_is_the_naive_count_and_near_that_of_the_truth() -> None:
    rng = np.random.default_rng(3)
    probability = sigmoid(rng.normal(0.0, 1.5, 2_000))
    label = (rng.random(2_000) < probability).astype(np.int64)
    assert auc(label, probability) == pytest.approx(naive_auc(label, 1 - label, probability))
    assert auc(label, probability) == pytest.approx(auc_of_truth(probability, probability), abs=0.03)


def test_settings_go_over_those_of_the_model() -> None:
    training = Training(
        name="a", model="din", layers={"embedding_dim": 4}, settings={"epochs": 7, "early_stopping": {}}, seed=5
    )
    conf = TrainConf.of(training.values)
    assert (conf.seed, conf.epochs, conf.early_stopping.task) == (5, 7, None)
    assert conf.model.conf["embedding_dim"] == 4
    assert conf.model.conf["attention_hidden"] == [36]


def test_what_is_written_replaces_what_was_there(tmp_path: Path) -> None:
    columns = {"item": {"role": "categorical"}, "click": {"role": "label"}}
    for click in ([0, 1], [1, 1, 0]):
        write(tmp_path / "world", {"train": pa.table({"item": click, "click": click})}, columns)
        assert pq.read_table(tmp_path / "world" / "train.parquet")["click"].to_pylist() == click
    assert SampleSchema.load(tmp_path / "world" / SCHEMA_FILE).read == ["item", "click"]
