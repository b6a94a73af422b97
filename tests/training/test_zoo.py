"""Limits in which a model must become another, simpler one, and what padding may never change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from features import manifest as m
from features.errors import ConfError
from tests.oracle.recommenders import pairs_of_fields, row_fields
from tests.training.test_models import ROWS, build, make_batch
from tests.training.trainset_factory import write_trainset
from training import models
from training.batch import Batch
from training.modeling.attention import masked_softmax
from training.models.dien import drawn
from training.models.xdeepfm import CIN, XDeepFMConf

QUIET = {"activation": "relu", "attention_activation": "relu"}


@pytest.fixture(scope="module")
def trainset(tmp_path_factory: pytest.TempPathFactory) -> m.TrainSet:
    return write_trainset(tmp_path_factory.mktemp("trainset"), rows=64, valid_rows=64, gate_rows=64)


def take_over(model: models.RankingModel, other: models.RankingModel, renamed: dict[str, str]) -> None:
    """Load every parameter that both have, and those that are called otherwise."""
    state = other.state_dict()
    own = model.state_dict()
    for name in own:
        source = next((name.replace(new, old) for new, old in renamed.items() if name.startswith(new)), name)
        if source in state:
            own[name] = state[source]
    model.load_state_dict(own)


def aligned(batch: Batch) -> Batch:
    """Events that have every field, as a train set holds them."""
    (key, ids), *others = batch.sequences.items()
    present = ids.clamp(max=1)
    return replace(batch, sequences={key: ids} | {name: value.clamp(min=1) * present for name, value in others})


def test_din_with_constant_attention_is_mean_pooling(trainset: m.TrainSet) -> None:
    batch = aligned(make_batch(trainset))
    pooling = build("dnn", trainset)
    din = build("din", trainset, normalised=True, **QUIET)
    take_over(din, pooling, {})
    asked = [value for name, value in din.named_parameters() if name.endswith("unit.last.weight")]
    for weight in asked:
        nn.init.zeros_(weight)
    torch.testing.assert_close(din(batch), pooling(batch), rtol=0, atol=1e-12)
    for weight in asked:
        nn.init.constant_(weight, 0.3)
    assert (din(batch) - pooling(batch)).abs().max() > 1e-3, "attention that is not constant changes nothing"


def test_fm_is_the_naive_double_sum(trainset: m.TrainSet) -> None:
    model, batch = build("fm", trainset).eval(), make_batch(trainset).without_position()
    weights = {name: value.detach().numpy() for name, value in model.named_parameters()}
    dim = model.table.dim
    for row in range(ROWS):
        looked_up = row_fields(batch, row, trainset, weights["table.weight"])
        dense, vector = batch.dense[row].numpy(), batch.vectors["content"][row].numpy()
        fields = [field[:dim] for field in looked_up]
        fields += [weights["input.vectors.0.weight"] @ vector, weights["input.dense.weight"] @ dense]
        linear = sum(field[dim] for field in looked_up) + weights["bias"][0]
        linear += np.concatenate([dense, vector]) @ weights["body.terms.weight"][:, 0]
        assert model(batch)[row, 0].item() == pytest.approx(linear + pairs_of_fields(fields), abs=1e-9)


def test_lr_and_gbdt_lr_are_sums_of_weights(trainset: m.TrainSet) -> None:
    batch = make_batch(trainset).without_position()
    lr, of_leaves = build("lr", trainset).eval(), build("gbdt_lr", trainset).eval()
    is_leaf = [column.kind == "leaf" for column in trainset.categorical]
    for row in range(ROWS):
        for model, chosen in ((lr, None), (of_leaves, is_leaf)):
            weights = {name: value.detach().numpy() for name, value in model.named_parameters()}
            looked_up = [field[0] for field in row_fields(batch, row, trainset, weights["table.weight"])]
            expected = weights["bias"][0]
            if chosen is None:
                rest = np.concatenate([batch.dense[row].numpy(), batch.vectors["content"][row].numpy()])
                expected += sum(looked_up) + rest @ weights["body.terms.weight"][:, 0]
            else:
                expected += sum(weight for weight, wanted in zip(looked_up, chosen, strict=False) if wanted)
            assert model(batch)[row, 0].item() == pytest.approx(expected, abs=1e-9)


def test_a_layer_of_cin_is_its_formula() -> None:
    conf = XDeepFMConf(maps=(3,), map_activation="identity")
    cin, random = CIN(4, conf).double(), torch.Generator().manual_seed(0)
    fields = torch.randn(5, 4, 2, generator=random, dtype=torch.float64)
    weight, bias = (parameter.detach() for parameter in cin.layers[0].parameters())
    for row in range(5):
        for number in range(3):
            expected = torch.zeros(2, dtype=torch.float64) + bias[number]
            for i in range(4):
                for j in range(4):
                    expected += weight[number, i * 4 + j] * fields[row, i] * fields[row, j]
            assert cin(fields)[row, number].item() == pytest.approx(expected.sum().item(), abs=1e-12)


def test_one_expert_is_a_shared_bottom(trainset: m.TrainSet) -> None:
    batch = make_batch(trainset)
    bottom = build("shared_bottom", trainset, bottom_hidden=[9])
    mmoe = build("mmoe", trainset, experts=1, expert_hidden=[9])
    take_over(mmoe, bottom, {"experts.0": "bottom"})
    torch.testing.assert_close(mmoe(batch), bottom(batch), rtol=0, atol=1e-12)
    two = build("mmoe", trainset, experts=2, expert_hidden=[9])
    take_over(two, bottom, {"experts.0": "bottom"})
    assert (two(batch) - bottom(batch)).abs().max() > 1e-3


def test_esmm_is_a_product(trainset: m.TrainSet) -> None:
    model, batch = build("esmm", trainset), make_batch(trainset)
    probabilities = model.probabilities(model(batch))
    torch.testing.assert_close(probabilities[:, 2], probabilities[:, 0] * probabilities[:, 1], rtol=1e-12, atol=0)


def longer(trainset: m.TrainSet, by: int) -> m.TrainSet:
    sequences = tuple(one.model_copy(update={"length": one.length + by}) for one in trainset.sequences)
    return trainset.model_copy(update={"sequences": sequences})


def padded(batch: Batch, by: int) -> Batch:
    return replace(batch, sequences={key: functional.pad(ids, (0, by)) for key, ids in batch.sequences.items()})


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("name", models.names())
def test_more_padding_changes_nothing(name: str, is_training: bool, trainset: m.TrainSet) -> None:
    batch = make_batch(trainset)
    model, with_room = (build(name, one).train(is_training) for one in (trainset, longer(trainset, 5)))
    logits = [model(batch), with_room(padded(batch, 5))]
    for found in logits:
        torch.autograd.backward(found.sum())
    torch.testing.assert_close(*logits, rtol=0, atol=1e-10)
    for ours, theirs in zip(model.dense_parameters(), with_room.dense_parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        if ours.grad is not None and theirs.grad is not None:
            torch.testing.assert_close(theirs.grad, ours.grad, rtol=1e-9, atol=1e-10)


def test_dice_counts_real_positions_only(trainset: m.TrainSet) -> None:
    batch = make_batch(trainset)
    model = build("din", trainset).train()
    model(batch)
    found = {name: value.clone() for name, value in model.named_buffers() if ".normal." in name}
    with_room = build("din", longer(trainset, 40)).train()
    with_room(padded(batch, 40))
    for name, value in with_room.named_buffers():
        if ".normal." in name:
            torch.testing.assert_close(value, found[name])
    assert any("unit" in name for name in found)


def test_shares_are_of_events_alone() -> None:
    scores, present = torch.tensor([[1.0, 2.0, 9.0], [5.0, 1.0, 1.0]]), torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    shares: Tensor = masked_softmax(scores, present)
    assert shares[0].sum().item() == pytest.approx(1)
    assert shares[0, 2] == 0
    assert not shares[1].any()


def test_diens_other_event_is_any_of_the_batch_each_as_likely() -> None:
    present = (torch.arange(4) < torch.arange(200).unsqueeze(1) % 5).double()
    events = torch.arange(1.0, 801, dtype=torch.float64).view(200, 4, 1) * present.unsqueeze(2)
    real = events[events > 0]
    times = torch.zeros(801, dtype=torch.float64)
    draws = 100
    torch.manual_seed(0)
    for _ in range(draws):
        times += torch.bincount(drawn(events, present).flatten().long(), minlength=801)
    expected = draws * present.numel() / len(real)
    assert not times[[number for number in range(801) if number not in real.tolist()]].any(), "padding is no event"
    chi_squared = ((times[real.long()] - expected) ** 2 / expected).sum() / (len(real) - 1)
    assert chi_squared.item() == pytest.approx(1, abs=4 * (2 / len(real)) ** 0.5), "as far from equal as chance has it"


@pytest.mark.parametrize("rows", [0, 3])
def test_diens_other_event_of_a_batch_without_events_is_zero(rows: int) -> None:
    assert torch.equal(drawn(torch.ones(rows, 4, 2), torch.zeros(rows, 4)), torch.zeros(rows, 4, 2))


def test_diens_draw_has_no_shape_that_depends_on_the_events() -> None:
    """On the device "meta" there are shapes and no values: what would wait for a value fails."""
    events = torch.empty(3, 4, 2, device="meta")
    assert drawn(events, torch.empty(3, 4, device="meta")).shape == events.shape


def test_a_vocabulary_of_two_columns_asks_which_is_the_candidates(trainset: m.TrainSet) -> None:
    first, *rest = trainset.categorical
    twice = trainset.model_copy(update={"categorical": (first.model_copy(update={"vocabulary": "anchor_id"}), *rest)})
    with pytest.raises(ConfError, match=r"model.candidates.anchor_id=None: choose one of user_id, anchor_id"):
        models.build("din", twice, {}, seed=0)
    assert models.build("din", twice, {"candidates": {"anchor_id": "anchor_id"}}, seed=0).tasks == ("enter",)


@pytest.mark.parametrize("body", ["deepfm", "din", "dcn_v2", "dien"])
@pytest.mark.parametrize("name", ["shared_bottom", "mmoe", "ple", "esmm"])
def test_towers_sit_on_any_body(name: str, body: str, trainset: m.TrainSet) -> None:
    model, batch = build(name, trainset, body={"name": body}), make_batch(trainset)
    logits = model(batch)
    assert logits.shape == (ROWS, len(model.tasks))
    torch.autograd.backward(logits.sum())
    assert all(parameter.grad is not None for parameter in model.dense_parameters())


def test_keys_of_a_body_are_checked(trainset: m.TrainSet) -> None:
    with pytest.raises(ConfError, match=r"model\.body has embedding_dim: give these to the model"):
        models.build("mmoe", trainset, {"body": {"name": "din", "embedding_dim": 4}}, seed=0)
    with pytest.raises(ConfError, match=r"model.hiden=.*body din"):
        models.build("mmoe", trainset, {"body": {"name": "din", "hiden": [4]}}, seed=0)
    with pytest.raises(ConfError, match=r"model.body.name='dinn' is unknown"):
        models.build("mmoe", trainset, {"body": {"name": "dinn"}}, seed=0)
