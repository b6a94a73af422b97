"""A model of ours beside a peer's with the same weights: every parameter of either is linked, or named as left out.

1. links        ours ↔ theirs, part by part, each with how the one becomes the other
2. weights      every parameter of ours drawn anew, large enough for every term to show, then copied along the links
3. compared     logits, and the gradients of one loss, along the same links
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product

import torch
from torch import Tensor, nn

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
from training.loss import total_loss, weighted_bce
from training.modeling.body import OneTask

LOGITS_WITHIN, GRADIENTS_WITHIN = 1e-9, 1e-8
DRAWN_WITH = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Standard deviations to try for the parameters."""
SEEDS = 8
"""Draws of each deviation."""
LARGEST_LOGIT = 12.0
"""A peer's probability nearer to 1 does not hold its logit to 1e-9."""
EVENTS = 5
LEAST_DEVIATION = 0.5
"""Of each task's logits: at the peers' own initial weights it is nearly 0, and a constant would pass."""
LEAST_GRADIENT = 1e-5
"""Of a parameter, as a share of the largest: below, it is 0 but for rounding (a bias before batch norm or softmax)."""
SIZES = {"user": 50, "item": 40, "city": 9, "hour": 26}
DRAWS = 11
"""Seed of what a model draws by itself, such as the negatives of an auxiliary loss: the same for both."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """A part of one of our parameters or buffers, and the peer's that must hold the same.

    Attributes:
        rows, columns: the part of ours, all of it by default. What no link of a parameter takes is 0 in ours.
        as_theirs: how ours becomes theirs; takes entries and puts them elsewhere, so that gradients go the same way.
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
        held: others that we lack, and the number that makes them do nothing.
        averages: links of running averages, which must be equal after the pass, too.
        auxiliary: the peer's auxiliary loss of its last pass in train mode, [] or [1], with its weight.
    """

    ours: models.RankingModel
    theirs: nn.Module
    logits: Callable[[nn.Module, Batch], Tensor]
    links: Sequence[Link]
    silent: Sequence[str] = ()
    unused: Sequence[str] = field(default=())
    held: Mapping[str, float] = field(default_factory=dict)
    averages: Sequence[Link] = ()
    auxiliary: Callable[[nn.Module], Tensor] | None = None


def small_inputs(
    *,
    dense: int = 0,
    tasks: Sequence[str] = ("click",),
    history: Sequence[str] = (),
    sizes: Mapping[str, int] = SIZES,
) -> TrainSet:
    """Four columns of ids of different sizes, some dense numbers, and one sequence.

    Args:
        history: columns whose vocabularies the fields of the sequence share, such as ("item", "city"); () for none.
    """
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


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One comparison that agreed: largest differences of logits, and relative ones of gradients."""

    model: str
    peer: str
    logits: float
    gradients: float


PEERS = {
    "deepctr_torch": "DeepCTR-Torch",
    "fuxictr": "FuxiCTR",
    "model_zoo": "FuxiCTR",
    "tests": "FuxiCTR",  # put together here from its layers
    "torch_rechub": "torch-rechub",
}
"""Package of a peer's model → the peer."""
SEEN: list[Seen] = []
"""In the order of the tests; what `make parity` writes down."""


def assert_agreement(pair: Pair, batch: Batch, *, is_training: bool) -> None:
    """Logits and gradients within the bounds, with logits that are no constants."""
    logits, gradients, deviation = difference(pair, batch, is_training=is_training)
    assert deviation >= LEAST_DEVIATION
    assert logits <= LOGITS_WITHIN
    assert gradients <= GRADIENTS_WITHIN
    ours = pair.ours.body if isinstance(pair.ours, OneTask) else pair.ours
    model, package = type(ours).__module__.rpartition(".")[2], type(pair.theirs).__module__.partition(".")[0]
    SEEN.append(Seen(model=model, peer=PEERS[package], logits=logits, gradients=gradients))


def difference(pair: Pair, batch: Batch, *, is_training: bool) -> tuple[float, float, float]:
    """Largest difference of logits and running averages; largest relative one of gradients; least deviation of a logit.

    Both models have the loss of a training step: a mean per target, and the auxiliary loss in training.
    """
    draw_weights(pair, batch, is_training=is_training)
    pair.ours.train(is_training), pair.theirs.train(is_training)
    ours = _backward_of_ours(pair, batch)
    theirs = _backward_of_theirs(pair, batch)
    apart = float((ours - theirs).abs().max())
    buffers = dict(pair.ours.named_buffers()), dict(pair.theirs.named_buffers())
    for link in pair.averages:
        apart = max(apart, float((link.of_ours(buffers[0]) - link.of_theirs(buffers[1])).abs().max()))
    gradients = {name: _dense(parameter) for name, parameter in pair.ours.named_parameters()}
    peers = {name: _dense(parameter) for name, parameter in pair.theirs.named_parameters()}
    least = LEAST_GRADIENT * float(max(link.of_theirs(peers).abs().max() for link in pair.links))
    worst = max(_relative(link.of_ours(gradients), link.of_theirs(peers), least) for link in pair.links)
    return apart, worst, float(ours.std(dim=0).min())


def _backward_of_ours(pair: Pair, batch: Batch) -> Tensor:
    pair.ours.zero_grad(set_to_none=True)
    with torch.random.fork_rng():
        torch.manual_seed(DRAWS)
        logits, own = pair.ours.with_auxiliary(batch)
    loss = _loss(pair, logits, batch)
    if own is not None:
        loss = loss + pair.ours.auxiliary_weight * own / pair.ours.auxiliary_terms(batch)
    torch.autograd.backward(loss)
    return logits.detach()


def _backward_of_theirs(pair: Pair, batch: Batch) -> Tensor:
    pair.theirs.zero_grad(set_to_none=True)
    with torch.random.fork_rng():
        torch.manual_seed(DRAWS)
        logits = pair.logits(pair.theirs, batch)
    loss = _loss(pair, logits, batch)
    if pair.auxiliary is not None and pair.theirs.training:
        loss = loss + pair.auxiliary(pair.theirs).sum()
    torch.autograd.backward(loss)
    return logits.detach()


def _loss(pair: Pair, logits: Tensor, batch: Batch) -> Tensor:
    labels, weights = pair.ours.targets(batch)
    return total_loss(weighted_bce(logits, labels, weights), weights.sum(dim=0), pair.ours.task_weights)


def draw_weights(pair: Pair, batch: Batch, *, is_training: bool = False) -> None:
    """Every parameter of ours drawn anew, wider and wider, until each task's logits deviate enough; then copied."""
    ours, theirs = dict(pair.ours.named_parameters()), dict(pair.theirs.named_parameters())
    _check_all_linked(pair, ours, theirs)
    linked = _linked_entries(pair, ours)
    pair.ours.train(is_training)
    averages = {name: buffer.clone() for name, buffer in pair.ours.named_buffers()}
    with torch.no_grad():
        for deviation, seed in product(DRAWN_WITH, range(SEEDS)):
            random = torch.Generator().manual_seed(seed)
            for name, parameter in ours.items():
                drawn = torch.randn(parameter.shape, generator=random, dtype=parameter.dtype)
                is_scale = name.endswith("weight") and parameter.dim() == 1  # of a norm: else deep layers die out
                parameter.copy_((drawn * deviation + is_scale) * linked[name])
            _draw_averages(pair)
            logits = pair.ours(batch)
            if logits.std(dim=0).min() >= LEAST_DEVIATION and logits.abs().max() <= LARGEST_LOGIT:
                break
        for name, buffer in pair.ours.named_buffers():
            buffer.copy_(averages[name])  # a try in train mode has moved them, and the peer's have not moved
        _draw_averages(pair)
        for link in pair.links:
            link.of_theirs(theirs).copy_(link.of_ours(ours))
        for name, value in {**dict.fromkeys(pair.unused, 0.0), **pair.held}.items():
            theirs[name].fill_(value)


def _linked_entries(pair: Pair, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of each of our parameters which entries a link takes."""
    ones = {name: torch.ones_like(parameter, requires_grad=True) for name, parameter in ours.items()}
    torch.autograd.backward(torch.stack([link.of_ours(ones).sum() for link in pair.links]).sum())
    return {name: torch.zeros_like(one) if one.grad is None else (one.grad != 0) for name, one in ones.items()}


def _draw_averages(pair: Pair) -> None:
    random = torch.Generator().manual_seed(8)
    ours, theirs = dict(pair.ours.named_buffers()), dict(pair.theirs.named_buffers())
    for link in pair.averages:
        buffer = ours[link.ours]
        drawn = torch.rand(buffer.shape, generator=random, dtype=buffer.dtype)
        buffer.copy_(drawn + 0.5 if link.ours.endswith("variance") else drawn - 0.5)
        link.of_theirs(theirs).copy_(link.of_ours(ours))


def swapped(pair: Pair, batch: Batch) -> dict[str, float]:
    """Two weights of the peer's swapped, one swap after the other → the largest difference of logits with each.

    Every two linked tensors of one shape that follow each other, and within each one all entries along its last axis
    that has two, its first half with its last; "nothing" is when all are back in their places.
    """
    draw_weights(pair, batch)
    pair.ours.eval(), pair.theirs.eval()
    found = {}
    with torch.no_grad():
        ours = pair.ours(batch)
        for name, one, other in _swaps(pair):
            kept = one.clone()
            one.copy_(other), other.copy_(kept)
            found[name] = float((ours - pair.logits(pair.theirs, batch)).abs().max())
            other.copy_(one), one.copy_(kept)
        found["nothing"] = float((ours - pair.logits(pair.theirs, batch)).abs().max())
    return found


def _swaps(pair: Pair) -> Iterator[tuple[str, Tensor, Tensor]]:
    theirs = dict(pair.theirs.named_parameters())
    linked = {f"{link.theirs}[{link.place}]": link.of_theirs(theirs) for link in pair.links}
    by_shape: dict[torch.Size, list[str]] = {}
    for name, weight in linked.items():
        by_shape.setdefault(weight.shape, []).append(name)
        if axes := [axis for axis, size in enumerate(weight.shape) if size > 1]:
            half = weight.shape[axes[-1]] // 2
            yield f"{name}, axis {axes[-1]}", weight.narrow(axes[-1], 0, half), weight.narrow(axes[-1], -half, half)
    for names in by_shape.values():
        for one, other in pairwise(names):
            yield f"{one} and {other}", linked[one], linked[other]


def _dense(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        return torch.zeros_like(parameter)
    return parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad


def _relative(ours: Tensor, theirs: Tensor, least: float) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=least))


def _check_all_linked(pair: Pair, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    linked = {link.ours for link in pair.links} | set(pair.silent)
    assert linked == set(ours), f"not linked of ours: {sorted(set(ours) ^ linked)}"
    linked = {link.theirs for link in pair.links} | set(pair.unused) | set(pair.held)
    assert linked == set(theirs), f"not linked of theirs: {sorted(set(theirs) ^ linked)}"
