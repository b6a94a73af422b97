"""Our models beside DeepCTR-Torch 0.3.0 with equal weights, in float64: logits within 1e-9, gradients 1e-8."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor

from features.manifest import TrainSet
from tests.parity.deepctr import (
    BIAS,
    DIM,
    HEAD,
    HIDDEN,
    averages,
    columns,
    flat,
    linear_terms,
    network,
    paired,
    tables,
    taking,
    zoo,
)
from tests.parity.pairs import (
    Link,
    Pair,
    assert_agreement,
    small_batch,
    small_inputs,
)


def wide_deep(inputs: TrainSet, *, batch_norm: bool = False) -> Pair:
    peer = zoo.WDL(columns(inputs), columns(inputs), dnn_hidden_units=HIDDEN, dnn_use_bn=batch_norm)
    deep = network(reads=flat(inputs), batch_norm=batch_norm)
    links = [*linear_terms(inputs, "body.wide.weight"), *deep, BIAS, HEAD]
    conf: dict[str, object] = {"hidden": HIDDEN, "batch_norm": batch_norm}
    return paired(inputs, "wide_deep", peer, links, conf, averages=averages() if batch_norm else ())


def deepfm(inputs: TrainSet) -> Pair:
    peer = zoo.DeepFM(columns(inputs), columns(inputs), dnn_hidden_units=HIDDEN)
    links = [*linear_terms(inputs), *network(reads=flat(inputs)), BIAS, HEAD]
    return paired(inputs, "deepfm", peer, links, {"hidden": HIDDEN})


def nfm(inputs: TrainSet) -> Pair:
    peer = zoo.NFM(columns(inputs), columns(inputs), dnn_hidden_units=HIDDEN)
    return paired(inputs, "nfm", peer, [*linear_terms(inputs), *network(), BIAS, HEAD], {"hidden": HIDDEN})


def crossed_head(inputs: TrainSet) -> Link:
    """Over what was crossed ∥ the network's last layer."""
    reads, width = flat(inputs), len(flat(inputs)) + DIM * bool(inputs.dense)
    places = [*reads, *range(width, width + HIDDEN[-1])]
    return Link(ours="head.weight", theirs="dnn_linear.weight", as_theirs=taking(places))


def as_column(reads: list[int]) -> Callable[[Tensor], Tensor]:
    """[width] → [places, 1]."""
    return lambda part: part[reads].unsqueeze(1)


def rows(reads: list[int]) -> Callable[[Tensor], Tensor]:
    return lambda part: part[reads]


def dcn(inputs: TrainSet) -> Pair:
    """A silent field stays 0 in the crosses, as its biases are not linked."""
    peer = zoo.DCN(columns(inputs), columns(inputs), cross_num=3, dnn_hidden_units=HIDDEN)
    reads = flat(inputs)
    links = [*tables(inputs, linear=False), *network(reads=reads), BIAS, crossed_head(inputs)]
    for layer in range(3):
        ours = f"body.crosses.{layer}"
        links.append(Link(ours=f"{ours}.weight", theirs="crossnet.kernels", place=layer, as_theirs=rows(reads)))
        links.append(Link(ours=f"{ours}.bias", theirs="crossnet.bias", place=layer, as_theirs=as_column(reads)))
    return paired(inputs, "dcn", peer, links, {"crosses": 3, "hidden": HIDDEN})


def dcn_v2(inputs: TrainSet) -> Pair:
    peer = zoo.DCN(
        columns(inputs), columns(inputs), cross_num=2, cross_parameterization="matrix", dnn_hidden_units=HIDDEN
    )
    reads = flat(inputs)
    links = [*tables(inputs, linear=False), *network(reads=reads), BIAS, crossed_head(inputs)]
    for layer in range(2):
        ours = f"body.crosses.{layer}.linear"
        matrix = Link(
            ours=f"{ours}.weight", theirs="crossnet.kernels", place=layer, as_theirs=lambda part: part[reads][:, reads]
        )
        bias = Link(ours=f"{ours}.bias", theirs="crossnet.bias", place=layer, as_theirs=as_column(reads))
        links += [matrix, bias]
    return paired(inputs, "dcn_v2", peer, links, {"crosses": 2, "hidden": HIDDEN})


def maps(inputs: TrainSet, maps_before: int | None) -> Callable[[Tensor], Tensor]:
    """W^{k,h} of all pairs (map before, field), [H, pairs] → [H, pairs of the peer's fields, 1]."""
    ids = len(inputs.categorical)
    fields = ids + bool(inputs.dense)
    own, kept = (fields, ids) if maps_before is None else (maps_before, maps_before)
    return lambda part: part.view(-1, own, fields)[:, :kept, :ids].flatten(start_dim=1).unsqueeze(2)


def xdeepfm(inputs: TrainSet) -> Pair:
    peer = zoo.xDeepFM(columns(inputs), columns(inputs), dnn_hidden_units=HIDDEN, cin_layer_size=(8, 6))
    links = [*linear_terms(inputs), *network(reads=flat(inputs)), BIAS]
    links.append(Link(ours="head.weight", theirs="dnn_linear.weight", columns=slice(0, HIDDEN[-1])))
    links.append(Link(ours="head.weight", theirs="cin_linear.weight", columns=slice(HIDDEN[-1], None)))
    for layer, maps_before in enumerate((None, 8 // 2)):
        ours, theirs = f"body.cin.layers.{layer}", f"cin.conv1ds.{layer}"
        links.append(Link(ours=f"{ours}.weight", theirs=f"{theirs}.weight", as_theirs=maps(inputs, maps_before)))
        links.append(Link(ours=f"{ours}.bias", theirs=f"{theirs}.bias"))
    return paired(inputs, "xdeepfm", peer, links, {"maps": [8, 6], "hidden": HIDDEN})


def autoint(inputs: TrainSet) -> Pair:
    """The peer's heads share the embedding dim: theirs are DIM / heads wide."""
    peer = zoo.AutoInt(columns(inputs), columns(inputs), att_layer_num=2, att_head_num=2, dnn_hidden_units=HIDDEN)
    links = [*tables(inputs, linear=False), *network(), BIAS, HEAD]
    names = {"query": "W_Query", "key": "W_key", "value": "W_Value", "residual": "W_Res"}
    for layer in range(2):
        for ours, theirs in names.items():
            peers = f"int_layers.{layer}.{theirs}"
            links.append(Link(ours=f"body.layers.{layer}.{ours}.weight", theirs=peers, as_theirs=lambda part: part.T))
    conf: dict[str, object] = {"layers": 2, "heads": 2, "head_width": DIM // 2, "hidden": HIDDEN}
    return paired(inputs, "autoint", peer, links, conf)


def normalised(inputs: TrainSet) -> Pair:
    return wide_deep(inputs, batch_norm=True)


PAIRS = (wide_deep, normalised, deepfm, nfm, dcn, dcn_v2, xdeepfm, autoint)
WITH_DENSE = (wide_deep, normalised, deepfm, dcn, dcn_v2, xdeepfm)
CASES = [(make, 0) for make in PAIRS] + [(make, 3) for make in WITH_DENSE]


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize(("make", "dense"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_says_what_the_peer_says(make: Callable[[TrainSet], Pair], dense: int, is_training: bool) -> None:
    inputs = small_inputs(dense=dense)
    assert_agreement(make(inputs), small_batch(inputs), is_training=is_training)
