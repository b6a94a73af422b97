"""A model of ours beside a peer's with the same weights: every parameter of either is linked, or named as left out.

1. links        ours ↔ theirs, part by part, each with how the one becomes the other
2. weights      every parameter of ours drawn anew, large enough for every term to show, then copied along the links
3. compared     logits, and the gradients of one loss, along the same links
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from features.manifest import (
    CategoricalField,
    DenseField,
    SequenceField,
    Task,
    TrainSet,
    Vocabulary,
)
from features.manifest import (
    Sequence as EventSequence,
)
from training import models
from training.batch import Batch

LOGITS_WITHIN, GRADIENTS_WITHIN = 1e-9, 1e-8
DRAWN_WITH = (0.3, 0.5, 0.7, 1.0)
"""Standard deviations to try for the parameters."""
EVENTS = 5
LEAST_DEVIATION = 0.5
"""Of each task's logits: at the peers' own initial weights it is nearly 0, and a constant would pass."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """A part of one of our parameters, and the peer's parameter that must hold the same.

    Attributes:
        rows, columns: the part of ours, all of it by default.
        as_theirs: how ours becomes theirs; linear, as gradients go the same way.
        place: the part of theirs, by its first index.
    """

    ours: str
    theirs: str
    rows: slice = field(default_factory=lambda: slice(None))
    columns: slice | None = None
    as_theirs: Callable[[Tensor], Tensor] = lambda part: part
    place: int | None = None

    def of_ours(self, named: Mapping[str, Tensor]) -> Tensor:
        """Our part in the peer's shape."""
        part = named[self.ours][self.rows]
        return self.as_theirs(part if self.columns is None else part[:, self.columns])

    def of_theirs(self, named: Mapping[str, Tensor]) -> Tensor:
        """The peer's part."""
        whole = named[self.theirs]
        return whole if self.place is None else whole[self.place]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two models that must say the same.

    Attributes:
        logits: the peer's, from a batch: [n, T].
        silent: our parameters that the peer lacks; they are 0.
        unused: the peer's parameters that we lack; they are 0.
    """

    ours: models.RankingModel
    theirs: nn.Module
    logits: Callable[[nn.Module, Batch], Tensor]
    links: Sequence[Link]
    silent: Sequence[str] = ()
    unused: Sequence[str] = field(default=())


def small_inputs(*, dense: int = 0, tasks: Sequence[str] = ("click",), history: Sequence[str] = ()) -> TrainSet:
    """Four columns of ids of different sizes, some dense numbers, and one sequence.

    Args:
        history: columns whose vocabularies the fields of the sequence share, such as ("item", "city"); () for none.
    """
    sizes = {"user": 50, "item": 40, "city": 9, "hour": 26}
    fields = tuple(SequenceField(name=name, vocabulary=name) for name in history)
    return TrainSet(
        name="parity",
        source="parity",
        seed=0,
        logical_shards=1,
        catalog_fingerprint="",
        vocabularies=tuple(Vocabulary(name=name, num_ids=size) for name, size in sizes.items()),
        categorical=tuple(CategoricalField(name=name, vocabulary=name) for name in sizes),
        dense=tuple(DenseField(name=f"x{number}") for number in range(dense)),
        sequences=(EventSequence(name="history", length=EVENTS, fields=fields),) if fields else (),
        tasks=tuple(Task(name=task, space="impressions") for task in tasks),
        splits={},
        seen_until="",
    )


def small_batch(inputs: TrainSet, rows: int = 64, seed: int = 0, least_events: int = 1) -> Batch:
    """Random rows in float64; no id is padding but behind the events of a sequence, as peers read row 0 like any other.

    Args:
        least_events: of every row's sequence; some have EVENTS of them.
    """
    random = torch.Generator().manual_seed(seed)
    events = torch.randint(least_events, EVENTS + 1, (rows, 1), generator=random)
    is_event = (torch.arange(EVENTS) < events).int()
    sequences = {
        f"{one.name}.{field.name}": is_event
        * torch.randint(1, inputs.num_ids(field.vocabulary), (rows, EVENTS), generator=random).int()
        for one in inputs.sequences
        for field in one.fields
    }
    ids = [torch.randint(1, inputs.num_ids(c.vocabulary), (rows,), generator=random) for c in inputs.categorical]
    tasks = len(inputs.tasks)
    return Batch(
        ids=torch.stack(ids, dim=1),
        dense=torch.randn(rows, len(inputs.dense), generator=random),
        vectors={},
        sequences=sequences,
        labels=(torch.rand(rows, tasks, generator=random) < 0.4).float(),
        label_mask=torch.ones(rows, tasks),
        position=None,
        group=torch.arange(rows),
        row_id=torch.arange(rows),
    ).to("cpu", torch.float64)


def difference(pair: Pair, batch: Batch, *, is_training: bool) -> tuple[float, float, float]:
    """Largest difference of logits; largest relative one of gradients, by parameter; least deviation of a logit."""
    ours, theirs = dict(pair.ours.named_parameters()), dict(pair.theirs.named_parameters())
    _check_all_linked(pair, ours, theirs)
    draw_weights(pair, batch)
    pair.ours.train(is_training), pair.theirs.train(is_training)
    labels, weights = pair.ours.targets(batch)
    found = []
    for model, logits in ((pair.ours, pair.ours(batch)), (pair.theirs, pair.logits(pair.theirs, batch))):
        model.zero_grad(set_to_none=True)
        loss = functional.binary_cross_entropy_with_logits(logits, labels, weights, reduction="sum") / len(batch)
        torch.autograd.backward(loss)
        found.append(logits.detach())
    gradients = {name: _dense(parameter) for name, parameter in ours.items()}
    peers = {name: _dense(parameter) for name, parameter in theirs.items()}
    worst = max(_relative(link.of_ours(gradients), link.of_theirs(peers)) for link in pair.links)
    return float((found[0] - found[1]).abs().max()), worst, float(found[0].std(dim=0).min())


def draw_weights(pair: Pair, batch: Batch) -> None:
    """Every parameter of ours drawn anew, wider and wider until each task's logits deviate enough; then copied."""
    ours, theirs = dict(pair.ours.named_parameters()), dict(pair.theirs.named_parameters())
    with torch.no_grad():
        for deviation in DRAWN_WITH:
            random = torch.Generator().manual_seed(7)
            for name, parameter in ours.items():
                drawn = torch.randn(parameter.shape, generator=random, dtype=parameter.dtype)
                parameter.copy_(drawn * (0.0 if name in pair.silent else deviation))
            if pair.ours.eval()(batch).std(dim=0).min() >= LEAST_DEVIATION:
                break
        for link in pair.links:
            link.of_theirs(theirs).copy_(link.of_ours(ours))
        for name in pair.unused:
            theirs[name].zero_()


def _dense(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        return torch.zeros_like(parameter)
    return parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad


def _relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-12))


def _check_all_linked(pair: Pair, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    linked = {link.ours for link in pair.links} | set(pair.silent)
    assert linked == set(ours), f"not linked of ours: {sorted(set(ours) ^ linked)}"
    linked = {link.theirs for link in pair.links} | set(pair.unused)
    assert linked == set(theirs), f"not linked of theirs: {sorted(set(theirs) ^ linked)}"
