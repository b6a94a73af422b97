"""DIN and DIEN beside DeepCTR-Torch 0.3.0: the same weights, events, and negatives of the auxiliary loss.

What is put into the peer's DIEN, so that it says what the paper says:

- a_t = softmax(h_t W e_a) (eq. 9) in place of its activation unit; its masking and softmax remain
- σ(⟨h_t, e⟩) (eq. 6) in place of its auxiliary network; the pairs, the mask and the logloss remain. That is a mean
  over the events and the others, ours a sum over both per pair: its weight is twice ours
- a second bias in AUGRU: `register_parameter` names one of its two tensors twice
- float64, in which it makes states of zeros; its targets are float32
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from features.manifest import TrainSet
from tests.parity.deepctr import (
    BIAS,
    DIM,
    HEAD,
    HIDDEN,
    columns,
    flat,
    network,
    paired,
    peer_input,
    tables,
    zoo,
)
from tests.parity.pairs import (
    Link,
    Pair,
    assert_agreement,
    difference,
    small_batch,
    small_inputs,
)
from training.batch import Batch

activations = pytest.importorskip("deepctr_torch.layers.activation")
dien_of = pytest.importorskip("deepctr_torch.models.dien")

HISTORY = ("item", "city")
UNIT = [8, 5]
ALPHA = 0.7


def attention(inputs: TrainSet) -> list[Link]:
    """Tables, and the linear layers of DIN's activation unit and network."""
    ours, theirs = "body.pools.0.unit", "attention.local_att"
    links = [*tables(inputs, linear=False), *network(reads=flat(inputs)), BIAS, HEAD]
    for part in ("weight", "bias"):
        links += [
            Link(ours=f"{ours}.layers.{layer}.{part}", theirs=f"{theirs}.dnn.linears.{layer}.{part}")
            for layer in range(len(UNIT))
        ]
        links.append(Link(ours=f"{ours}.last.{part}", theirs=f"{theirs}.dense.{part}"))
    return links


def din(inputs: TrainSet, *, is_normalised: bool = False) -> Pair:
    peer = zoo.DIN(
        columns(inputs),
        list(HISTORY),
        dnn_hidden_units=HIDDEN,
        att_hidden_size=UNIT,
        att_activation="sigmoid",
        att_weight_normalization=is_normalised,
    )
    conf: dict[str, object] = {
        "hidden": HIDDEN,
        "activation": "relu",
        "attention_hidden": UNIT,
        "attention_activation": "sigmoid",
        "normalised": is_normalised,
    }
    return paired(inputs, "din", peer, attention(inputs), conf)


def din_normalised(inputs: TrainSet) -> Pair:
    return din(inputs, is_normalised=True)


def din_dice(inputs: TrainSet) -> Pair:
    """The peer's DIN cannot make the Dice of a network, which it wants of three dimensions: it is put in here."""
    peer = zoo.DIN(columns(inputs), list(HISTORY), dnn_hidden_units=HIDDEN, att_hidden_size=UNIT, att_activation="Dice")
    peer.dnn.activation_layers = nn.ModuleList(activations.Dice(width) for width in HIDDEN)
    links, averages = attention(inputs), []
    held: dict[str, float] = {}
    of_unit = [
        (f"body.pools.0.unit.activations.{n}", f"attention.local_att.dnn.activation_layers.{n}")
        for n, _ in enumerate(UNIT)
    ]
    of_network = [(f"body.deep.{2 * n + 1}", f"dnn.activation_layers.{n}") for n, _ in enumerate(HIDDEN)]
    for ours, theirs in of_unit + of_network:
        is_unit = (ours, theirs) in of_unit
        shaped: Callable[[Tensor], Tensor] = (lambda part: part.unsqueeze(1)) if is_unit else (lambda part: part)
        links.append(Link(ours=f"{ours}.alpha", theirs=f"{theirs}.alpha", as_theirs=shaped))
        averages.append(Link(ours=f"{ours}.normal.mean", theirs=f"{theirs}.bn.running_mean"))
        averages.append(Link(ours=f"{ours}.normal.variance", theirs=f"{theirs}.bn.running_var"))
        held |= {f"{theirs}.bn.weight": 1.0, f"{theirs}.bn.bias": 0.0}
    conf: dict[str, object] = {"hidden": HIDDEN, "attention_hidden": UNIT}
    return paired(inputs, "din", peer, links, conf, averages=averages, held=held)


class Relevance(nn.Module):
    """h_t W e_a, [n, 1, w] and [n, L, w] → [n, L, 1]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.matrix = nn.Linear(width, width, bias=False)

    def forward(self, candidate: Tensor, interests: Tensor) -> Tensor:
        asked: Tensor = self.matrix(candidate)
        return (interests * asked).sum(dim=2, keepdim=True)


class InnerProduct(nn.Module):
    """σ(⟨h, e⟩), [n, 2 w] → [n, 1]."""

    def forward(self, both: Tensor) -> Tensor:
        interest, event = both.chunk(2, dim=1)
        return torch.sigmoid((interest * event).sum(dim=1, keepdim=True))


def dien_peer(inputs: TrainSet) -> Any:
    peer = zoo.DIEN(
        columns(inputs, ("hist_", "neg_hist_")),
        list(HISTORY),
        gru_type="AUGRU",
        use_negsampling=True,
        alpha=2 * ALPHA,
        dnn_hidden_units=HIDDEN,
    )
    width = len(HISTORY) * DIM
    peer.interest_extractor.auxiliary_net = InnerProduct()
    peer.interest_evolution.attention.local_att = Relevance(width)
    cell = peer.interest_evolution.interest_evolution.rnn
    cell.bias_ih = nn.Parameter(torch.zeros(3 * width))
    return peer


def dien(inputs: TrainSet) -> Pair:
    """The peer has what became of a sequence before the columns of ids, we behind them."""
    ours, peers = "body.evolutions.0", "interest_evolution.interest_evolution.rnn"
    links = [*tables(inputs, linear=False), *network(reads=flat(inputs, first=len(HISTORY))), BIAS]
    links.append(Link(ours="head.weight", theirs="linear.weight"))
    links.append(Link(ours=f"{ours}.relevance.weight", theirs="interest_evolution.attention.local_att.matrix.weight"))
    for part in ("weight", "bias"):
        links.append(Link(ours=f"{ours}.evolve.input.{part}", theirs=f"{peers}.{part}_ih"))
        links.append(Link(ours=f"{ours}.evolve.state.{part}", theirs=f"{peers}.{part}_hh"))
        for gates in ("ih", "hh"):
            name = f"{part}_{gates}_l0"
            links.append(Link(ours=f"{ours}.extract.{name}", theirs=f"interest_extractor.gru.{name}"))

    def logits(model: Any, batch: Batch) -> Tensor:
        with in_float64():
            return torch.logit(model(peer_input(model, inputs, batch)))

    conf: dict[str, object] = {"hidden": HIDDEN, "activation": "relu", "auxiliary_weight": ALPHA}
    return paired(inputs, "dien", dien_peer(inputs), links, conf, logits=logits, auxiliary=lambda model: model.aux_loss)


@contextmanager
def in_float64() -> Iterator[None]:
    """New tensors of the peer's, and the targets of its auxiliary loss, are float64."""
    logloss = dien_of.F.binary_cross_entropy
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dien_of.F, "binary_cross_entropy", lambda share, target: logloss(share, target.double()))
            yield
    finally:
        torch.set_default_dtype(torch.float32)


PAIRS = (din, din_normalised, dien)


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("make", PAIRS, ids=lambda make: make.__name__)
def test_says_what_the_peer_says(make: Callable[[TrainSet], Pair], is_training: bool) -> None:
    """Rows of different numbers of events; the peer's softmax has no answer for a row of none."""
    inputs = small_inputs(history=HISTORY)
    batch = small_batch(inputs, least_events=1 if make is din_normalised else 0)
    _assert_same(make(inputs), batch, is_training=is_training)


def test_dice_says_what_the_peers_does_on_running_averages() -> None:
    inputs = small_inputs(history=HISTORY)
    _assert_same(din_dice(inputs), small_batch(inputs), is_training=False)


def test_dice_says_what_the_peers_does_in_training_on_full_sequences() -> None:
    """Of shorter ones the peer counts the padding among the events that it normalises, and we do not."""
    inputs = small_inputs(history=HISTORY)
    _assert_same(din_dice(inputs), small_batch(inputs, least_events=5), is_training=True)


def test_din_takes_dense_numbers_as_the_peer_does() -> None:
    inputs = small_inputs(history=HISTORY, dense=3)
    _assert_same(din(inputs), small_batch(inputs), is_training=True)


def test_the_auxiliary_loss_is_the_peers() -> None:
    """Number by number, not through the gradients alone."""
    inputs = small_inputs(history=HISTORY)
    pair, batch = dien(inputs), small_batch(inputs, least_events=0)
    difference(pair, batch, is_training=True)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        _, ours = pair.ours.with_auxiliary(batch)
        torch.manual_seed(3)
        pair.logits(pair.theirs, batch)
        assert ours is not None
        assert pair.auxiliary is not None
        mean = ALPHA * ours / pair.ours.auxiliary_terms(batch)
        theirs = pair.auxiliary(pair.theirs)
    assert mean > 0.1
    assert float(theirs) == pytest.approx(float(mean), rel=1e-12)


def _assert_same(pair: Pair, batch: Batch, *, is_training: bool) -> None:
    assert_agreement(pair, batch, is_training=is_training)
