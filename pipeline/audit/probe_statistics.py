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


def purest_region(counted: Counted, conf: ProbeConf, *, base: float, ordered: bool) -> tuple[Region | None, int]:
    """The region least likely by chance, and the number of regions tested.

    Args:
        base: rate of the positive class over all rows, those without a value too.
        ordered: neighbouring codes are neighbouring values; else only single values are regions.
    """
    rare = counted.positives if base <= 0.5 else counted.rows - counted.positives
    rows_until, rare_until = (np.concatenate(([0], np.cumsum(part))) for part in (counted.rows, rare))
    first, last = _regions(rows_until, conf, ordered=ordered)
    if not first.size:
        return None, 0
    rows, hits = rows_until[last] - rows_until[first], rare_until[last] - rare_until[first]
    share = hits / rows
    around = np.full(first.size, min(base, 1 - base))
    if ordered:
        around = np.maximum(around, _around(rows_until, rare_until, first, last))
    log_chance = _log_chance(share, rows, _rate_at(conf.max_odds_ratio, around))
    log_chance[share < conf.min_purity] = 0.0
    best = int(log_chance.argmin())
    if log_chance[best] >= 0:
        return None, first.size
    region = Region(
        first=int(first[best]),
        last=int(last[best]) - 1,
        rows=int(rows[best]),
        share=float(share[best]),
        around=float(around[best]),
        log_chance=float(log_chance[best]),
    )
    return region, first.size


def _regions(rows_until: Ints, conf: ProbeConf, *, ordered: bool) -> tuple[Ints, Ints]:
    """Half-open code ranges: every value with enough rows; and of each length k runs that begin every k/4 rows."""
    total = int(rows_until[-1])
    single = np.flatnonzero(np.diff(rows_until) >= conf.min_region_rows)
    first, last = [single], [single + 1]
    length = conf.min_region_rows
    while ordered and length <= conf.max_region_share * total:
        begin = np.arange(0, total - length + 1, max(1, length // 4))
        start = np.searchsorted(rows_until, begin, side="right") - 1
        stop = np.searchsorted(rows_until, begin + length, side="left")
        runs = np.unique(np.stack([start, stop]), axis=1)
        small = rows_until[runs[1]] - rows_until[runs[0]] <= 2 * length
        first.append(runs[0][small])
        last.append(runs[1][small])
        length *= 2
    return np.concatenate(first).astype(np.int64), np.concatenate(last).astype(np.int64)


def _around(rows_until: Ints, rare_until: Ints, first: Ints, last: Ints) -> Floats:
    """Rate of the rarer class in k rows on either side of each region of k rows, a gap of k rows away; the larger one.

    Where a side has fewer than k/2 such rows it says nothing (0). Within one value, rows have the value's rate.
    """
    begin, end = rows_until[first], rows_until[last]
    size = end - begin
    rates = []
    for low, high in ((begin - 2 * size, begin - size), (end + size, end + 2 * size)):
        low, high = (np.clip(at, 0, rows_until[-1]) for at in (low, high))
        hits = np.interp(high, rows_until, rare_until) - np.interp(low, rows_until, rare_until)
        rates.append(np.where(2 * (high - low) >= size, hits / np.maximum(high - low, 1), 0.0))
    larger: Floats = np.maximum(*rates)
    return larger


def _rate_at(odds_ratio: float, rate: Floats) -> Floats:
    odds = odds_ratio * rate / np.maximum(1 - rate, 1e-12)
    return odds / (1 + odds)


def _log_chance(share: Floats, rows: Ints, rate: Floats) -> Floats:
    """Chernoff's bound of log P(X ≥ share × rows) for X ~ Binomial(rows, rate); 0 where share ≤ rate."""
    rate = np.clip(rate, 1e-12, 1 - 1e-12)
    with np.errstate(divide="ignore", invalid="ignore"):
        hit = np.where(share > 0, share * np.log(share / rate), 0.0)
        miss = np.where(share < 1, (1 - share) * np.log((1 - share) / (1 - rate)), 0.0)
    bound: Floats = np.where(share > rate, -rows * (hit + miss), 0.0)
    return bound
