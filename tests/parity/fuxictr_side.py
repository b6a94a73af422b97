"""FuxiCTR 2.3.10 beside ours: its feature map, what it reads, how its parameters are linked to ours, and the verdict.

Both sides have float64 by default, and every vocabulary has one size: any two tables can be swapped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from features.manifest import PADDING_ID, TrainSet
from tests.parity.pairs import (
    EVENTS,
    Link,
    Pair,
    assert_agreement,
    difference,
    small_batch,
    small_inputs,
)
from training import models
from training.batch import Batch

features = pytest.importorskip("fuxictr.features")
layers = pytest.importorskip("fuxictr.pytorch.layers")

DIM = 6
HIDDEN = [10, 8]
IDS = 30
OF_USER, OF_ITEM = ("user", "hour"), ("item", "city")
SWAPPED_BEYOND = 1e-4
"""Far beyond LOGITS_WITHIN: a swap is no rounding error."""
TABLES = "embedding_layer.embedding_layer.embedding_layers"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A pair, what it reads, and the least number of events of a row in training."""

    inputs: TrainSet
    pair: Pair
    least_events: int = 0

    def batch(self, *, is_training: bool) -> Batch:
        """Rows to learn from, or others to score."""
        least = self.least_events if is_training else 0
        return small_batch(self.inputs, seed=int(is_training), least_events=least)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """What a tensor of no named dtype has: the peer's DIEN makes its states so."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def assert_equal(make: Callable[[], Case], *, is_training: bool) -> None:
    """Logits and gradients within the bounds; in evaluation with the running averages of a step of training."""
    with default_dtype(torch.float64):
        case = make()
        assert_agreement(case.pair, case.batch(is_training=True), is_training=True)
        if not is_training:
            assert_agreement(case.pair, case.batch(is_training=False), is_training=False)


def assert_swaps_show(make: Callable[[], Case]) -> None:
    """Any two of the peer's parameters of one shape, swapped, bring the logits out of bounds; there are two."""
    with default_dtype(torch.float64):
        case = make()
        theirs = dict(case.pair.theirs.named_parameters())
        batch = case.batch(is_training=False)
        shift = {
            (one.theirs, other.theirs): difference(swapped(case.pair, one, other), batch, is_training=False)[0]
            for one, other in combinations(case.pair.links, 2)
            if theirs[one.theirs].shape == theirs[other.theirs].shape
        }
    assert shift
    assert {names: size for names, size in shift.items() if size < SWAPPED_BEYOND} == {}


def swapped(pair: Pair, one: Link, other: Link) -> Pair:
    """The same models, but each of two links goes to the other's parameter."""
    places = {id(one): other.theirs, id(other): one.theirs}
    return replace(pair, links=[replace(link, theirs=places.get(id(link), link.theirs)) for link in pair.links])


def train_set(*, history: Sequence[str] = (), dense: int = 0) -> TrainSet:
    """Columns in the peer's order: those of the candidate follow all others."""
    inputs = small_inputs(history=history, dense=dense)
    columns = {column.name: column for column in inputs.categorical}
    return inputs.model_copy(
        update={
            "categorical": tuple(columns[name] for name in (*OF_USER, *OF_ITEM)),
            "vocabularies": tuple(v.model_copy(update={"num_ids": IDS}) for v in inputs.vocabularies),
        }
    )


def pooled_fields(inputs: TrainSet) -> dict[str, str]:
    """The peer's names of sequence fields (a module's name has no dot) → the vocabulary, which is a column, too."""
    return {f"{one.name}_{field.name}": field.vocabulary for one in inputs.sequences for field in one.fields}


def feature_map(inputs: TrainSet, *, is_long: bool = False) -> Any:
    """The peer's feature map; its zoo for long sequences reads those by the columns of the candidate."""
    found = features.FeatureMap("parity", data_dir="")
    id_feature = {"type": "categorical", "vocab_size": IDS, "padding_idx": PADDING_ID}
    for column in inputs.categorical:
        source = "item" if is_long and column.name in OF_ITEM else "user"
        found.features[column.name] = id_feature | {"source": source}
    for number in inputs.dense:
        found.features[number.name] = {"type": "numeric", "source": "user"}
    pooled = id_feature | {
        "type": "sequence",
        "max_len": EVENTS,
        "source": "user",
        "feature_encoder": "layers.MaskedAveragePooling()",
    }
    for name, vocabulary in {} if is_long else pooled_fields(inputs).items():
        found.features[name] = pooled | {"share_embedding": vocabulary}
    found.num_fields, found.default_emb_dim = found.get_num_fields(), DIM
    return found


def rows_of(inputs: TrainSet, batch: Batch) -> dict[str, Tensor]:
    """What the peer's layers read."""
    ids = {column.name: batch.ids[:, place] for place, column in enumerate(inputs.categorical)}
    dense = {column.name: batch.dense[:, place] for place, column in enumerate(inputs.dense)}
    return ids | dense | {name.replace(".", "_"): sequence for name, sequence in batch.sequences.items()}


def without_padding(part: Tensor) -> Tensor:
    """The peer reads the row of padding where there is no event; it must be 0, as it is at first."""
    return torch.cat([torch.zeros_like(part[:1]), part[1:]])


def tables(inputs: TrainSet, theirs: str = TABLES, *, linear: bool = False, dim: int = DIM) -> list[Link]:
    """Embeddings, or the linear weights of ids behind them."""
    columns = slice(dim, dim + 1) if linear else slice(0, dim)
    return [
        Link(
            ours="table.weight",
            theirs=f"{theirs}.{name}.weight",
            rows=slice(first, first + IDS),
            columns=columns,
            as_theirs=without_padding,
        )
        for name, first in inputs.offsets().items()
    ]


def same(ours: str, theirs: str, *parts: str) -> list[Link]:
    """Parameters that are the same on both sides, but for where they stand."""
    return [Link(ours=f"{ours}.{part}", theirs=f"{theirs}.{part}") for part in parts]


def network(ours: str, theirs: str, *, has_dice: bool = False) -> list[Link]:
    """Hidden layers: both count their modules alike."""
    parts = [f"{2 * layer}.{part}" for layer in range(len(HIDDEN)) for part in ("weight", "bias")]
    return same(ours, f"{theirs}.mlp", *parts, *(["1.alpha", "3.alpha"] if has_dice else []))


def output(theirs: str) -> list[Link]:
    """The last layer."""
    return [Link(ours="head.weight", theirs=f"{theirs}.weight"), Link(ours="bias", theirs=f"{theirs}.bias")]


def case(
    name: str,
    inputs: TrainSet,
    peer: nn.Module,
    links: Sequence[Link],
    *,
    logits: Callable[[nn.Module, Batch], Tensor] | None = None,
    silent: Sequence[str] = (),
    unused: Sequence[str] = (),
    least_events: int = 0,
    **conf: object,
) -> Case:
    ours = models.build(name, inputs, {"embedding_dim": DIM, **conf}, seed=0)

    def plain(model: nn.Module, batch: Batch) -> Tensor:
        found: Tensor = model(rows_of(inputs, batch))
        return found

    pair = Pair(ours=ours, theirs=peer, logits=logits or plain, links=links, silent=silent, unused=unused)
    return Case(inputs=inputs, pair=pair, least_events=least_events)


def fused(theirs: str) -> list[Link]:
    """What FinalMLP ends with; the peer has a bias per stream, the second of which is not used."""
    first = HIDDEN[-1]
    return [
        Link(ours="body.bilinear", theirs=f"{theirs}.w_xy", as_theirs=lambda part: part.reshape(-1, 1)),
        Link(ours="head.weight", theirs=f"{theirs}.w_x.weight", columns=slice(0, first)),
        Link(ours="head.weight", theirs=f"{theirs}.w_y.weight", columns=slice(first, None)),
        Link(ours="bias", theirs=f"{theirs}.w_x.bias"),
    ]


def of_zoo(model: Callable[..., nn.Module], inputs: TrainSet, *, is_long: bool = True, **conf: object) -> nn.Module:
    """A whole model of the peer's; as a regression it gives its logits as they are."""
    unread = {"verbose": 0, "model_root": "", "metrics": [], "optimizer": "adam", "loss": "binary_crossentropy"}
    return model(feature_map(inputs, is_long=is_long), embedding_dim=DIM, task="regression", **unread, **conf)
