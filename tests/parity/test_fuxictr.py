"""Our models beside those built of FuxiCTR's layers, in float64: logits within 1e-9, gradients 1e-8.

The wheel of FuxiCTR 2.3.10 has no LR, FM or DNN, but all that they are made of; and of FinalMLP it has the gates, which
its own model leaves out. Sequences are pooled by the mean on both sides, and share the tables of columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from features.manifest import TrainSet
from tests.parity.fuxictr_side import (
    DIM,
    HIDDEN,
    OF_ITEM,
    TABLES,
    Case,
    assert_equal,
    assert_swaps_show,
    case,
    feature_map,
    fused,
    layers,
    network,
    of_zoo,
    output,
    pooled_fields,
    same,
    tables,
    train_set,
)
from tests.parity.pairs import LEAST_DEVIATION, Link, difference

zoo = pytest.importorskip("model_zoo.LongCTR")

FLOAT32_WITHIN = 1e-5


class PeerFM(nn.Module):
    """Embeddings and the peer's factorisation machine, which has a logistic regression inside."""

    def __init__(self, inputs: TrainSet) -> None:
        super().__init__()
        self.embedding_layer = layers.FeatureEmbedding(feature_map(inputs), DIM)
        self.fm = layers.FactorizationMachine(feature_map(inputs))
        pool_by_mean(self.fm.lr_layer, inputs)

    def forward(self, rows: Mapping[str, Tensor]) -> Tensor:
        found: Tensor = self.fm(rows, self.embedding_layer(rows))
        return found


class PeerDNN(nn.Module):
    """Embeddings and the peer's MLP."""

    def __init__(self, inputs: TrainSet, *, batch_norm: bool) -> None:
        super().__init__()
        self.embedding_layer = layers.FeatureEmbedding(feature_map(inputs), DIM)
        width = feature_map(inputs).sum_emb_out_dim()
        self.mlp = layers.MLP_Block(width, hidden_units=HIDDEN, output_dim=1, batch_norm=batch_norm)

    def forward(self, rows: Mapping[str, Tensor]) -> Tensor:
        found: Tensor = self.mlp(self.embedding_layer(rows, flatten_emb=True))
        return found


class GatedFinalMLP(nn.Module):
    """The parts of the peer's FinalMLP, with its gates: they read the embeddings that the streams read.

    The peer gives its gates tables of their own.
    """

    def __init__(self, parts: Any) -> None:
        super().__init__()
        self.parts = parts
        whole = parts.embedding_layer.embedding_layer
        gated = parts.fs_module.fs1_ctx_emb.embedding_layer
        for name in gated.embedding_layers:
            gated.embedding_layers[name] = whole.embedding_layers[name]

    def forward(self, rows: Mapping[str, Tensor]) -> Tensor:
        flat = self.parts.embedding_layer(rows, flatten_emb=True)
        first, second = self.parts.fs_module(rows, flat)
        found: Tensor = self.parts.fusion_module(self.parts.mlp1(first), self.parts.mlp2(second))
        return found


def pool_by_mean(regression: Any, inputs: TrainSet) -> None:
    """The peer's LR sums the weights of a sequence up, and has weights of its own for it; ours takes the mean."""
    own = regression.embedding_layer.embedding_layer
    for name, vocabulary in pooled_fields(inputs).items():
        own.feature_encoders[name] = layers.MaskedAveragePooling()
        own.embedding_layers[name] = own.embedding_layers[vocabulary]


def lr(dense: int = 0) -> Case:
    inputs = train_set(history=OF_ITEM, dense=dense)
    peer = layers.LogisticRegression(feature_map(inputs))
    pool_by_mean(peer, inputs)
    links = [*tables(inputs, linear=True, dim=0), Link(ours="bias", theirs="bias"), *of_dense(TABLES, dense)]
    silent = [] if dense else ["body.terms.weight"]
    return case("lr", inputs, peer, links, silent=silent, embedding_dim=0)


def fm(dense: int = 0) -> Case:
    inputs = train_set(history=OF_ITEM, dense=dense)
    weights = f"fm.lr_layer.{TABLES}"
    links = [*tables(inputs), *tables(inputs, weights, linear=True), Link(ours="bias", theirs="fm.lr_layer.bias")]
    links += of_dense(weights, dense)
    links += [Link(ours="input.dense.weight", theirs=f"{TABLES}.x0.weight")] if dense else []
    return case("fm", inputs, PeerFM(inputs), links, silent=[] if dense else ["body.terms.weight"])


def of_dense(theirs: str, dense: int) -> list[Link]:
    """The linear weights of dense numbers."""
    return [
        Link(ours="body.terms.weight", rows=slice(place, place + 1), theirs=f"{theirs}.x{place}.weight")
        for place in range(dense)
    ]


def dnn() -> Case:
    inputs = train_set(history=OF_ITEM)
    links = [*tables(inputs), *network("body.deep", "mlp"), *output("mlp.mlp.4")]
    return case("dnn", inputs, PeerDNN(inputs, batch_norm=False), links, hidden=HIDDEN)


def dnn_normalised() -> Case:
    """Biases below the normalisation do nothing: they have no gradient to compare."""
    inputs = train_set(history=OF_ITEM)
    links = [*tables(inputs), *output("mlp.mlp.6")]
    links += same("body.deep", "mlp.mlp", "0.weight", "1.weight", "1.bias", "3.weight", "4.weight", "4.bias")
    idle: dict[str, Any] = {
        "silent": ["body.deep.0.bias", "body.deep.3.bias"],
        "unused": ["mlp.mlp.0.bias", "mlp.mlp.3.bias"],
    }
    peer = PeerDNN(inputs, batch_norm=True)
    return case("dnn", inputs, peer, links, batch_norm=True, hidden=HIDDEN, **idle)


def final_mlp_gated() -> Case:
    """One gate reads two fields, the other a learnt constant."""
    inputs = train_set(history=OF_ITEM)
    gates: dict[str, Any] = {"fs_hidden_units": [7], "fs1_context": ["user", "item"], "fs2_context": []}
    widths: dict[str, Any] = {"mlp1_hidden_units": HIDDEN, "mlp2_hidden_units": [12, HIDDEN[-1]], "num_heads": 2}
    peer = GatedFinalMLP(of_zoo(zoo.FinalMLP, inputs, is_long=False, **gates, **widths))
    links = tables(inputs, f"parts.{TABLES}")
    for place, number in enumerate("12"):
        links += network(f"body.streams.{place}", f"parts.mlp{number}")
        theirs = f"parts.fs_module.fs{number}_gate.mlp"
        links += same(f"body.gates.{place}.score.0", theirs, "0.weight", "0.bias")
        links += [
            Link(ours=f"body.gates.{place}.score.1.{part}", theirs=f"{theirs}.2.{part}") for part in ("weight", "bias")
        ]
    links.append(Link(ours="body.gates.1.constant", theirs="parts.fs_module.fs2_ctx_bias"))
    links += fused("parts.fusion_module")
    conf: dict[str, Any] = {"hidden_1": HIDDEN, "hidden_2": [12, HIDDEN[-1]], "heads": 2, "gate_hidden": [7]}
    unused = ["parts.fusion_module.w_y.bias"]
    return case("final_mlp", inputs, peer, links, unused=unused, gate_1=["user", "item"], gate_2=[], **conf)


CASES = (lr, fm, dnn, dnn_normalised, final_mlp_gated)


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_says_what_the_peer_says(make: Callable[[], Case], is_training: bool) -> None:
    assert_equal(make, is_training=is_training)


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_two_weights_swapped_are_noticed(make: Callable[[], Case]) -> None:
    assert_swaps_show(make)


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("make", [lambda: lr(dense=3), lambda: fm(dense=1)], ids=["lr", "fm"])
def test_dense_numbers_in_float32(make: Callable[[], Case], is_training: bool) -> None:
    """The peer casts dense numbers to float32. As a factor, each is one of its own there; ours are one together."""
    found = make()
    batch = found.batch(is_training=is_training).to("cpu", torch.float32)
    logits, gradients, deviation = difference(found.pair, batch, is_training=is_training)
    assert deviation >= LEAST_DEVIATION
    assert max(logits, gradients) <= FLOAT32_WITHIN
