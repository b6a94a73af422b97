"""Operations as Spark expressions: what each one adds up over a key's tiles, and its value from those sums.

The rows that are added up are tiles seen from a day: the measures of a tile, and `AGE` = day − e, at least 1. A
window of N days is AGE ≤ N. Aggregates are named by what they mean, so that features share them (the sum of enters
over 7 days serves a Sum and two Rates); names begin with "_", which no feature name does. Every aggregate is
associative and commutative over integers: the result cannot depend on the order of rows or on the number of
partitions. Measures are never negative (the raw contract), so a day is active exactly if one of its tiles is.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyspark.sql import Column
from pyspark.sql import functions as F

from features.spec import ActiveDays, DaysSinceLast, Measure, Rate, Sum

HAPPENED = "e"
"""Column of tiles: the day on which their rows happened."""
ARRIVED = "a"
"""Column of tiles: the day on which their rows arrived."""
CATEGORY = "category"
AGE = "_age"
WORD_BITS = 64
"""Days that one bit set holds."""

TileOp = Sum | Rate | ActiveDays | DaysSinceLast


def tile_measures(op: TileOp) -> tuple[Measure, ...]:
    """Measures that an operation reads from the tiles of its own entity."""
    return (op.numerator, op.denominator) if isinstance(op, Rate) else (op.measure,)


def tile_aggregates(op: TileOp) -> dict[str, Column]:
    """Name → aggregate over tiles seen from a day; equal names mean equal aggregates."""
    if isinstance(op, Sum | Rate):
        return {_sum_name(measure, op.days): window_sum(measure, op.days) for measure in tile_measures(op)}
    if isinstance(op, ActiveDays):
        return {
            _word_name(op, first): F.bit_or(
                F.when(_active(op) & F.col(AGE).between(first, first + WORD_BITS - 1), _bit(first)).otherwise(_zero())
            )
            for first in _words(op)
        }
    return {_since_name(op): F.min(F.when(_active(op), F.col(AGE)))}


def tile_value(op: TileOp) -> Column:
    """The feature from the aggregates of its key; a key without tiles has nulls there, which count as nothing."""
    if isinstance(op, Sum):
        return _aggregate(_sum_name(op.measure, op.days))
    if isinstance(op, Rate):
        numerator = _aggregate(_sum_name(op.numerator, op.days)) + F.lit(op.prior * op.strength)
        return numerator / (_aggregate(_sum_name(op.denominator, op.days)) + F.lit(float(op.strength)))
    if isinstance(op, ActiveDays):
        days = sum((F.bit_count(_aggregate(_word_name(op, first))) for first in _words(op)), start=F.lit(0))
        return days.cast("bigint")
    return F.coalesce(F.col(_since_name(op)), F.lit(op.days + 1)).cast("bigint")


def window_sum(measure: Measure, days: int) -> Column:
    """Sum of a measure over the tiles of the last `days` days, bigint."""
    return F.sum(F.when(F.col(AGE) <= days, F.col(measure.name)).otherwise(_zero()))


def in_window(measure: Measure, days: int) -> Column:
    """Whether a tile has the measure above 0 in the last `days` days."""
    return (F.col(AGE) <= days) & (F.col(measure.name) > 0)


def _active(op: ActiveDays | DaysSinceLast) -> Column:
    return in_window(op.measure, op.days)


def _zero() -> Column:
    return F.lit(0).cast("bigint")


def _aggregate(name: str) -> Column:
    return F.coalesce(F.col(name), _zero())


def _bit(first: int) -> Column:
    """Bit (age − first) of a word; Spark's Python API shifts by constants only."""
    return F.call_function("shiftleft", F.lit(1).cast("bigint"), F.col(AGE) - F.lit(first))


def _words(op: ActiveDays) -> Iterable[int]:
    """The first age of each word."""
    return range(1, op.days + 1, WORD_BITS)


def _sum_name(measure: Measure, days: int) -> str:
    return f"_sum_{measure.name}_{days}"


def _word_name(op: ActiveDays, first: int) -> str:
    return f"_active_{op.measure.name}_{op.days}_{first}"


def _since_name(op: DaysSinceLast) -> str:
    return f"_since_{op.measure.name}_{op.days}"
