"""CVR learnt from clicks alone, and over the entire space (ESMM): judged on ALL impressions, where the truth is known.

Impressions of a user u and an item i, both equally likely, draw a click, and where there is one a purchase:

    s     = √½ · ⟨a_u, b_i⟩ / √d + √½ · f_i          shared: what makes for clicks makes for purchases, too
    CTR   = p(click | u, i, z)         = σ(α + s + γ · o_i + η · z)
    CVR   = p(buy | click = 1, u, i, z) = σ(β + s + γ · r_i + η · z)

with a, b of d dimensions, f, o, r (own to each task) and z all from N(0, 1). Models see the ids of u and i. z is of one
impression, and nobody sees it. The truth is CVR(u, i) = E_z CVR: the share of buyers if every impression were clicked.

η = 0   nothing is hidden. CVR is the same function among the clicked and among all, so that whoever learns it among the
        clicked may be right everywhere; but where clicks are rare there is little to learn it from.
η > 0   the clicked have a larger z than the others, and buy more often than all would with the same u and i. Neither
        model can know: p(buy | click, u, i) itself is above CVR(u, i).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.known_truth import Floats, Trained, Training, auc_of_truth, sigmoid, train, write
from features.manifest import SplitName
from jobs.console import Steps

MODELS = {"naive": "dnn", "esmm": "esmm"}
DRAWN_BY = 2026
QUADRATURE = 32  # nodes of Gauss and Hermite for the mean over z

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class EntireSpace:
    """Sizes, and the equations' constants.

    Attributes:
        users, items, dims: how many, and d.
        ctr_base, cvr_base, own, hidden: α, β, γ and η.
        rows: impressions of each split.
    """

    users: int = 500
    items: int = 500
    dims: int = 2
    ctr_base: float = -2.6
    cvr_base: float = -1.8
    own: float = 0.5
    hidden: float = 0.0
    rows: Mapping[SplitName, int]


@dataclass(frozen=True, kw_only=True)
class Impressions:
    """Rows of a split; n of them.

    Attributes:
        user, item: [n].
        ctr, cvr: [n] true probabilities given user and item.
        click, buy: [n] 0 or 1; nobody buys without a click.
    """

    user: Ints
    item: Ints
    ctr: Floats
    cvr: Floats
    click: Ints
    buy: Ints

    def table(self) -> pa.Table:
        """What models see."""
        return pa.table({"user": self.user, "item": self.item, "click": self.click, "buy": self.buy})


@dataclass(frozen=True, kw_only=True)
class Factors:
    """What users and items are like: a [users, d], b [items, d]; f, o and r [items]."""

    user: Floats
    item: Floats
    shared: Floats
    of_clicks: Floats
    of_purchases: Floats

    @classmethod
    def drawn(cls, world: EntireSpace, rng: np.random.Generator) -> Factors:
        """All from N(0, 1)."""
        return cls(
            user=rng.standard_normal((world.users, world.dims)),
            item=rng.standard_normal((world.items, world.dims)),
            shared=rng.standard_normal(world.items),
            of_clicks=rng.standard_normal(world.items),
            of_purchases=rng.standard_normal(world.items),
        )


FULL = EntireSpace(rows={"train": 200_000, "valid": 50_000, "test": 100_000})
WORLDS: Mapping[str, EntireSpace] = {
    "esmm": FULL,
    "esmm_sparse": replace(FULL, users=4 * FULL.users),
    "esmm_hidden": replace(FULL, hidden=1.0),
}
COLUMNS: Mapping[str, Mapping[str, Any]] = {
    "user": {"role": "categorical"},
    "item": {"role": "categorical"},
    "click": {"role": "label"},
    "buy": {"role": "label", "given": "click"},
}
SETTINGS: Mapping[str, Any] = {
    "batch_size": 1024,
    "epochs": 20,
    "judge_train": False,
    "optim": {
        "embedding": {"kind": "adagrad", "learning_rate": 0.02, "l2": 0.001},
        "dense": {"kind": "adam", "learning_rate": 0.001},
    },
    # Among the clicked of valid, as in practice: the truth on all impressions is known here alone.
    "early_stopping": {"task": "buy", "metric": "logloss", "patience": 5},
}
LAYERS: Mapping[str, Any] = {"embedding_dim": 8, "hidden": [64, 32], "dropout": 0.0}


def draw(world: EntireSpace, rows: int, rng: np.random.Generator, factors: Factors) -> Impressions:
    """Impressions, and what became of them."""
    user, item = rng.integers(world.users, size=rows), rng.integers(world.items, size=rows)
    affinity = (factors.user[user] * factors.item[item]).sum(axis=1) / np.sqrt(world.dims)
    shared = np.sqrt(0.5) * (affinity + factors.shared[item])
    ctr = world.ctr_base + shared + world.own * factors.of_clicks[item]
    cvr = world.cvr_base + shared + world.own * factors.of_purchases[item]
    hidden = world.hidden * rng.standard_normal(rows)
    click = rng.random(rows) < sigmoid(ctr + hidden)
    buy = click & (rng.random(rows) < sigmoid(cvr + hidden))
    return Impressions(
        user=user,
        item=item,
        ctr=mean_over_hidden(ctr, world.hidden),
        cvr=mean_over_hidden(cvr, world.hidden),
        click=click.astype(np.int64),
        buy=buy.astype(np.int64),
    )


def mean_over_hidden(logit: Floats, hidden: float) -> Floats:
    """E_z σ(logit + η z), z from N(0, 1)."""
    places, weights = np.polynomial.hermite_e.hermegauss(QUADRATURE)  # type: ignore[no-untyped-call]
    found = np.zeros_like(logit)
    for place, weight in zip(places, weights / weights.sum(), strict=True):
        found += weight * sigmoid(logit + hidden * place)
    return found


def splits_of(world: EntireSpace) -> dict[SplitName, Impressions]:
    """Every split, the same at each call."""
    factors = Factors.drawn(world, np.random.default_rng([DRAWN_BY, 0]))
    return {
        split: draw(world, rows, np.random.default_rng([DRAWN_BY, 1 + place]), factors)
        for place, (split, rows) in enumerate(world.rows.items())
    }


def measure(out: Path, seeds: Sequence[int], told: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """World → how both know CVR on all impressions of test; of the plain one, of sparse users, of something hidden."""
    found = {}
    for name, world in WORLDS.items():
        found[name] = one = _in(world, out / name, seeds)
        shown = ", ".join(f"{arm} AUC {one[f'{arm}_auc']:.4f} PCOC {one[f'{arm}_pcoc']:.3f}" for arm in MODELS)
        told(f"{name}: {shown}, AUC of the truth {one['true_auc']:.4f}")
    return found


def _in(world: EntireSpace, root: Path, seeds: Sequence[int]) -> dict[str, Any]:
    drawn = splits_of(world)
    write(root, {split: rows.table() for split, rows in drawn.items()}, COLUMNS)
    trainings = [
        Training(name=f"{arm}-{seed}", model=model, layers=_layers(arm), settings=SETTINGS, seed=seed)
        for arm, model in MODELS.items()
        for seed in seeds
    ]
    trained, test = train(root, trainings, Steps()), drawn["test"]
    found: dict[str, Any] = {
        "true_auc": auc_of_truth(test.cvr, test.cvr),
        "ctr": float(test.ctr.mean()),
        "cvr": float(test.cvr.mean()),
        "cvr_of_clicked": float(test.buy.sum() / test.click.sum()),
        "users": world.users,
        "hidden": world.hidden,
        "seeds": list(seeds),
    }
    for arm in MODELS:
        found |= _judged(arm, [trained[f"{arm}-{seed}"] for seed in seeds], test)
    return found


def _layers(arm: str) -> dict[str, Any]:
    own = {"naive": {"task": "buy"}, "esmm": {"parent": "click", "child": "buy"}}
    return dict(LAYERS) | own[arm]


def _judged(arm: str, by_seed: Sequence[Trained], test: Impressions) -> dict[str, Any]:
    """Means over seeds under the arm's name; each seed's, and the same among the clicked, below `<arm>_by_seed`."""
    scores = [trained.score("buy") for trained in by_seed]
    clicked = [trained.metrics["test"]["buy"] for trained in by_seed]
    values = {
        "auc": [auc_of_truth(test.cvr, score) for score in scores],
        "pcoc": [float(score.sum() / test.cvr.sum()) for score in scores],
        "clicked_auc": [float(figures["auc"]) for figures in clicked],
        "clicked_pcoc": [float(figures["pcoc"]) for figures in clicked],
    }
    means = {f"{arm}_{name}": statistics.fmean(found) for name, found in values.items()}
    return {**means, f"{arm}_by_seed": values}


def settings() -> dict[str, Any]:
    """Worlds and settings of the trainings, for the record."""
    worlds = {name: asdict(world) for name, world in WORLDS.items()}
    return {"worlds": worlds, "layers": LAYERS, "settings": SETTINGS, "drawn_by": DRAWN_BY}
