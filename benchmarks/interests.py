"""What attention gains over pooling as a user's interests become many: a world where only the history tells them.

K       interests of a user at the same time: distinct ones of C categories, all equally likely
h       history, L items: every interest equally often (± 1), in random order
c       candidate: with probability ½ of one of the K categories, else of one of the others

    p(click) = σ(b + a · 1[category(c) ∈ interests] + q_category(c)),   q ~ N(0, σ_q²) a quality per category

Of an item models see the id of its category, and nothing else. Every row is another user, and no user is named, so that
interests are known by the history alone; it names all of them, so that the true probability is a function of what a
model sees. a, b and σ_q are the same for every K, and hence so is the ceiling, but for noise: what changes with K is
how much has to pass through one pooled vector.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.known_truth import Floats, Training, auc, sigmoid, train, write
from features.manifest import SplitName
from jobs.console import Steps

INTERESTS = (1, 2, 4, 8)
MODELS = {"pooling": "dnn", "din": "din"}
DRAWN_BY = 2026

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class InterestsWorld:
    """Sizes, and the equation's constants.

    Attributes:
        categories: C.
        length: L.
        base, affinity, quality_std: b, a and σ_q.
        rows: of each split.
    """

    categories: int = 40
    length: int = 32
    base: float = -1.5
    affinity: float = 3.0
    quality_std: float = 0.5
    rows: Mapping[SplitName, int]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Rows of a split; n of them.

    Attributes:
        interests: [n, K] categories, distinct in a row.
        history: [n, L] categories of items.
        candidate: [n] its category.
        probability: [n] of a click.
        click: [n] 0 or 1.
    """

    interests: Ints
    history: Ints
    candidate: Ints
    probability: Floats
    click: Ints

    def table(self) -> pa.Table:
        """What models see."""
        history = pa.FixedSizeListArray.from_arrays(pa.array(self.history.ravel()), self.history.shape[1])
        return pa.table(
            {"category": self.candidate, "history": history.cast(pa.list_(pa.int64())), "click": self.click}
        )


FULL = InterestsWorld(rows={"train": 60_000, "valid": 10_000, "test": 20_000})
COLUMNS: Mapping[str, Mapping[str, Any]] = {
    "category": {"role": "categorical"},
    "history": {"role": "sequence", "of": "category", "length": FULL.length},
    "click": {"role": "label"},
}
# Equal for both arms. DIN's network has the ReLU of the DNN, so that nothing but the pooling differs.
SETTINGS: Mapping[str, Any] = {
    "batch_size": 512,
    "epochs": 20,
    "judge_train": False,
    "optim": {
        "embedding": {"kind": "adagrad", "learning_rate": 0.15},
        "dense": {"kind": "adam", "learning_rate": 0.005},
    },
    "early_stopping": {"task": "click", "metric": "auc", "patience": 2, "min_gain": 0.001},
}
LAYERS: Mapping[str, Mapping[str, Any]] = {
    "pooling": {"embedding_dim": 8, "hidden": [128, 64], "dropout": 0.0},
    "din": {"embedding_dim": 8, "hidden": [128, 64], "dropout": 0.0, "candidates": {}, "activation": "relu"},
}


def draw(world: InterestsWorld, interests: int, rows: int, rng: np.random.Generator, quality: Floats) -> Drawn:
    """Rows of users with so many interests.

    Args:
        quality: [C] q of each category.
    """
    shuffled = rng.permuted(np.tile(np.arange(world.categories), (rows, 1)), axis=1)
    own, others = shuffled[:, :interests], shuffled[:, interests:]
    slots = rng.permuted(np.tile(np.arange(world.length) % interests, (rows, 1)), axis=1)
    history = np.take_along_axis(own, slots, axis=1)
    is_own = rng.random(rows) < 0.5
    one_of_own = own[np.arange(rows), rng.integers(interests, size=rows)]
    candidate = np.where(is_own, one_of_own, others[:, 0])  # the others are in random order
    probability = sigmoid(world.base + world.affinity * is_own + quality[candidate])
    click = (rng.random(rows) < probability).astype(np.int64)
    return Drawn(interests=own, history=history, candidate=candidate, probability=probability, click=click)


def splits_of(world: InterestsWorld, interests: int) -> dict[SplitName, Drawn]:
    """Every split, the same at each call; users of one split are in no other."""
    quality = np.random.default_rng([DRAWN_BY, 0]).normal(0.0, world.quality_std, world.categories)
    return {
        split: draw(world, interests, rows, np.random.default_rng([DRAWN_BY, 1 + place, interests]), quality)
        for place, (split, rows) in enumerate(world.rows.items())
    }


def measure(out: Path, seeds: Sequence[int], told: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """K → AUC on test of both arms (means over seeds, and every seed's), of the truth, and what attention gains."""
    found = {}
    for interests in INTERESTS:
        found[str(interests)] = one = _at(interests, out / f"interests-{interests}", seeds)
        told(f"{interests} interests: pooling {one['pooling']:.4f}, DIN {one['din']:.4f}, ceiling {one['ceiling']:.4f}")
    return found


def _at(interests: int, root: Path, seeds: Sequence[int]) -> dict[str, Any]:
    drawn = splits_of(FULL, interests)
    write(root, {split: rows.table() for split, rows in drawn.items()}, COLUMNS)
    trainings = {
        (arm, seed): Training(name=f"{arm}-{seed}", model=model, layers=LAYERS[arm], settings=SETTINGS, seed=seed)
        for arm, model in MODELS.items()
        for seed in seeds
    }
    trained = train(root, list(trainings.values()), Steps())
    test = drawn["test"]
    aucs = {
        arm: [auc(test.click, trained[trainings[arm, seed].name].score("click")) for seed in seeds] for arm in MODELS
    }
    gains = [din - pooling for din, pooling in zip(aucs["din"], aucs["pooling"], strict=True)]
    return {
        "delta_auc": statistics.fmean(gains),
        "delta_range": [min(gains), max(gains)],
        **{arm: statistics.fmean(values) for arm, values in aucs.items()},
        "ceiling": auc(test.click, test.probability),
        "by_seed": aucs,
        "seeds": list(seeds),
    }


def settings() -> dict[str, Any]:
    """World and settings of the trainings, for the record."""
    return {"world": asdict(FULL), "layers": LAYERS, "settings": SETTINGS, "drawn_by": DRAWN_BY}
