"""Our models beside DeepCTR-Torch 0.3.0 with equal weights, in float64: logits within 1e-9, gradients 1e-8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from features.manifest import TrainSet
from tests.parity.pairs import (
    GRADIENTS_WITHIN,
    LEAST_DEVIATION,
    LOGITS_WITHIN,
    Link,
    Pair,
    difference,
    small_batch,
    small_inputs,
)
from training import models
from training.batch import Batch

deepctr = pytest.importorskip("deepctr_torch.models")
inputs_of = pytest.importorskip("deepctr_torch.inputs")

DIM = 6
HIDDEN = [10, 7]


def columns(inputs: TrainSet) -> list[Any]:
    """The peer's feature columns, in our order."""
    sparse = [inputs_of.SparseFeat(c.name, inputs.num_ids(c.vocabulary), embedding_dim=DIM) for c in inputs.categorical]
    return sparse + [inputs_of.DenseFeat(c.name, 1) for c in inputs.dense]


def peer_logits(model: nn.Module, batch: Batch) -> Tensor:
    """The peer gives probabilities; float64 keeps the logits behind them."""
    probabilities = model(torch.cat([batch.ids.double(), batch.dense], dim=1))
    return torch.logit(probabilities)


def tables(inputs: TrainSet, *, linear: bool) -> list[Link]:
    """Embeddings, and the linear weights of ids."""
    found = []
    for name, first in inputs.offsets().items():
        rows = slice(first, first + inputs.num_ids(name))
        found.append(
            Link(ours="table.weight", theirs=f"embedding_dict.{name}.weight", rows=rows, columns=slice(0, DIM))
        )
        if linear:
            theirs = f"linear_model.embedding_dict.{name}.weight"
            found.append(Link(ours="table.weight", theirs=theirs, rows=rows, columns=slice(DIM, DIM + 1)))
    return found


def network(theirs: str = "dnn", ours: str = "body.deep", layers: int = len(HIDDEN)) -> list[Link]:
    """An MLP: theirs is linears.i, ours every other module."""
    return [
        Link(ours=f"{ours}.{2 * layer}.{part}", theirs=f"{theirs}.linears.{layer}.{part}")
        for layer in range(layers)
        for part in ("weight", "bias")
    ]


BIAS = Link(ours="bias", theirs="out.bias")
HEAD = Link(ours="head.weight", theirs="dnn_linear.weight")


def unused_linear(inputs: TrainSet) -> list[str]:
    return [f"linear_model.embedding_dict.{column.name}.weight" for column in inputs.categorical]


def wide_deep(inputs: TrainSet) -> Pair:
    peer = deepctr.WDL(columns(inputs), columns(inputs), dnn_hidden_units=HIDDEN)
    return _pair(inputs, "wide_deep", peer, [*tables(inputs, linear=True), *network(), BIAS, HEAD], hidden=HIDDEN)


def deepfm(inputs: TrainSet) -> Pair:
    peer = deepctr.DeepFM(columns(inputs), columns(inputs), dnn_hidden_units=HIDDEN)
    return _pair(inputs, "deepfm", peer, [*tables(inputs, linear=True), *network(), BIAS, HEAD], hidden=HIDDEN)


def nfm(inputs: TrainSet) -> Pair:
    peer = deepctr.NFM(columns(inputs), columns(inputs), dnn_hidden_units=HIDDEN)
    links = [*tables(inputs, linear=True), *network(), BIAS, HEAD]
    return _pair(inputs, "nfm", peer, links, hidden=HIDDEN)


def cross_bias(ours: str, layer: int) -> Link:
    return Link(ours=ours, theirs="crossnet.bias", place=layer, as_theirs=lambda part: part.unsqueeze(1))


def dcn(inputs: TrainSet) -> Pair:
    peer = deepctr.DCN(columns(inputs), columns(inputs), cross_num=3, dnn_hidden_units=HIDDEN)
    links = [*tables(inputs, linear=False), *network(), BIAS, HEAD]
    for layer in range(3):
        links.append(Link(ours=f"body.crosses.{layer}.weight", theirs="crossnet.kernels", place=layer))
        links.append(cross_bias(f"body.crosses.{layer}.bias", layer))
    return _pair(inputs, "dcn", peer, links, crosses=3, hidden=HIDDEN)


def dcn_v2(inputs: TrainSet) -> Pair:
    peer = deepctr.DCN(
        columns(inputs), columns(inputs), cross_num=2, cross_parameterization="matrix", dnn_hidden_units=HIDDEN
    )
    links = [*tables(inputs, linear=False), *network(), BIAS, HEAD]
    for layer in range(2):
        links.append(Link(ours=f"body.crosses.{layer}.linear.weight", theirs="crossnet.kernels", place=layer))
        links.append(cross_bias(f"body.crosses.{layer}.linear.bias", layer))
    return _pair(inputs, "dcn_v2", peer, links, crosses=2, hidden=HIDDEN)


def xdeepfm(inputs: TrainSet) -> Pair:
    peer = deepctr.xDeepFM(columns(inputs), columns(inputs), dnn_hidden_units=HIDDEN, cin_layer_size=(8, 6))
    links = [*tables(inputs, linear=True), *network(), BIAS]
    links.append(Link(ours="head.weight", theirs="dnn_linear.weight", columns=slice(0, HIDDEN[-1])))
    links.append(Link(ours="head.weight", theirs="cin_linear.weight", columns=slice(HIDDEN[-1], None)))
    for layer in range(2):
        ours, theirs = f"body.cin.layers.{layer}", f"cin.conv1ds.{layer}"
        links.append(Link(ours=f"{ours}.weight", theirs=f"{theirs}.weight", as_theirs=lambda part: part.unsqueeze(2)))
        links.append(Link(ours=f"{ours}.bias", theirs=f"{theirs}.bias"))
    return _pair(inputs, "xdeepfm", peer, links, maps=[8, 6], hidden=HIDDEN)


def autoint(inputs: TrainSet) -> Pair:
    """The peer's heads share the embedding dim: theirs are DIM / heads wide."""
    peer = deepctr.AutoInt(columns(inputs), columns(inputs), att_layer_num=2, att_head_num=2, dnn_hidden_units=HIDDEN)
    links = [*tables(inputs, linear=False), *network(), BIAS, HEAD]
    names = {"query": "W_Query", "key": "W_key", "value": "W_Value", "residual": "W_Res"}
    for layer in range(2):
        for ours, theirs in names.items():
            peers = f"int_layers.{layer}.{theirs}"
            links.append(Link(ours=f"body.layers.{layer}.{ours}.weight", theirs=peers, as_theirs=lambda part: part.T))
    return _pair(inputs, "autoint", peer, links, layers=2, heads=2, head_width=DIM // 2, hidden=HIDDEN)


def _pair(inputs: TrainSet, name: str, peer: nn.Module, links: Sequence[Link], **conf: object) -> Pair:
    ours = models.build(name, inputs, {"embedding_dim": DIM, **conf}, seed=0).double()
    linked = {link.theirs for link in links}
    unused = [name for name, _ in peer.named_parameters() if name.startswith("linear_model") and name not in linked]
    silent = [name for name, _ in ours.named_parameters() if name == "body.terms.weight" or name == "body.wide.weight"]
    return Pair(ours=ours, theirs=peer.double(), logits=peer_logits, links=links, unused=unused, silent=silent)


PAIRS = (wide_deep, deepfm, nfm, dcn, dcn_v2, xdeepfm, autoint)


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("make", PAIRS, ids=lambda make: make.__name__)
def test_says_what_the_peer_says(make: Callable[[TrainSet], Pair], is_training: bool) -> None:
    inputs = small_inputs()
    logits, gradients, deviation = difference(make(inputs), small_batch(inputs), is_training=is_training)
    assert deviation >= LEAST_DEVIATION
    assert logits <= LOGITS_WITHIN
    assert gradients <= GRADIENTS_WITHIN
