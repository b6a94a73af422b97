"""What the arms of `make bench-train` share: their shape, and the rows they learn from, equal in every process.

40 fields of equally many ids, each with a table of its own rows, embedded in 16 numbers; a network 400-400-400.
Ids of a field are drawn by Zipf, p(k-th most frequent) ∝ k^−s, s = 0 being all alike, and permuted, so that frequent
rows do not lie side by side. DIN's events are ids of the last field, by its table; every row has all of its events.
Both sides' environments import this: numpy, torch, and what describes a train set, nothing else.
"""

from __future__ import annotations

import importlib
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from features.manifest import CategoricalField, Sequence, SequenceField, Split, SplitName, Task, TrainSet, Vocabulary
from training.batch import Batch

FIELDS, DIM, EVENTS = 40, 16, 50
HIDDEN = (400, 400, 400)
ATTENTION = (64, 16)
"""Of DIN's activation unit: the peers' own default widths in one of them (DeepCTR-Torch)."""
ITEM = "item"
NAMES = (*(f"f{number:02d}" for number in range(FIELDS - 1)), ITEM)
TASK, HISTORY = "click", "history"
CLICK_RATE = 0.2
FIRST_ID = 1
"""0 is padding, which neither side would learn from."""

ModelName = Literal["deepfm", "din"]
Side = Literal["ours", "ranks", "deepctr", "fuxictr", "gemm"]


@dataclass(frozen=True, kw_only=True)
class ArmSpec:
    """One arm.

    Attributes:
        side: whose step; `benchmarks.step_<side>` makes it.
        variant: how it learns, by the names of that module.
        rows: of all tables together.
        skew: s of Zipf.
        batch: rows of a step (of a rank's step).
        batches: how many different ones are taken in turns.
        dtype: float64 is for losses that are compared.
        values: as the table's gradients travel between ranks (`ExchangeConf.values`).
        threads: of torch. cores: the process is pinned to them; () leaves it alone.
        copied: a peer starts from our weights.
    """

    side: Side
    variant: str
    model: ModelName
    rows: int
    skew: float = 1.05
    batch: int = 4096
    batches: int = 8
    seed: int = 2026
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "float64"] = "float32"
    values: str = "full"
    threads: int = 1
    cores: tuple[int, ...] = ()
    copied: bool = False

    @property
    def name(self) -> str:
        """Among the arms that take turns."""
        return f"{self.side} {self.variant} {shown(self.rows)}"

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; `of` is its inverse."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """What `as_dict` gave."""
        return cls(**values | {"cores": tuple(values["cores"])})

    @property
    def torch_dtype(self) -> torch.dtype:
        """Of weights and floating inputs."""
        return torch.float64 if self.dtype == "float64" else torch.float32


def shown(rows: int) -> str:
    """1000000 → "1e6"."""
    return f"{rows:.0e}".replace("e+0", "e")


class Stepper(Protocol):
    """A side's model, in train mode, with its rows on the device."""

    def step(self, number: int) -> torch.Tensor:
        """Learn from batch `number`, as its own training does: the mean loss of its rows [], detached."""
        ...


def make(spec: ArmSpec) -> Stepper:
    """The arm of a spec; imports what its environment has."""
    made: Stepper = importlib.import_module(f"benchmarks.step_{spec.side}").make(spec)
    return made


def inputs_of(spec: ArmSpec, splits: dict[SplitName, Split] | None = None, logical_shards: int = 1) -> TrainSet:
    """The train set's description: 40 vocabularies of `rows` / 40 ids, and for DIN the history."""
    field = SequenceField(name=ITEM, vocabulary=ITEM)
    return TrainSet(
        name="bench-train",
        source="bench-train",
        seed=spec.seed,
        logical_shards=logical_shards,
        catalog_fingerprint="",
        vocabularies=tuple(Vocabulary(name=name, num_ids=spec.rows // FIELDS) for name in NAMES),
        categorical=tuple(CategoricalField(name=name, vocabulary=name) for name in NAMES),
        sequences=(Sequence(name=HISTORY, length=EVENTS, fields=(field,)),) if spec.model == "din" else (),
        tasks=(Task(name=TASK, space="impressions"),),
        splits=splits or {},
        seen_until="",
    )


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Drawn rows.

    Attributes:
        ids: [n, 40] int64. events: [n, 50] int64, None for a model without. labels: [n] float32.
    """

    ids: NDArray[np.int64]
    events: NDArray[np.int64] | None
    labels: NDArray[np.float32]

    def part(self, start: int, stop: int) -> Self:
        """Rows [start, stop)."""
        events = None if self.events is None else self.events[start:stop]
        return type(self)(ids=self.ids[start:stop], events=events, labels=self.labels[start:stop])


def drawn(spec: ArmSpec, count: int) -> Rows:
    """`count` rows, a function of the spec's shape and seed."""
    ids_per_field = spec.rows // FIELDS - FIRST_ID
    random = np.random.default_rng(spec.seed)
    shares = np.arange(1, ids_per_field + 1, dtype=np.float64) ** -spec.skew
    reached = np.cumsum(shares) / shares.sum()
    ids = np.empty((count, FIELDS), np.int64)
    events = None
    for field, name in enumerate(NAMES):
        order = np.random.default_rng((2026, field)).permutation(ids_per_field) + FIRST_ID  # of the world, not the seed
        ids[:, field] = order[_places(random, reached, count)]
        if name == ITEM and spec.model == "din":
            events = order[_places(random, reached, count * EVENTS)].reshape(count, EVENTS)
    return Rows(ids=ids, events=events, labels=(random.random(count) < CLICK_RATE).astype(np.float32))


def _places(random: np.random.Generator, reached: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    return np.minimum(np.searchsorted(reached, random.random(count), side="right"), len(reached) - 1)


def resident(spec: ArmSpec) -> list[Rows]:
    """The batches that an arm takes in turns."""
    rows = drawn(spec, spec.batch * spec.batches)
    return [rows.part(first, first + spec.batch) for first in range(0, len(rows.labels), spec.batch)]


def as_batch(rows: Rows) -> Batch:
    """As our models read them."""
    count = len(rows.labels)
    events = {} if rows.events is None else {f"{HISTORY}.{ITEM}": torch.from_numpy(rows.events)}
    return Batch(
        ids=torch.from_numpy(rows.ids),
        dense=torch.zeros(count, 0),
        vectors={},
        sequences=events,
        labels=torch.from_numpy(rows.labels).unsqueeze(1),
        label_mask=torch.ones(count, 1),
        position=None,
        group=torch.arange(count),
        row_id=torch.arange(count),
    )


def model_conf(spec: ArmSpec) -> dict[str, Any]:
    """Our model's own settings: the peers' layers, no dropout."""
    conf: dict[str, Any] = {"embedding_dim": DIM, "hidden": list(HIDDEN), "dropout": 0.0, "batch_norm": False}
    if spec.model == "din":
        conf |= {"attention_hidden": list(ATTENTION), "attention_activation": "dice", "activation": "relu"}
    return conf
