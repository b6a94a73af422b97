"""How much one feature alone knows of one label: pure numpy over counts per distinct value.

A feature is reduced to the ascending codes of its distinct values; everything below needs only how many rows, and how
many positive rows, have each value.

AUC        Mann-Whitney's U / (positives × negatives), ties half (Hanley and McNeil, Radiology 1982); the direction does
           not matter, so the larger of AUC and 1 − AUC counts.
OOF rate   For values without an order: a row's score is the label's rate among rows of the same value in other folds.
Regions    A twin that is planted on 1 % of the rows moves the AUC by at most 0.005. But where it is planted, the label
           is pure. Regions are single values, and runs of neighbouring values of every length k = 16, 32, ... rows
           (a scan statistic: Kulldorff, Commun. Stat. 1997). A region is suspected when

             1. the label's rarer class has a share of at least `min_purity` in it,
             2. its odds there are above `max_odds_ratio` times the odds around it, beyond chance.

           "Around" is the largest of the rate over all rows and the rates in k rows of neighbouring values on either
           side, a gap of k rows away: an honest feature moves the label smoothly, and a twin of up to 2k rows lies in
           the region and the gaps. "Beyond chance": with r the rate at those limiting odds,
           c of k rows have log P(X ≥ c) ≤ −k KL(c/k ‖ r) (Chernoff 1952; exact where the region is pure), compared
           with log(alpha / regions tested), Bonferroni. Only the rarer class is looked at: regions without any
           positive of a rare label are honest and common.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.conf import ProbeConf

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
PRIOR_ROWS = 20.0
"""How many rows the overall rate is worth in an out-of-fold rate."""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Rows and positive rows of each distinct value [u]; values ascend where they have an order."""

    rows: Ints
    positives: Ints

    @classmethod
    def of(cls, codes: Ints, labels: Ints, distinct: int) -> Counted:
        """[n] codes in [0, distinct), [n] labels 0 or 1."""
        rows = np.bincount(codes, minlength=distinct)
        positives = np.bincount(codes[labels == 1], minlength=distinct)
        return cls(rows=rows.astype(np.int64), positives=positives.astype(np.int64))

    @property
    def base(self) -> float:
        """Rate of the positive class over all rows."""
        return float(self.positives.sum() / max(1, self.rows.sum()))


def auc(counted: Counted) -> float:
    """Probability that a random positive row has a larger value than a random negative one, ties half.

    0.5 when a class is missing.
    """
    positives, negatives = counted.positives, counted.rows - counted.positives
    pairs = float(positives.sum()) * float(negatives.sum())
    if not pairs:
        return 0.5
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2)).sum() / pairs)


def out_of_fold_auc(codes: Ints, labels: Ints, folds: Ints, distinct: int) -> float:
    """AUC of the label's rate among rows of the same value in other folds, shrunk towards the rate of all rows.

    Args:
        codes, labels, folds: [n]; folds count from 0.
    """
    number = int(folds.max(initial=0)) + 1
    cells = Counted.of(codes * number + folds, labels, distinct * number)
    rows, positives = (part.reshape(distinct, number) for part in (cells.rows, cells.positives))
    other_rows, other_positives = (part.sum(axis=1, keepdims=True) - part for part in (rows, positives))
    rates = (other_positives + PRIOR_ROWS * cells.base) / (other_rows + PRIOR_ROWS)
    order = np.unique(rates.ravel(), return_inverse=True)[1].reshape(-1)
    sizes = int(order.max(initial=0)) + 1
    merged = Counted(
        rows=np.bincount(order, weights=rows.ravel(), minlength=sizes).astype(np.int64),
        positives=np.bincount(order, weights=positives.ravel(), minlength=sizes).astype(np.int64),
    )
    return auc(merged)


@dataclass(frozen=True, kw_only=True)
class Region:
    """Values [first, last] (codes) with `rows` rows, `share` of which have the rarer class; `around` is the rate that
    was expected, `log_chance` the log of the chance's bound."""

    first: int
    last: int
    rows: int
    share: float
    around: float
    log_chance: float


@dataclass(frozen=True, kw_only=True)
class Place:
    """Ranks of rows [m] as a value and a share of its rows."""

    code: Ints
    share: Floats

    @classmethod
    def of(cls, rank: Ints, rows_until: Ints) -> Place:
        code = np.clip(np.searchsorted(rows_until, rank, side="right") - 1, 0, rows_until.size - 2)
        width = rows_until[code + 1] - rows_until[code]
        return cls(code=code, share=(rank - rows_until[code]) / np.maximum(width, 1))

    def count(self, until: Ints) -> Floats:
        """Running counts at the ranks; within one value, rows have the value's rate."""
        found: Floats = until[self.code] + self.share * (until[self.code + 1] - until[self.code])
        return found


@dataclass(frozen=True, kw_only=True)
class Regions:
    """Runs of values [first[i], last[i]) to be tested, and what is around them: the same for all labels of one mask.

    Attributes:
        rows: [m] rows of each region.
        sides: left and right: k rows, a gap of k rows away from a region of k rows, and whether there are k/2 of them.
    """

    first: Ints
    last: Ints
    rows: Ints
    sides: tuple[tuple[Place, Place, Ints], ...]

    @classmethod
    def of(cls, rows: Ints, conf: ProbeConf, *, ordered: bool) -> Regions:
        """Every value with enough rows; and, of ordered values, of each length k runs that begin every k/4 rows.

        Args:
            rows: [u] rows of each value.
        """
        until = _until(rows)
        total = int(until[-1])
        single = np.flatnonzero(rows >= conf.min_region_rows)
        first, last = [single], [single + 1]
        length = conf.min_region_rows
        while ordered and length <= conf.max_region_share * total:
            begin = np.arange(0, total - length + 1, max(1, length // 4))
            start = np.searchsorted(until, begin, side="right") - 1
            stop = np.searchsorted(until, begin + length, side="left")
            is_new = np.concatenate(([True], (np.diff(start) > 0) | (np.diff(stop) > 0)))
            is_small = until[stop] - until[start] <= 2 * length
            first.append(start[is_new & is_small])
            last.append(stop[is_new & is_small])
            length *= 2
        begins, ends = np.concatenate(first).astype(np.int64), np.concatenate(last).astype(np.int64)
        return cls(
            first=begins, last=ends, rows=until[ends] - until[begins], sides=_sides(until, begins, ends, ordered)
        )


def _until(counts: Ints) -> Ints:
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int64)


def _sides(until: Ints, first: Ints, last: Ints, ordered: bool) -> tuple[tuple[Place, Place, Ints], ...]:
    if not ordered or not first.size:
        return ()
    begin, end = until[first], until[last]
    size = end - begin
    found = []
    for low, high in ((begin - 2 * size, begin - size), (end + size, end + 2 * size)):
        low, high = np.clip(low, 0, until[-1]), np.clip(high, 0, until[-1])
        there = np.where(2 * (high - low) >= size, high - low, 0)
        found.append((Place.of(low, until), Place.of(high, until), there))
    return tuple(found)


def purest_region(regions: Regions, positives: Ints, conf: ProbeConf, *, rows: Ints, base: float) -> Region | None:
    """The region least likely by chance; None when no region is pure enough.

    Args:
        positives, rows: [u] positive rows, and all rows, of each value.
        base: rate of the positive class over all rows, those without a value too.
    """
    if not regions.first.size:
        return None
    rare_until = _until(positives if base <= 0.5 else rows - positives)
    share = (rare_until[regions.last] - rare_until[regions.first]) / regions.rows
    around = np.full(share.size, min(base, 1 - base))
    for low, high, there in regions.sides:
        hits = high.count(rare_until) - low.count(rare_until)
        around = np.maximum(around, np.where(there > 0, hits / np.maximum(there, 1), 0.0))
    log_chance = _log_chance(share, regions.rows, _rate_at(conf.max_odds_ratio, around))
    log_chance[share < conf.min_purity] = 0.0
    best = int(log_chance.argmin())
    if log_chance[best] >= 0:
        return None
    return Region(
        first=int(regions.first[best]),
        last=int(regions.last[best]) - 1,
        rows=int(regions.rows[best]),
        share=float(share[best]),
        around=float(around[best]),
        log_chance=float(log_chance[best]),
    )


def _rate_at(odds_ratio: float, rate: Floats) -> Floats:
    odds = odds_ratio * rate / np.maximum(1 - rate, 1e-12)
    limiting: Floats = odds / (1 + odds)
    return limiting


def _log_chance(share: Floats, rows: Ints, rate: Floats) -> Floats:
    """Chernoff's bound of log P(X ≥ share × rows) for X ~ Binomial(rows, rate); 0 where share ≤ rate."""
    rate = np.clip(rate, 1e-12, 1 - 1e-12)
    with np.errstate(divide="ignore", invalid="ignore"):
        hit = np.where(share > 0, share * np.log(share / rate), 0.0)
        miss = np.where(share < 1, (1 - share) * np.log((1 - share) / (1 - rate)), 0.0)
    bound: Floats = np.where(share > rate, -rows * (hit + miss), 0.0)
    return bound
