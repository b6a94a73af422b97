"""Export of real models: what is published computes what was trained, whatever the rows look like."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pytest
import torch

from features.errors import DataError, GateStoppedError
from features.manifest import categorical_column
from tests.training.raw_trainset import RawTrainset, write_raw_trainset
from training.export import export_folder, probe, torch_scores
from training.modeling.base import RankingModel
from training.models import build
from training.parity import check_parity
from training.published import EXAMPLES_FILE, GRAPH_FILE, MANIFEST_FILE, verify
from training.scorer import IDS, Scorer, graph_inputs, read_examples

SMALL = {
    "deepfm": {"embedding_dim": 4, "hidden": [8], "batch_norm": True, "dropout": 0.3},
    "esmm": {"embedding_dim": 4, "hidden": [8], "negatives_kept": {"enter": 0.2}},
    "mmoe": {"embedding_dim": 4, "experts": 2, "expert_hidden": [8], "tower_hidden": [4]},
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> RawTrainset:
    return write_raw_trainset(tmp_path_factory.mktemp("trainset"))


def loud(model: RankingModel) -> RankingModel:
    """Weights large enough that a wrong id or a lost field shows; fresh ones are almost zero."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return model


@dataclass(frozen=True, kw_only=True)
class Published:
    """A model and its folder; `before` is its state before the export."""

    model: RankingModel
    folder: Path
    before: dict[str, torch.Tensor]


@pytest.fixture(scope="module", params=sorted(SMALL))
def published(request: pytest.FixtureRequest, raw: RawTrainset, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Exported over what an attempt before left, from a model that was last in training."""
    model = loud(build(request.param, raw.trainset, SMALL[request.param], seed=3)).train()
    before = copy.deepcopy(model.state_dict())
    folder = tmp_path_factory.mktemp(request.param) / "published"
    folder.mkdir()
    (folder / "left over").write_text("from an attempt before")
    card = {"name": request.param, "conf": SMALL[request.param]}
    export_folder(model, raw.trainset, raw.root, raw.samples, card, folder)
    return Published(model=model, folder=folder, before=before)


def test_onnx_runtime_from_raw_rows_is_pytorch_on_exported_rows(published: Published, raw: RawTrainset) -> None:
    parity = check_parity(published.model, published.folder, raw.samples, raw.encoded)
    assert parity.rows == len(raw.samples)
    assert not parity.differing_columns
    assert parity.logit_difference <= 1e-4
    assert parity.probability_difference <= 1e-5
    assert parity.rows_with_empty_sequence > 50
    assert parity.rows_with_oov > 50
    assert parity.single_row_batches > 50


@pytest.mark.parametrize("rows", [1, 2, 33])
@pytest.mark.parametrize("strange", [{}, {"oov": True}, {"empty": True}, {"oov": True, "empty": True}])
def test_any_rows_in_any_number_score_as_in_pytorch(
    published: Published, raw: RawTrainset, rows: int, strange: dict[str, bool]
) -> None:
    inputs = probe(raw.trainset, rows, seed=rows, **strange)
    logits, probabilities = Scorer.open(str(published.folder)).run(inputs)
    wanted_logits, wanted = torch_scores(published.model, raw.trainset, inputs)
    np.testing.assert_allclose(logits, wanted_logits, rtol=0, atol=1e-4)
    np.testing.assert_allclose(probabilities, wanted, rtol=0, atol=1e-5)


def test_the_graph_has_no_position_and_a_free_number_of_rows(published: Published, raw: RawTrainset) -> None:
    graph = onnx.load(published.folder / GRAPH_FILE).graph
    names = {item.name for item in graph.input}
    assert names == set(probe(raw.trainset, 1))
    assert all(item.type.tensor_type.shape.dim[0].dim_param for item in graph.input)
    assert not any("position" in weight.name for weight in graph.initializer)
    assert any("position" in name for name, _ in published.model.named_parameters())


def test_the_folder_is_complete_and_its_examples_hold(published: Published, raw: RawTrainset) -> None:
    contents = verify(published.folder)
    listed = {file.path for file in contents.files}
    wanted = {"model.onnx", "model.json", "trainset.json", "schema.json", EXAMPLES_FILE, "booster.ubj"}
    assert wanted | {f"vocabularies/{name}.parquet" for name in ("user", "anchor", "city")} == listed
    rows, expected = read_examples(published.folder)
    scores = Scorer.open(str(published.folder)).score(rows)
    assert set(scores) == set(expected) == set(published.model.tasks)
    for task, wanted_scores in expected.items():
        np.testing.assert_allclose(scores[task], wanted_scores, rtol=0, atol=1e-5)
    assert json.loads((published.folder / "model.json").read_text())["name"] == contents.model


def test_exporting_leaves_the_model_as_it_was(published: Published) -> None:
    assert published.model.training
    for name, value in published.model.state_dict().items():
        assert torch.equal(value, published.before[name])


def test_an_export_is_whole_and_replaces_the_one_before(published: Published) -> None:
    assert [path.name for path in published.folder.parent.iterdir()] == ["published"]
    assert not (published.folder / "left over").exists()
    assert (published.folder / MANIFEST_FILE).is_file()


def test_a_graph_that_computes_something_else_is_not_published(
    raw: RawTrainset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporter is made to bake a different weight in; nothing must be left of the folder."""
    model = loud(build("deepfm", raw.trainset, SMALL["deepfm"], seed=3))
    original: Callable[..., object] = torch.onnx.export

    def wrong(graph: torch.nn.Module, *args: object, **kwargs: object) -> object:
        spoiled = copy.deepcopy(graph)
        with torch.no_grad():
            weight = spoiled.get_parameter("model.table.weight")
            weight.add_(0.01)
        return original(spoiled, *args, **kwargs)

    monkeypatch.setattr(torch.onnx, "export", wrong)
    with pytest.raises(GateStoppedError, match="one row: logits differ"):
        export_folder(model, raw.trainset, raw.root, raw.samples, {"name": "deepfm"}, tmp_path / "published")
    assert not list(tmp_path.iterdir())


def test_parity_sees_ids_that_differ_from_the_train_set(published: Published, raw: RawTrainset) -> None:
    name = categorical_column("leaf_1")
    place = raw.encoded.column_names.index(name)
    moved = raw.encoded[name].to_numpy().copy()
    moved[[4, 9]] += 1
    other = raw.encoded.set_column(place, name, pa.array(moved))
    assert check_parity(published.model, published.folder, raw.samples, other).differing_columns == {name: 2}


def test_parity_refuses_rows_that_the_train_set_lacks(published: Published, raw: RawTrainset) -> None:
    with pytest.raises(DataError, match=r"not in the train set \(100\)"):
        check_parity(published.model, published.folder, raw.samples, raw.encoded.slice(100))
    with pytest.raises(DataError, match="no held-out rows"):
        check_parity(published.model, published.folder, raw.samples.slice(0, 0), raw.encoded)


def test_rows_of_the_day_see_only_what_was_admitted_by_it(raw: RawTrainset) -> None:
    """The factory's last keys are admitted after the gate day: rows of the gate day must not know them."""
    ids = graph_inputs(raw.encoded, raw.trainset)[IDS]
    assert ids[:, 0].max() < raw.trainset.num_ids("user") - 1
    assert (ids[:, 0] > 1).any()
