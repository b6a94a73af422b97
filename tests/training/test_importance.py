"""Loss of AUC per permuted group, against permuting the encoded table and asking scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import roc_auc_score

from features.manifest import (
    TrainSet,
    categorical_column,
    dense_column,
    label_column,
    mask_column,
    sequence_column,
    vector_column,
)
from tests.training.trainset_factory import write_trainset
from training.export import torch_scores
from training.importance import Explained, Group, groups_of
from training.modeling.base import RankingModel
from training.models import build
from training.scorer import graph_inputs

COLUMNS = {
    "user_id": [categorical_column("user_id")],
    "category": [categorical_column("category")],
    "heat": [dense_column("heat")],
    "content": [vector_column("content")],
    "watched": [sequence_column("watched", "anchor_id"), sequence_column("watched", "age")],
    "all leaves": [categorical_column("leaf_0"), categorical_column("leaf_1")],
    "all dense": [dense_column("heat"), dense_column("affinity")],
}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[RankingModel, TrainSet, pa.Table]:
    """An ESMM with loud random weights, and the valid split; unequal weights, most rows masked for the child."""
    folder = tmp_path_factory.mktemp("set")
    trainset = write_trainset(folder, rows=64, valid_rows=400, gate_rows=64, weights=True)
    model = build("esmm", trainset, {"embedding_dim": 4, "hidden": [8]}, seed=1).eval()
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model, trainset, pa.concat_tables(pq.read_table(folder / f.path) for f in trainset.splits["valid"].files)


def naive_auc(model: RankingModel, trainset: TrainSet, rows: pa.Table) -> dict[str, float]:
    """By scikit-learn, of the two plain targets; by logits, as float32 probabilities may tie."""
    scores, _ = torch_scores(model, trainset, graph_inputs(rows, trainset))
    found = {}
    for place, task in enumerate(("enter", "gift")):
        label, weight = rows[label_column(task)].to_numpy(), rows[mask_column(task)].to_numpy()
        found[task] = float(roc_auc_score(label, scores[:, place], sample_weight=weight))
    return found


def test_losses_are_those_of_a_permuted_table(asked: tuple[RankingModel, TrainSet, pa.Table]) -> None:
    model, trainset, rows = asked
    explained = Explained(model, trainset, rows)
    whole = naive_auc(model, trainset, rows)
    assert {task: explained.auc[task] for task in whole} == pytest.approx(whole, abs=1e-6)
    groups = [group for group in groups_of(trainset) if group.name in COLUMNS]
    assert {group.name for group in groups} == set(COLUMNS)
    told: list[str] = []
    found = list(explained.losses(groups, repeats=2, seed=5, done=lambda group: told.append(group.name)))
    assert len(told) == 2 * len(groups)
    seen = {(loss.group.name, loss.target): loss.losses for loss in found}
    for name, columns in COLUMNS.items():
        for repeat in range(2):
            order = pa.array(np.random.default_rng([5, repeat]).permutation(len(rows)))
            table = rows
            for column in columns:
                table = table.set_column(table.column_names.index(column), column, rows[column].take(order))
            for task, auc in naive_auc(model, trainset, table).items():
                assert seen[name, task][repeat] == pytest.approx(whole[task] - auc, abs=1e-6), (name, task)
    assert all(any(seen[name, task] != (0.0, 0.0) for task in model.tasks) for name in COLUMNS)


def test_the_rows_are_left_as_they_were(asked: tuple[RankingModel, TrainSet, pa.Table]) -> None:
    explained = Explained(*asked)
    nothing = Group(name="nothing", kind="dense", parts=())
    groups = [*groups_of(asked[1]), nothing]
    first, second = (list(explained.losses(groups, repeats=1, seed=1, done=lambda _: None)) for _ in range(2))
    assert first == second
    assert [loss.losses for loss in first if loss.group == nothing] == [(0.0,)] * 3


def test_every_input_is_in_a_group(asked: tuple[RankingModel, TrainSet, pa.Table]) -> None:
    _, trainset, rows = asked
    groups = groups_of(trainset)
    assert [group.name for group in groups] == [
        "user_id", "anchor_id", "category", "heat", "affinity", "content", "watched", "all leaves",
        "all categorical", "all dense",
    ]  # fmt: skip
    ids = {column for group in groups for name, column in group.parts if name == "ids"}
    assert ids == set(range(len(trainset.categorical)))
    assert {name for group in groups for name, _ in group.parts} == set(graph_inputs(rows, trainset))


def test_an_undefined_auc_has_no_loss(asked: tuple[RankingModel, TrainSet, pa.Table], tmp_path: Path) -> None:
    model, trainset, rows = asked
    name = label_column("gift")
    never = rows.set_column(rows.column_names.index(name), name, pa.array(np.zeros(len(rows), np.float32)))
    explained = Explained(model, trainset, never)
    assert explained.auc["gift"] is None
    losses = explained.losses(groups_of(trainset)[:1], repeats=1, seed=0, done=lambda _: None)
    assert {loss.target: len(loss.losses) for loss in losses} == {"enter": 1, "gift": 0, "enter_and_gift": 0}
