"""Simulated gate days whose true probabilities are known, honest models of them, and candidates planted as bad ones.

n: impressions. Users are as uneven as real ones (a lognormal number of impressions each), anchors and categories follow
Zipf's law, one user in ten and one anchor in ten are new to both models. A model knows the true effects of the users
and anchors that it has seen, up to noise of its own: that of its training's seed. Twins differ in nothing but the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.gate_case import Evidence, Scored
from training.segments import Segments, by_value, heavy_users
from training.verdict import Days, Parity

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

TASKS = {"enter": -1.7, "watch": -0.4, "gift": -3.2}
"""Task → its base logit; the last two are judged on entered rows."""

USER, ANCHOR, TASTE, CONTEXT = 0.5, 0.6, 0.4, 0.5  # standard deviations of the true effects
CATEGORIES = 12
ROWS_PER_USER = 12
NEW_SHARE = 0.1
DAY = "2026-01-10"
CANDIDATE_DAYS = Days(train=("2026-01-07", "2026-01-08"), valid=("2026-01-09",), seen_until="2026-01-09")
CHAMPION_DAYS = Days(train=("2026-01-05", "2026-01-06"), valid=("2026-01-07",), seen_until="2026-01-07")


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Standard deviations of a model's errors, in logits.

    Two trainings agree on what they have seen often: the error of a key with r rows on the day is key / √(1 + r / 5).
    """

    key: float = 0.5
    impression: float = 0.2

    def of(self, keys: Integers, rng: np.random.Generator) -> Floats:
        """[n] key of each row → [n] the error of its key."""
        rows = np.bincount(keys)
        return np.asarray((rng.normal(size=len(rows)) * self.key / np.sqrt(1 + rows / 5))[keys], dtype=np.float64)


SEED_NOISE = Noise()


@dataclass(frozen=True, kw_only=True)
class GateDay:
    """A gate day.

    Attributes:
        user, anchor, category: [n].
        known_user, known_anchor: [n], whether the models have seen them.
        user_effect, anchor_effect, taste, context: task → [n], parts of the true logit; the last follows from numbers
            (heat, hour), which models read of new users and anchors too.
        labels, weights: task → [n].
    """

    user: Integers
    anchor: Integers
    category: Integers
    known_user: NDArray[np.bool_]
    known_anchor: NDArray[np.bool_]
    user_effect: Mapping[str, Floats]
    anchor_effect: Mapping[str, Floats]
    taste: Mapping[str, Floats]
    context: Mapping[str, Floats]
    labels: Mapping[str, Floats]
    weights: Mapping[str, Floats]

    @classmethod
    def simulate(cls, rows: int, seed: int) -> GateDay:
        """A day of `rows` impressions; a function of (rows, seed)."""
        rng = np.random.default_rng(seed)
        users, anchors = max(rows // ROWS_PER_USER, 50), max(rows // 100, 50)
        user = rng.choice(users, rows, p=_shares(rng.lognormal(0.0, 1.2, users)))
        anchor = rng.choice(anchors, rows, p=_shares(1 / (5 + np.arange(anchors))))
        category_of = rng.choice(CATEGORIES, anchors, p=_shares(1 / (2 + np.arange(CATEGORIES))))
        category = category_of[anchor]
        effects: dict[str, tuple[Floats, ...]] = {
            task: (
                rng.normal(0, USER, users)[user],
                rng.normal(0, ANCHOR, anchors)[anchor],
                rng.normal(0, TASTE, (users, CATEGORIES))[user, category],
                rng.normal(0, CONTEXT, rows),
            )
            for task in TASKS
        }
        drawn: dict[str, Floats] = {
            task: (rng.random(rows) < _sigmoid(base + np.sum(effects[task], axis=0))).astype(np.float64)
            for task, base in TASKS.items()
        }
        enter = drawn["enter"]
        return cls(
            user=user,
            anchor=anchor,
            category=category,
            known_user=(rng.random(users) >= NEW_SHARE)[user],
            known_anchor=(rng.random(anchors) >= NEW_SHARE)[anchor],
            user_effect={task: effects[task][0] for task in TASKS},
            anchor_effect={task: effects[task][1] for task in TASKS},
            taste={task: effects[task][2] for task in TASKS},
            context={task: effects[task][3] for task in TASKS},
            labels={task: label if task == "enter" else label * enter for task, label in drawn.items()},
            weights={task: np.ones(rows) if task == "enter" else enter for task in TASKS},
        )

    def evidence(self) -> Evidence:
        """The day as the gate sees it, parity proven."""
        names = pa.array([f"c{number}" for number in range(CATEGORIES)])
        rows = {
            "new user_id": ~self.known_user,
            "new anchor_id": ~self.known_anchor,
            "heavy users": heavy_users(self.user, 0.1),
            **by_value("category", pa.chunked_array([names.take(pa.array(self.category))]), CATEGORIES),
        }
        proven = Parity(
            rows=len(self.user),
            rows_with_empty_sequence=0,
            rows_with_oov=int((~self.known_user).sum()),
            stripped_rows=0,
            single_row_batches=1,
            differing_columns={},
            logit_difference=0.0,
            probability_difference=0.0,
        )
        return Evidence(
            model="simulated",
            day=DAY,
            labels=self.labels,
            weights=self.weights,
            group=self.user,
            segments=Segments(rows=rows),
            left_out={},
            parity=proven,
        )

    def logits(self, seed: int, noise: Noise = SEED_NOISE) -> dict[str, Floats]:
        """What a model trained with a seed says, task → [n]; calibrated on what it knows."""
        rng = np.random.default_rng(seed)
        found = {}
        for task, base in TASKS.items():
            user = self.user_effect[task] + self.taste[task] + noise.of(self.user, rng)
            anchor = self.anchor_effect[task] + noise.of(self.anchor, rng)
            own = self.context[task] + rng.normal(0, noise.impression, len(self.user))
            raw = np.where(self.known_user, user, 0.0) + np.where(self.known_anchor, anchor, 0.0) + own
            found[task] = self._calibrated(task, base + raw)
        return found

    def _calibrated(self, task: str, logit: Floats) -> Floats:
        """Shifted so that PCOC against the true probabilities is 1, as a calibrated training has it."""
        judged = self.weights[task] > 0
        truth = TASKS[task] + self.user_effect[task] + self.anchor_effect[task] + self.taste[task] + self.context[task]
        wanted, shift = _sigmoid(truth[judged]).mean(), 0.0
        for _ in range(20):  # Newton
            p = _sigmoid(logit[judged] + shift)
            shift -= (p.mean() - wanted) / (p * (1 - p)).mean()
        return logit + shift

    def champion(self, seed: int, noise: Noise = SEED_NOISE) -> Scored:
        """The model in use."""
        return Scored(name="champion", days=CHAMPION_DAYS, scores=_probabilities(self.logits(seed, noise)))

    def candidate(self, seed: int, noise: Noise = SEED_NOISE) -> Scored:
        """The same model, trained anew with another seed."""
        return Scored(name="candidate", days=CANDIDATE_DAYS, scores=_probabilities(self.logits(seed, noise)))


def _shares(weights: Floats) -> Floats:
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def _sigmoid(logit: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-logit)), dtype=np.float64)


def _probabilities(logits: Mapping[str, Floats]) -> dict[str, Floats]:
    return {task: _sigmoid(logit) for task, logit in logits.items()}


def _shuffled_labels(day: GateDay, seed: int) -> Scored:
    """Trained on labels that belong to other rows: right on average, and knows nothing."""
    rng, honest = np.random.default_rng(seed), day.candidate(seed)
    return replace(honest, scores={task: rng.permutation(p) for task, p in honest.scores.items()})


def _stale_vocabulary(day: GateDay, seed: int) -> Scored:
    """Served with the vocabulary of another training: every known user and anchor has the row of another one."""
    rng = np.random.default_rng(seed)
    moved = {}
    for name in ("user", "anchor"):
        keys = getattr(day, name)
        first = np.full(keys.max() + 1, -1)
        first[keys[::-1]] = np.arange(len(keys))[::-1]  # a row of each key
        moved[name] = first[rng.permutation(np.flatnonzero(first >= 0))[np.unique(keys, return_inverse=True)[1]]]
    stale = replace(
        day,
        user_effect={task: effect[moved["user"]] for task, effect in day.user_effect.items()},
        anchor_effect={task: effect[moved["anchor"]] for task, effect in day.anchor_effect.items()},
        taste={task: effect[moved["user"]] for task, effect in day.taste.items()},
    )
    return stale.candidate(seed)


def _broken_category(day: GateDay, seed: int) -> Scored:
    """In the smallest category of at least 2 % of the rows, scores have nothing to do with the rows."""
    rng, honest = np.random.default_rng(seed), day.candidate(seed)
    counts = np.bincount(day.category, minlength=CATEGORIES)
    rows = np.flatnonzero(day.category == np.where(counts >= 0.02 * counts.sum(), counts, counts.max()).argmin())
    scores = {task: p.copy() for task, p in honest.scores.items()}
    for p in scores.values():
        p[rows] = p[rng.permutation(rows)]
    return replace(honest, scores=scores)


def _miscalibrated(day: GateDay, seed: int) -> Scored:
    """Every probability 20 % too high; the order is as it was."""
    honest = day.candidate(seed)
    return replace(honest, scores={task: np.minimum(p * 1.2, 1.0) for task, p in honest.scores.items()})


def _leaked_labels(day: GateDay, seed: int) -> Scored:
    """A feature that tells a part of the label: what happened after the impression was counted in."""
    logits = day.logits(seed)
    leaked = {task: logit + 1.0 * (day.labels[task] - 0.5) for task, logit in logits.items()}
    return replace(day.candidate(seed), scores=_probabilities({t: day._calibrated(t, x) for t, x in leaked.items()}))


def _trained_on_the_gate_day(day: GateDay, seed: int) -> Scored:
    """Its train days end with the day that is to judge it."""
    seen = CANDIDATE_DAYS.model_copy(update={"seen_until": DAY})
    return replace(day.candidate(seed), days=seen)


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A bad candidate, and the rule that is meant to stop it."""

    name: str
    rule: str
    make: Callable[[GateDay, int], Scored]


PLANTED = (
    Planted(name="shuffled labels", rule="floors", make=_shuffled_labels),
    Planted(name="stale vocabulary", rule="champion_comparison", make=_stale_vocabulary),
    Planted(name="one category broken", rule="segments", make=_broken_category),
    Planted(name="miscalibrated by 20 %", rule="calibration", make=_miscalibrated),
    Planted(name="leaked labels", rule="leakage_suspected", make=_leaked_labels),
    Planted(name="trained on the gate day", rule="no_unseen_day", make=_trained_on_the_gate_day),
)
