"""SharedBottom, ESMM, MMoE and PLE beside DeepCTR-Torch 0.3.0 with equal weights.

Where the peer is brought to the papers:

- ESMM: its two towers share one bias. They get one each, in their last layers; the shared one is 0
- MMoE and PLE: gates are linear (MMoE eq. 7, PLE eq. 6), which the peer's are when they have no hidden units
- PLE: it builds as many shared experts per level as each task has, whatever it is told, and uses those that it was told
  of; and a shared gate in the last level, which nothing reads. Both are left unused
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from features.manifest import TrainSet
from tests.parity.deepctr import (
    HIDDEN,
    averages,
    columns,
    flat,
    network,
    paired,
    peer_input,
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
from training.batch import Batch

TASKS = ("enter", "gift")
TOWER = [8]


def towers(*, batch_norm: bool = False) -> list[Link]:
    found = []
    for place, _ in enumerate(TASKS):
        ours = f"towers.{place}"
        found += network(f"tower_dnn.{place}", f"{ours}.0", layers=len(TOWER), batch_norm=batch_norm)
        found.append(Link(ours=f"{ours}.1.weight", theirs=f"tower_dnn_final_layer.{place}.weight"))
        found.append(Link(ours=f"{ours}.1.bias", theirs=f"out.{place}.bias"))
    return found


def shared_bottom(inputs: TrainSet) -> Pair:
    peer = zoo.SharedBottom(
        columns(inputs), bottom_dnn_hidden_units=HIDDEN, tower_dnn_hidden_units=TOWER, task_names=TASKS
    )
    links = [*tables(inputs, linear=False), *network("bottom_dnn", "bottom", reads=flat(inputs)), *towers()]
    return paired(inputs, "shared_bottom", peer, links, {"bottom_hidden": HIDDEN, "tower_hidden": TOWER})


def esmm(inputs: TrainSet) -> Pair:
    """The peer tells pCTR and pCTCVR; their quotient is pCVR."""
    peer = zoo.ESMM(columns(inputs), tower_dnn_hidden_units=HIDDEN, task_names=("ctr", "ctcvr"))
    links = tables(inputs, linear=False)
    for place, name in enumerate(("ctr", "cvr")):
        setattr(peer, f"{name}_dnn_final_layer", nn.Linear(HIDDEN[-1], 1))
        links += network(f"{name}_dnn", f"towers.{place}.0", reads=flat(inputs))
        for part in ("weight", "bias"):
            links.append(Link(ours=f"towers.{place}.1.{part}", theirs=f"{name}_dnn_final_layer.{part}"))

    def logits(model: Any, batch: Batch) -> Tensor:
        ctr, ctcvr = model(peer_input(model, inputs, batch)).unbind(dim=1)
        return torch.logit(torch.stack([ctr, ctcvr / ctr, ctcvr], dim=1))

    return paired(inputs, "esmm", peer, links, {"hidden": HIDDEN}, logits=logits, unused=["out.bias"])


def mmoe(inputs: TrainSet, *, batch_norm: bool = False) -> Pair:
    peer = zoo.MMOE(
        columns(inputs),
        num_experts=3,
        expert_dnn_hidden_units=HIDDEN,
        gate_dnn_hidden_units=(),
        tower_dnn_hidden_units=TOWER,
        task_names=TASKS,
        dnn_use_bn=batch_norm,
    )
    links, running, reads = [*tables(inputs, linear=False), *towers(batch_norm=batch_norm)], [], flat(inputs)
    for place in range(3):
        names = f"expert_dnn.{place}", f"experts.{place}"
        links += network(*names, reads=reads, batch_norm=batch_norm)
        running += averages(*names)
    for place, _ in enumerate(TASKS):
        gate = f"gate_dnn_final_layer.{place}.weight"
        links.append(Link(ours=f"gates.{place}.weight", theirs=gate, as_theirs=taking(reads)))
        running += averages(f"tower_dnn.{place}", f"towers.{place}.0", layers=len(TOWER))
    conf: dict[str, object] = {"experts": 3, "expert_hidden": HIDDEN, "tower_hidden": TOWER, "batch_norm": batch_norm}
    return paired(inputs, "mmoe", peer, links, conf, averages=running if batch_norm else ())


def mmoe_normalised(inputs: TrainSet) -> Pair:
    return mmoe(inputs, batch_norm=True)


OWN, SHARED, LEVELS = 3, 2, 2


def ple(inputs: TrainSet) -> Pair:
    peer = zoo.PLE(
        columns(inputs),
        shared_expert_num=SHARED,
        specific_expert_num=OWN,
        num_levels=LEVELS,
        expert_dnn_hidden_units=HIDDEN,
        gate_dnn_hidden_units=(),
        tower_dnn_hidden_units=TOWER,
        task_names=TASKS,
    )
    links = [*tables(inputs, linear=False), *towers()]
    for level in range(LEVELS):
        links += extraction(level, flat(inputs) if level == 0 else None)
    linked = {link.theirs for link in links}
    unused = [f"shared_gate_dnn_final_layer.{LEVELS - 1}.weight"]
    unused += [name for name, _ in peer.named_parameters() if name.startswith("shared_experts") and name not in linked]
    conf: dict[str, object] = {
        "layers": LEVELS,
        "task_experts": OWN,
        "shared_experts": SHARED,
        "expert_hidden": HIDDEN,
        "tower_hidden": TOWER,
    }
    return paired(inputs, "ple", peer, links, conf, unused=unused)


def extraction(level: int, reads: Sequence[int] | None) -> list[Link]:
    """One level of PLE."""
    ours, found, takes = f"layers.{level}", [], taking(reads)
    for place in range(SHARED):
        found += network(f"shared_experts.{level}.0.{place}", f"{ours}.shared.{place}", reads=reads)
    for task, _ in enumerate(TASKS):
        for place in range(OWN):
            theirs = f"specific_experts.{level}.{task}.{place}"
            found += network(theirs, f"{ours}.of_tasks.{task}.{place}", reads=reads)
        gate = f"specific_gate_dnn_final_layer.{level}.{task}.weight"
        found.append(Link(ours=f"{ours}.gates.{task}.weight", theirs=gate, as_theirs=takes))
    if level < LEVELS - 1:
        gate = f"shared_gate_dnn_final_layer.{level}.weight"
        found.append(Link(ours=f"{ours}.shared_gate.weight", theirs=gate, as_theirs=takes))
    return found


PAIRS = (shared_bottom, esmm, mmoe, mmoe_normalised, ple)


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("dense", [0, 3])
@pytest.mark.parametrize("make", PAIRS, ids=lambda make: make.__name__)
def test_says_what_the_peer_says(make: Callable[[TrainSet], Pair], dense: int, is_training: bool) -> None:
    inputs = small_inputs(tasks=TASKS, dense=dense)
    assert_agreement(make(inputs), small_batch(inputs), is_training=is_training)
