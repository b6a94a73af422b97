"""Our models beside whole models of FuxiCTR's zoo for long sequences, in float64: logits within 1e-9, gradients 1e-8.

All of them read a user's columns, a candidate's columns, and the events of a sequence by the tables of the latter.
Where the peer differs from the paper:

FinalMLP   its forward leaves its own gates out; test_fuxictr.py has them
DIN, DIEN  Dice with ε = 1e-9 and averages that move by 0.01; ours has the paper's ε = 1e-8, and the peer gets it here.
           Dice counts padding for its statistics; ours does not, so training is compared on full sequences
DIEN       no auxiliary loss; the logits do not have it either
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from features.manifest import PADDING_ID
from tests.parity.fuxictr_side import (
    HIDDEN,
    OF_ITEM,
    OF_USER,
    Case,
    assert_equal,
    assert_swaps_show,
    case,
    fused,
    layers,
    network,
    of_zoo,
    output,
    same,
    tables,
    train_set,
)
from tests.parity.pairs import EVENTS, Link
from training.batch import Batch

zoo = pytest.importorskip("model_zoo.LongCTR")

ATTENTION = [9, 5]


def oldest_first(ids: Tensor) -> Tensor:
    """[n, L] newest first → oldest first, padding behind."""
    events = [[event for event in reversed(row) if event != PADDING_ID] for row in ids.tolist()]
    return torch.tensor([row + [PADDING_ID] * (ids.shape[1] - len(row)) for row in events])


def long_logits(model: nn.Module, batch: Batch) -> Tensor:
    """The peer reads the candidate as a last event."""
    ids = dict(zip((*OF_USER, *OF_ITEM), batch.ids.unbind(dim=1), strict=True))
    events = {name: oldest_first(batch.sequences[f"history.{name}"]) for name in OF_ITEM}
    items = {name: torch.cat([events[name], ids[name].unsqueeze(1)], dim=1).flatten() for name in OF_ITEM}
    present = events["item"] != PADDING_ID
    found: Tensor = model(({name: ids[name] for name in OF_USER}, items, present.long()))["y_pred"]
    return found


def like_the_paper(peer: nn.Module) -> nn.Module:
    """ε of Dice as in the paper, and its averages as fast as ours."""
    for module in peer.modules():
        if isinstance(module, layers.Dice):
            module.bn.eps, module.bn.momentum = 1e-8, 0.1
    return peer


def final_mlp() -> Case:
    widths: dict[str, Any] = {"mlp1_hidden_units": HIDDEN, "mlp2_hidden_units": [12, HIDDEN[-1]], "num_heads": 2}
    inputs = train_set(history=OF_ITEM)
    links = [*tables(inputs), *network("body.streams.0", "mlp1"), *network("body.streams.1", "mlp2")]
    links += fused("fusion_module")
    conf: dict[str, Any] = {"hidden_1": HIDDEN, "hidden_2": [12, HIDDEN[-1]], "heads": 2, "gated": False}
    peer = of_zoo(zoo.FinalMLP, inputs, use_fs=False, **widths)
    return case("final_mlp", inputs, peer, links, logits=long_logits, unused=["fusion_module.w_y.bias"], **conf)


def dcn_v2() -> Case:
    return _dcn_v2("parallel")


def dcn_v2_stacked() -> Case:
    return _dcn_v2("stacked")


def _dcn_v2(structure: str) -> Case:
    inputs = train_set(history=OF_ITEM)
    units: dict[str, Any] = {f"{structure}_dnn_hidden_units": HIDDEN}
    peer = of_zoo(zoo.DCNv2, inputs, model_structure=structure, num_cross_layers=2, **units)
    links = [*tables(inputs), *network("body.deep", f"{structure}_dnn"), *output("fc")]
    for layer in range(2):
        links += same(f"body.crosses.{layer}.linear", f"crossnet.cross_layers.{layer}", "weight", "bias")
    return case("dcn_v2", inputs, peer, links, logits=long_logits, crosses=2, structure=structure, hidden=HIDDEN)


def din() -> Case:
    return _din("dice", least_events=EVENTS)


def din_short_of_events() -> Case:
    return _din("relu", least_events=0)


def din_normalised() -> Case:
    """A softmax does not move with the last bias: it has no gradient to compare."""
    return _din("relu", least_events=0, normalised=True)


def _din(activation: str, *, least_events: int, normalised: bool = False) -> Case:
    inputs = train_set(history=OF_ITEM)
    peer = of_zoo(
        zoo.DIN,
        inputs,
        dnn_hidden_units=HIDDEN,
        dnn_activations=activation,
        attention_hidden_units=ATTENTION,
        attention_hidden_activations=activation,
        din_use_softmax=normalised,
    )
    unit, theirs = "body.pools.0.unit", "attention_layers.attention_layer.mlp"
    links = [*tables(inputs), *network("body.deep", "dnn", has_dice=activation == "dice"), *output("dnn.mlp.4")]
    for layer in range(len(ATTENTION)):
        links += same(f"{unit}.layers.{layer}", f"{theirs}.{2 * layer}", "weight", "bias")
        links += same(f"{unit}.activations.{layer}", f"{theirs}.{2 * layer + 1}", *(["alpha"] * (activation == "dice")))
    links += same(f"{unit}.last", f"{theirs}.4", *(["weight"] if normalised else ["weight", "bias"]))
    return case(
        "din",
        inputs,
        like_the_paper(peer),
        links,
        logits=long_logits,
        silent=[f"{unit}.last.bias"] * normalised,
        unused=[f"{theirs}.4.bias"] * normalised,
        least_events=least_events,
        normalised=normalised,
        hidden=HIDDEN,
        activation=activation,
        attention_hidden=ATTENTION,
        attention_activation=activation,
    )


def update_first(part: Tensor) -> Tensor:
    """Gates in torch's order (r, u, h̃) → the peer's (u, r, h̃)."""
    reset, update, new = part.chunk(3)
    return torch.cat([update, reset, new])


def dien() -> Case:
    inputs = train_set(history=OF_ITEM)
    peer = of_zoo(zoo.DIEN, inputs, dnn_hidden_units=HIDDEN, dnn_activations="Dice", batch_norm=False)
    links = [*tables(inputs), *network("body.deep", "dnn", has_dice=True), *output("dnn.mlp.4")]
    parts = [f"{part}_{of}_l0" for part in ("weight", "bias") for of in ("ih", "hh")]
    ours = "body.evolutions.0"
    links += same(f"{ours}.extract", "extraction_modules.0", *parts)
    links.append(Link(ours=f"{ours}.relevance.weight", theirs="attention_modules.0.W_kernel"))
    for part, theirs in (("input", "x2h"), ("state", "h2h")):
        for kind in ("weight", "bias"):
            cell = f"evolving_modules.0.gru_cell.{theirs}.{kind}"
            links.append(Link(ours=f"{ours}.evolve.{part}.{kind}", theirs=cell, as_theirs=update_first))
    # the peer has no loss of its own
    return case("dien", inputs, like_the_paper(peer), links, logits=long_logits, hidden=HIDDEN, auxiliary_weight=0.0)


CASES = (final_mlp, dcn_v2, dcn_v2_stacked, din, din_short_of_events, din_normalised, dien)


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_says_what_the_peer_says(make: Callable[[], Case], is_training: bool) -> None:
    assert_equal(make, is_training=is_training)


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_two_weights_swapped_are_noticed(make: Callable[[], Case]) -> None:
    assert_swaps_show(make)
