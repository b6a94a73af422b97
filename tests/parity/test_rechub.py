"""SharedBottom, ESMM, MMoE, PLE and DIEN beside torch-rechub 0.9.0 with equal weights: a second opinion.

Every network of the peer has batch norm, so ours have it here. Where the peer is brought to the papers:

- MMoE and PLE: its gates have a bias and a batch norm before the softmax. The bias is 0, and nothing is in the norm's
  place
- DIEN: its Dice takes the mean of a row over the units, and the paper's that of a unit over the batch: ReLU stands in
  both. Its AUGRU has one bias per gate, as in the paper; ours has those of the state besides, which are 0
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from features.manifest import PADDING_ID, TrainSet
from tests.parity.pairs import (
    LOGITS_WITHIN,
    Link,
    Pair,
    assert_agreement,
    small_batch,
    small_inputs,
    swapped,
)
from training import models
from training.batch import Batch
from training.models.dien import drawn, oldest_first

many_tasks = pytest.importorskip("torch_rechub.models.multi_task")
ranking = pytest.importorskip("torch_rechub.models.ranking")
features = pytest.importorskip("torch_rechub.basic.features")

DIM = 6
HIDDEN = [10, 7]
TOWER = [8]
TASKS = ("enter", "gift")
ALPHA = 0.7
LAYER = ("weight", "bias")


def columns(inputs: TrainSet) -> dict[str, Any]:
    found = {}
    for column in inputs.categorical:
        padding = PADDING_ID if inputs.sequences and column.name == "item" else None
        size = inputs.num_ids(column.vocabulary)
        found[column.name] = features.SparseFeature(column.name, size, embed_dim=DIM, padding_idx=padding)
    return found


def peer_input(inputs: TrainSet, batch: Batch) -> dict[str, Tensor]:
    return {column.name: batch.ids[:, place] for place, column in enumerate(inputs.categorical)}


def tables(inputs: TrainSet) -> list[Link]:
    return [
        Link(
            ours="table.weight",
            theirs=f"embedding.embed_dict.{name}.weight",
            rows=slice(first, first + inputs.num_ids(name)),
        )
        for name, first in inputs.offsets().items()
    ]


def network(theirs: str, ours: str, layers: int) -> tuple[list[Link], list[Link]]:
    """Weights and running averages of an MLP: theirs has a dropout behind every activation."""
    links, averages = [], []
    for layer in range(layers):
        for module in range(2):
            mine, peers = f"{ours}.{3 * layer + module}", f"{theirs}.mlp.{4 * layer + module}"
            links += [Link(ours=f"{mine}.{part}", theirs=f"{peers}.{part}") for part in LAYER]
        averages.append(Link(ours=f"{mine}.mean", theirs=f"{peers}.running_mean"))
        averages.append(Link(ours=f"{mine}.variance", theirs=f"{peers}.running_var"))
    return links, averages


def networks(
    inputs: TrainSet, *, hidden: Mapping[str, str] | None = None, towers: Mapping[str, str], tower: Sequence[int]
) -> tuple[list[Link], list[Link]]:
    """Tables, networks of HIDDEN, and towers: theirs → ours."""
    links, averages = tables(inputs), []
    parts = [network(theirs, ours, len(HIDDEN)) for theirs, ours in (hidden or {}).items()]
    parts += [network(theirs, f"{ours}.0", len(tower)) for theirs, ours in towers.items()]
    for weights, running in parts:
        links += weights
        averages += running
    for theirs, ours in towers.items():
        links += [Link(ours=f"{ours}.1.{part}", theirs=f"{theirs}.mlp.{4 * len(tower)}.{part}") for part in LAYER]
    return links, averages


def paired(inputs: TrainSet, name: str, peer: nn.Module, conf: dict[str, object], **attributes: Any) -> Pair:
    def logits(model: nn.Module, batch: Batch) -> Tensor:
        return torch.logit(model(peer_input(inputs, batch)))

    settings = {"embedding_dim": DIM, "batch_norm": True, **conf}
    ours = models.build(name, inputs, settings, seed=0).double()
    return Pair(ours=ours, theirs=peer.double(), **{"logits": logits} | attributes)


BOTH_TOWERS = {f"towers.{task}": f"towers.{task}" for task, _ in enumerate(TASKS)}
HEADS: dict[str, Any] = {"task_types": ["classification"] * 2, "tower_params_list": [{"dims": TOWER}] * 2}


def shared_bottom(inputs: TrainSet) -> Pair:
    peer = many_tasks.SharedBottom(list(columns(inputs).values()), bottom_params={"dims": HIDDEN}, **HEADS)
    links, averages = networks(inputs, hidden={"bottom_mlp": "bottom"}, towers=BOTH_TOWERS, tower=TOWER)
    conf: dict[str, object] = {"bottom_hidden": HIDDEN, "tower_hidden": TOWER}
    return paired(inputs, "shared_bottom", peer, conf, links=links, averages=averages)


def esmm(inputs: TrainSet) -> Pair:
    first, *others = columns(inputs).values()
    peer = many_tasks.ESMM([first], others, cvr_params={"dims": HIDDEN}, ctr_params={"dims": HIDDEN})
    towers = {"tower_ctr": "towers.0", "tower_cvr": "towers.1"}
    links, averages = networks(inputs, towers=towers, tower=HIDDEN)

    def logits(model: nn.Module, batch: Batch) -> Tensor:
        """The peer's order is pCVR, pCTR, pCTCVR."""
        return torch.logit(model(peer_input(inputs, batch))[:, [1, 0, 2]])

    return paired(inputs, "esmm", peer, {"hidden": HIDDEN}, links=links, averages=averages, logits=logits)


def bare_gate(peer: Any, theirs: str, ours: str) -> tuple[Link, str]:
    """Without its batch norm the gate's link, and its bias."""
    peer.get_submodule(theirs).mlp[1] = nn.Identity()
    return Link(ours=f"{ours}.weight", theirs=f"{theirs}.mlp.0.weight"), f"{theirs}.mlp.0.bias"


def mmoe(inputs: TrainSet) -> Pair:
    peer = many_tasks.MMOE(list(columns(inputs).values()), n_expert=3, expert_params={"dims": HIDDEN}, **HEADS)
    experts = {f"experts.{place}": f"experts.{place}" for place in range(3)}
    links, averages = networks(inputs, hidden=experts, towers=BOTH_TOWERS, tower=TOWER)
    gates, unused = zip(*(bare_gate(peer, f"gates.{task}", f"gates.{task}") for task in range(2)), strict=True)
    conf: dict[str, object] = {"experts": 3, "expert_hidden": HIDDEN, "tower_hidden": TOWER}
    return paired(inputs, "mmoe", peer, conf, links=[*links, *gates], averages=averages, unused=unused)


OWN, SHARED = 2, 3


def ple(inputs: TrainSet) -> Pair:
    peer = many_tasks.PLE(
        list(columns(inputs).values()),
        n_level=2,
        n_expert_specific=OWN,
        n_expert_shared=SHARED,
        expert_params={"dims": HIDDEN},
        **HEADS,
    )
    experts: dict[str, str] = {}
    gates = {"cgc_layers.0.gate_shared": "layers.0.shared_gate"}
    for level in range(2):
        ours, theirs = f"layers.{level}", f"cgc_layers.{level}"
        experts |= {f"{theirs}.experts_shared.{place}": f"{ours}.shared.{place}" for place in range(SHARED)}
        for task in range(2):
            gates[f"{theirs}.gates_specific.{task}"] = f"{ours}.gates.{task}"
            for place in range(OWN):
                experts[f"{theirs}.experts_specific.{task * OWN + place}"] = f"{ours}.of_tasks.{task}.{place}"
    links, averages = networks(inputs, hidden=experts, towers=BOTH_TOWERS, tower=TOWER)
    bare, unused = zip(*(bare_gate(peer, *names) for names in gates.items()), strict=True)
    conf: dict[str, object] = {
        "layers": 2,
        "task_experts": OWN,
        "shared_experts": SHARED,
        "expert_hidden": HIDDEN,
        "tower_hidden": TOWER,
    }
    return paired(inputs, "ple", peer, conf, links=[*links, *bare], averages=averages, unused=unused)


def dien_peer(inputs: TrainSet) -> Any:
    of_ids = columns(inputs)
    item = of_ids.pop("item")
    events = [
        features.SequenceFeature(
            name, item.vocab_size, embed_dim=DIM, pooling="concat", shared_with="item", padding_idx=PADDING_ID
        )
        for name in ("events", "others")
    ]
    peer = ranking.DIEN(list(of_ids.values()), events[:1], events[1:], [item], {"dims": HIDDEN}, alpha=ALPHA)
    for layer, _ in enumerate(HIDDEN):
        peer.mlp.mlp[4 * layer + 2] = nn.ReLU()
    return peer


def dien(inputs: TrainSet) -> Pair:
    losses: list[Tensor] = []

    def logits(model: Any, batch: Batch) -> Tensor:
        ids = batch.sequences["history.item"].unsqueeze(2)
        present = (ids[:, :, 0] > 0).double()
        events = oldest_first(ids, present)
        more = {"events": events.squeeze(2), "others": drawn(events, present).squeeze(2)}
        with in_float64():
            probabilities, loss = model(peer_input(inputs, batch) | more)
        losses[:] = [loss]
        return torch.logit(probabilities.unsqueeze(1))

    conf: dict[str, object] = {"hidden": HIDDEN, "activation": "relu", "auxiliary_weight": ALPHA}
    links, averages = evolution(inputs)
    return paired(
        inputs,
        "dien",
        dien_peer(inputs),
        conf,
        links=links,
        averages=averages,
        logits=logits,
        silent=["body.evolutions.0.evolve.state.bias"],
        auxiliary=lambda _: losses[0],
    )


def evolution(inputs: TrainSet) -> tuple[list[Link], list[Link]]:
    """The peer's network reads the last state, the candidate, then all other columns; its AUGRU has a matrix a gate."""
    links, averages = network("mlp", "body.deep", len(HIDDEN))
    order = [place * DIM + unit for place in (4, 1, 0, 2, 3) for unit in range(DIM)]
    links[0] = Link(ours="body.deep.0.weight", theirs="mlp.mlp.0.weight", as_theirs=lambda part: part[:, order])
    last = f"mlp.mlp.{4 * len(HIDDEN)}"
    ours, theirs = "body.evolutions.0", "interest_evolving_layers.0"
    links += tables(inputs)
    links += [Link(ours="head.weight", theirs=f"{last}.weight"), Link(ours="bias", theirs=f"{last}.bias")]
    links.append(Link(ours=f"{ours}.relevance.weight", theirs=f"{theirs}.Wa"))
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        links.append(Link(ours=f"{ours}.extract.{name}", theirs=f"interest_extractor_layers.0.{name}"))
    for place, gate in enumerate("ruh"):
        rows, cell = slice(place * DIM, (place + 1) * DIM), f"{theirs}.augru_cell"
        of_event, of_state = f"{ours}.evolve.input", f"{ours}.evolve.state"
        links += [
            Link(ours=f"{of_event}.weight", theirs=f"{cell}.W{gate}", rows=rows, as_theirs=lambda part: part.T),
            Link(ours=f"{of_state}.weight", theirs=f"{cell}.U{gate}", rows=rows, as_theirs=lambda part: part.T),
            Link(ours=f"{of_event}.bias", theirs=f"{cell}.b{gate}", rows=rows, as_theirs=lambda part: part[None]),
        ]
    return links, averages


@contextmanager
def in_float64() -> Iterator[None]:
    """The peer's states of zeros are float64."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


PAIRS = (shared_bottom, esmm, mmoe, ple, dien)


def inputs_for(make: Callable[[TrainSet], Pair], **sizes: Any) -> TrainSet:
    return small_inputs(history=("item",), **sizes) if make is dien else small_inputs(tasks=TASKS, **sizes)


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("make", PAIRS, ids=lambda make: make.__name__)
def test_says_what_the_peer_says(make: Callable[[TrainSet], Pair], is_training: bool) -> None:
    inputs = inputs_for(make)
    batch = small_batch(inputs, least_events=0)
    assert_agreement(make(inputs), batch, is_training=is_training)


@pytest.mark.parametrize("make", PAIRS, ids=lambda make: make.__name__)
def test_no_two_weights_of_the_peer_can_be_swapped_unseen(make: Callable[[TrainSet], Pair]) -> None:
    inputs = inputs_for(make, sizes={"user": 20, "item": 20, "city": 9, "hour": 9})
    apart = swapped(make(inputs), small_batch(inputs))
    assert apart.pop("nothing") <= LOGITS_WITHIN
    assert {name: value for name, value in apart.items() if value <= 1e3 * LOGITS_WITHIN} == {}
    assert len(apart) >= 20
