"""Which rows a train split has: of its own days a share of the negatives, and a share of the rows of earlier days.

Both are chosen by hashes of the impression: the same rows whatever the partitions, and whenever it is done again.

Steps, for N rows of the train days and E rows of the days of replay:
  1. replay      each of the E rows with probability min(1, share · N / E); the hash is of the train set's name too,
                 so that the next train set has others
  2. downsample  each row, replayed or not, as the conf `downsample` says
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from features.manifest import Task
from features.schema import label_name, mask_name
from pipeline.config import DownsampleConf, TrainDaysConf
from pipeline.context import ONE_DAY
from pipeline.task_choice import Counts

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

DRAWS = 1 << 31


def replay_days(first: datetime.date, trained_from: datetime.date, conf: TrainDaysConf) -> tuple[datetime.date, ...]:
    """The days that older rows are drawn from, ascending.

    They end the day before the first train day, so that none is judged; the champion was trained on each of them.

    Args:
        first: train day of an incremental train set.
        trained_from: first day that the champion, or those that it went on from, was trained on.
    """
    if conf.replay_share == 0:
        return ()
    earliest = max(trained_from, first - ONE_DAY * conf.replay_days)
    return tuple(earliest + ONE_DAY * place for place in range((first - earliest).days))


@dataclass(frozen=True, kw_only=True)
class SplitRows:
    """Unencoded rows of a split.

    Attributes:
        days: of the split; those of replay are not among them.
        counts: of all rows of these days, also of those that are not kept.
        rows: number of rows in `frame`.
        replayed: ISO day of replay → how many of them are of it.
    """

    days: tuple[datetime.date, ...]
    counts: Counts
    frame: DataFrame
    rows: int
    replayed: Mapping[str, int] = field(default_factory=dict)


def replay_rate(share: float, new_rows: int, older_rows: int) -> float:
    """The part of the older rows that makes `share` rows for each new one; all of them when there are too few."""
    return min(1.0, share * new_rows / older_rows) if older_rows else 0.0


def is_train_row(
    days: Sequence[datetime.date], older: Sequence[datetime.date], rate: float, seed: int, name: str
) -> Column:
    """Whether a row is of the train days, or is drawn from the older ones for the train set of that name."""
    return F.col("dt").isin(list(days)) | (F.col("dt").isin(list(older)) & _chance(rate, seed, "replay", name))


def rows_by_day(rows: DataFrame, days: Sequence[datetime.date]) -> Mapping[datetime.date, int]:
    """Day → its number of rows, 0 where it has none."""
    counts = {row["dt"]: row["count"] for row in rows.groupBy("dt").count().collect()}
    return {day: counts.get(day, 0) for day in days}


def downsampled(samples: DataFrame, tasks: Sequence[Task], conf: DownsampleConf, seed: int) -> DataFrame:
    """Keep a negative with the rate of its task's space; kept ones weigh 1/rate. Rows without weight go."""
    rates = {"impressions": conf.impressions, "entered": conf.entered}
    if set(rates.values()) == {1.0}:
        return samples
    weights: dict[str, Column] = {}
    for task in tasks:
        mask, rate = F.col(mask_name(task.name)), rates[task.space]
        negative = F.when(_chance(rate, seed, task.space), mask / rate).otherwise(0.0)
        weights[mask_name(task.name)] = F.when(F.col(label_name(task.name)) == 1, mask).otherwise(negative)
    weighted = samples.withColumns(weights)
    return weighted.where(F.greatest(*[F.col(name) for name in weights], F.lit(0.0)) > 0)


def _chance(rate: float, seed: int, *salts: str) -> Column:
    """True for a share of the impressions, by hash."""
    draw = F.pmod(F.xxhash64(F.lit(seed), *[F.lit(salt) for salt in salts], "impression_id"), F.lit(DRAWS))
    return draw < int(rate * DRAWS)
