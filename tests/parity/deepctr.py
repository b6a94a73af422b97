"""What every pair with DeepCTR-Torch 0.3.0 needs: its feature columns and input, and links of tables and networks.

Dense numbers. The peer has a dense number as itself in its network, and with a weight in its linear part. Ours adds one
field to that, a projection of all of them (`InputLayer.dense`). Where a field of zeros does nothing, the projection is
silent, and whatever reads it is left out of the links (`flat`): networks, crosses, FM and CIN. In AutoInt a field of
zeros takes its share of the softmax, and NFM of the peer feeds dense numbers to the network behind the pooled products,
where the paper has them as factors: no comparison there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from features.manifest import TrainSet
from tests.parity.pairs import EVENTS, Link, Pair
from training import models
from training.batch import Batch
from training.models.dien import drawn, oldest_first

with pytest.MonkeyPatch.context() as patch:  # on import, a thread asks PyPI for the peer's newest version
    patch.setattr(Thread, "start", lambda _: None)
    zoo = pytest.importorskip("deepctr_torch.models")
inputs_of = pytest.importorskip("deepctr_torch.inputs")

DIM = 6
HIDDEN = [10, 7]
LENGTH = "length"


def columns(inputs: TrainSet, prefixes: Sequence[str] = ("hist_",)) -> list[Any]:
    """The peer's feature columns, in our order; of a sequence one per field and prefix, as the peer names them."""
    sparse = {
        column.name: inputs_of.SparseFeat(column.name, inputs.num_ids(column.vocabulary), embedding_dim=DIM)
        for column in inputs.categorical
    }
    events = [
        inputs_of.VarLenSparseFeat(
            sparse[field.vocabulary]._replace(name=prefix + field.vocabulary), maxlen=EVENTS, length_name=LENGTH
        )
        for prefix in prefixes
        for sequence in inputs.sequences
        for field in sequence.fields
    ]
    return [*sparse.values(), *events, *(inputs_of.DenseFeat(column.name, 1) for column in inputs.dense)]


def peer_input(model: Any, inputs: TrainSet, batch: Batch) -> Tensor:
    """All that the peer reads, side by side in its order; events oldest first, and as many others, drawn like ours."""
    values = {column.name: batch.ids[:, place, None] for place, column in enumerate(inputs.categorical)}
    values |= {column.name: batch.dense[:, place, None] for place, column in enumerate(inputs.dense)}
    for sequence in inputs.sequences:
        ids = torch.stack([batch.sequences[f"{sequence.name}.{field.name}"] for field in sequence.fields], dim=2)
        present = (ids[:, :, 0] > 0).double()
        events = oldest_first(ids, present)
        others = drawn(events, present)
        values[LENGTH] = present.sum(dim=1, keepdim=True)
        for place, field in enumerate(sequence.fields):
            values[f"hist_{field.vocabulary}"] = events[:, :, place]
            values[f"neg_hist_{field.vocabulary}"] = others[:, :, place]
    return torch.cat([values[name].double() for name in model.feature_index], dim=1)


def peer_logits(inputs: TrainSet) -> Callable[[nn.Module, Batch], Tensor]:
    """The peer gives probabilities; float64 keeps the logits behind them."""

    def logits(model: nn.Module, batch: Batch) -> Tensor:
        return torch.logit(model(peer_input(model, inputs, batch)))

    return logits


def flat(inputs: TrainSet, *, first: int = 0) -> list[int]:
    """Places of `Embedded.flat` that the peer has, too, in the peer's order: all but the projected dense numbers.

    Args:
        first: fields that stand first with the peer and last with us.
    """
    fields = len(inputs.categorical) + sum(len(sequence.fields) for sequence in inputs.sequences)
    own = list(range(fields * DIM))
    shifted = own[(fields - first) * DIM :] + own[: (fields - first) * DIM]
    width = (fields + bool(inputs.dense)) * DIM
    return shifted + list(range(width, width + len(inputs.dense)))


def taking(places: Sequence[int] | None) -> Callable[[Tensor], Tensor]:
    """`as_theirs`: these entries of the last axis; all of them if None."""
    return lambda part: part if places is None else part[..., list(places)]


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


def linear_terms(inputs: TrainSet, ours: str = "body.terms.weight") -> list[Link]:
    """The linear weights of ids and dense numbers."""
    dense = [Link(ours=ours, theirs="linear_model.weight")] if inputs.dense else []
    return [*tables(inputs, linear=True), *dense]


def network(
    theirs: str = "dnn",
    ours: str = "body.deep",
    *,
    reads: Sequence[int] | None = None,
    layers: int = len(HIDDEN),
    batch_norm: bool = False,
) -> list[Link]:
    """An MLP: theirs is linears.i and bn.i, ours one module after the other.

    Args:
        reads: what the first layer reads of its input; all of it if None.
    """
    found, step = [], 3 if batch_norm else 2
    for layer in range(layers):
        mine, peers = f"{ours}.{step * layer}", f"{theirs}.linears.{layer}"
        takes = taking(reads if layer == 0 else None)
        found += [
            Link(ours=f"{mine}.weight", theirs=f"{peers}.weight", as_theirs=takes),
            Link(ours=f"{mine}.bias", theirs=f"{peers}.bias"),
        ]
        if batch_norm:
            scaled, peers = f"{ours}.{step * layer + 1}", f"{theirs}.bn.{layer}"
            found += [Link(ours=f"{scaled}.{part}", theirs=f"{peers}.{part}") for part in ("weight", "bias")]
    return found


def averages(theirs: str = "dnn", ours: str = "body.deep", layers: int = len(HIDDEN)) -> list[Link]:
    """Running averages of an MLP's batch norms."""
    return [
        Link(ours=f"{ours}.{3 * layer + 1}.{average}", theirs=f"{theirs}.bn.{layer}.running_{short}")
        for layer in range(layers)
        for average, short in (("mean", "mean"), ("variance", "var"))
    ]


BIAS = Link(ours="bias", theirs="out.bias")
HEAD = Link(ours="head.weight", theirs="dnn_linear.weight")


def paired(
    inputs: TrainSet, name: str, peer: nn.Module, links: Sequence[Link], conf: dict[str, object], **more: Any
) -> Pair:
    """Our model beside the peer; its linear part is unused where nothing links it: in DCN and AutoInt no paper has one.

    Args:
        conf: of our model.
        more: further attributes of the pair.
    """
    ours = models.build(name, inputs, {"embedding_dim": DIM, **conf}, seed=0).double()
    linked = {link.theirs for link in links}
    unused = [name for name, _ in peer.named_parameters() if name.startswith("linear_model") and name not in linked]
    reached = {link.ours for link in links}
    terms = [name for name in ("body.terms.weight", "body.wide.weight") if name not in reached]
    silent = [name for name, _ in ours.named_parameters() if name in [*terms, "input.dense.weight"]]
    more["unused"] = [*unused, *more.get("unused", ())]
    return Pair(ours=ours, theirs=peer.double(), links=links, silent=silent, **{"logits": peer_logits(inputs)} | more)
