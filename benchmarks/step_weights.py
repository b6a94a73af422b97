"""Our weights, the same in every process, and how a peer of `make bench-train` starts from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import nn

from benchmarks.step_arms import ATTENTION, DIM, HIDDEN, ArmSpec, inputs_of, model_conf
from training import models


class Link(NamedTuple):
    """A parameter of ours, or some of the table's rows and columns, and the peer's that starts as it."""

    ours: str
    theirs: str
    rows: slice | None = None
    columns: slice | None = None


def our_model(spec: ArmSpec) -> models.RankingModel:
    """On CPU, in float32 as it was drawn."""
    return models.build(spec.model, inputs_of(spec), model_conf(spec), seed=spec.seed)


def tables(spec: ArmSpec, theirs: str, *, is_linear: bool = False) -> list[Link]:
    """Of every field its embeddings, or its linear weights; `theirs` has a place for its name."""
    columns = slice(DIM, DIM + 1) if is_linear else slice(0, DIM)
    inputs = inputs_of(spec)
    return [
        Link("table.weight", theirs.format(name), slice(first, first + inputs.num_ids(name)), columns)
        for name, first in inputs.offsets().items()
    ]


def layer(ours: str, theirs: str) -> list[Link]:
    """A linear layer."""
    return [Link(f"{ours}.{part}", f"{theirs}.{part}") for part in ("weight", "bias")]


def network(theirs: str, *, step: int = 1) -> list[Link]:
    """The hidden layers; every `step`-th module of the peer's is one."""
    pairs = [(f"body.deep.{2 * number}", theirs.format(step * number)) for number in range(len(HIDDEN))]
    return [link for pair in pairs for link in layer(*pair)]


def attention(theirs: str, *, step: int = 1) -> list[Link]:
    """The hidden layers of DIN's activation unit."""
    unit = "body.pools.0.unit.layers"
    pairs = [(f"{unit}.{number}", theirs.format(step * number)) for number in range(len(ATTENTION))]
    return [link for pair in pairs for link in layer(*pair)]


@torch.no_grad()
def copy_ours(spec: ArmSpec, links: Iterable[Link], theirs: Mapping[str, nn.Parameter]) -> None:
    """Start the peer from our weights.

    Raises:
        ValueError: a parameter that it learns is none of the links'. Slopes of Dice are 0 on both sides.
    """
    ours = dict(our_model(spec).named_parameters())
    reached = set()
    for link in links:
        part = ours[link.ours] if link.rows is None else ours[link.ours][link.rows, link.columns]
        theirs[link.theirs].copy_(part)
        reached.add(link.theirs)
    left = {name for name, one in theirs.items() if one.requires_grad and not name.endswith("alpha")} - reached
    if left:
        raise ValueError(f"the peer learns what ours does not have: {', '.join(sorted(left))}")
