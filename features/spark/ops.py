"""Operations as Spark expressions over WINDOW STATE: what a key's row holds of each window, and the features in it.

State columns do not depend on the day that looks at them: days are absolute, so a key to which nothing happens and
from which nothing leaves keeps its row, however many days pass. Each column is one of

  Total         the sum of a measure over the window (or the number of its tiles)     bigint
  ActiveBits    the days of the window with the measure above 0, one bit each          bigint per 64 days
  LastActive    the newest of those days, numbered from 1970-01-01 = 1; 0: none        bigint
  PartnerCount  anchors of a user (users of an anchor) with the measure above 0        bigint

and is computed in two ways that must agree: from all tiles of the window (bulk), or from the state of the day before
and the tiles that enter and leave (carried). Names begin with "_", which no feature name does, and equal names mean
equal columns, so that features share them (the sum of enters over 7 days serves a Sum and two Rates). All of them are
integers: the result cannot depend on the order of rows or on the number of partitions. Measures are never negative
(the raw contract), so a day is active exactly if one of its tiles is.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from pyspark.sql import Column
from pyspark.sql import functions as F

from features.spec import ActiveDays, DaysSinceLast, Rate, Sum

HAPPENED = "e"
"""Column of tiles: the day on which their rows happened."""
ARRIVED = "a"
"""Column of tiles: the day on which their rows arrived."""
CATEGORY = "category"
DAY = "day"
E_NUMBER = "_e"
"""The day `HAPPENED` of a tile as an integer, days since 1970-01-01."""
EPOCH = dt.date(1970, 1, 1)
WORD_BITS = 64
"""Days that one bit set holds."""

TileOp = Sum | Rate | ActiveDays | DaysSinceLast


def epoch_days(day: dt.date) -> int:
    """Days since 1970-01-01."""
    return (day - EPOCH).days


@dataclass(frozen=True, kw_only=True)
class Total:
    """The sum over the window of a column of the tiles; without one, the number of tiles.

    Each kind of state column has the same methods:
      aggregate  from tiles, given which of them enter the window and which leave it (not for PartnerCount)
      merged     of the rows that a key has in a base and its deltas: what the key's state is
      after      the state of the next day, from the state as of `day` and what entered and left since
      change     what a delta's row holds, so that `merged` gives the new state
      may_be     whether tiles can have made a value of the state as of `day`
    """

    source: str | None
    days: int

    @property
    def name(self) -> str:
        return f"_tiles_{self.days}" if self.source is None else f"_sum_{self.source}_{self.days}"

    def aggregate(self, enters: Column, leaves: Column | None = None) -> Column:
        amount = F.lit(1).cast("bigint") if self.source is None else F.col(self.source)
        counted = F.when(enters, amount)
        return F.sum((counted if leaves is None else counted.when(leaves, -amount)).otherwise(zero()))

    def merged(self) -> Column:
        return F.sum(self.name)

    def after(self, old: Column, gained: Column, _day: dt.date) -> Column:
        return old + gained

    def change(self, new: Column, old: Column) -> Column:
        return new - old

    def may_be(self, value: Column, _day: dt.date) -> Column:
        return value >= 0


@dataclass(frozen=True, kw_only=True)
class ActiveBits:
    """Word `word` of the days on which the measure was above 0: day d is bit d mod (64 × words).

    As many bits as the window has days, at least, so that no two days of a window share one.
    """

    source: str
    days: int
    word: int

    @property
    def name(self) -> str:
        return f"_active_{self.source}_{self.days}_{self.word}"

    @property
    def period(self) -> int:
        """Days after which a bit is used again."""
        return WORD_BITS * len(_words(self.days))

    def aggregate(self, enters: Column, _leaves: Column | None = None) -> Column:
        place = F.pmod(F.col(E_NUMBER), F.lit(self.period)) - F.lit(self.word * WORD_BITS)
        # Spark's Python API shifts by constants only.
        bit = F.call_function("shiftleft", F.lit(1).cast("bigint"), place.cast("int"))
        here = enters & (F.col(self.source) > 0) & place.between(0, WORD_BITS - 1)
        return F.bit_or(F.when(here, bit).otherwise(zero()))

    def merged(self) -> Column:
        return F.bit_xor(self.name)

    def after(self, old: Column, gained: Column, day: dt.date) -> Column:
        place = (epoch_days(day) - self.days) % self.period - self.word * WORD_BITS
        kept = old.bitwiseAND(F.lit(~(1 << place))) if 0 <= place < WORD_BITS - 1 else old
        if place == WORD_BITS - 1:
            kept = old.bitwiseAND(F.lit((1 << place) - 1))  # bit 63 is the sign
        return kept.bitwiseOR(gained)

    def change(self, new: Column, old: Column) -> Column:
        return new.bitwiseXOR(old)

    def may_be(self, value: Column, day: dt.date) -> Column:
        inside = {(epoch_days(day) - back) % self.period - self.word * WORD_BITS for back in range(1, self.days + 1)}
        outside = sum(1 << place for place in range(WORD_BITS) if place not in inside)
        signed = outside - (1 << WORD_BITS) if outside >> (WORD_BITS - 1) else outside
        return value.bitwiseAND(F.lit(signed)) == 0


@dataclass(frozen=True, kw_only=True)
class LastActive:
    """The newest day of the window with the measure above 0, as days since 1970-01-01 plus 1; 0 when there is none."""

    source: str
    days: int

    @property
    def name(self) -> str:
        return f"_last_{self.source}_{self.days}"

    def aggregate(self, enters: Column, _leaves: Column | None = None) -> Column:
        number = (F.col(E_NUMBER) + 1).cast("bigint")
        return F.max(F.when(enters & (F.col(self.source) > 0), number).otherwise(zero()))

    def merged(self) -> Column:
        return F.sum(self.name)

    def after(self, old: Column, gained: Column, day: dt.date) -> Column:
        oldest_left = epoch_days(day) - self.days + 1  # the number of the day that leaves
        return F.greatest(F.when(old > oldest_left, old).otherwise(zero()), gained)

    def change(self, new: Column, old: Column) -> Column:
        return new - old

    def may_be(self, value: Column, day: dt.date) -> Column:
        newest = epoch_days(day)
        return (value == 0) | value.between(newest - self.days + 1, newest)


@dataclass(frozen=True, kw_only=True)
class PartnerCount:
    """How many partners have the measure above 0; counted from pairs, not from the tiles of the key itself."""

    source: str
    days: int

    @property
    def name(self) -> str:
        return f"_partners_{self.source}_{self.days}"

    def merged(self) -> Column:
        return F.sum(self.name)

    def after(self, old: Column, gained: Column, _day: dt.date) -> Column:
        return old + gained

    def change(self, new: Column, old: Column) -> Column:
        return new - old

    def may_be(self, value: Column, _day: dt.date) -> Column:
        return value >= 0

    @property
    def pair(self) -> Total:
        """The column of the pair's state that is above 0 while the partner counts."""
        return Total(source=self.source, days=self.days)


TileColumn = Total | ActiveBits | LastActive
StateColumn = TileColumn | PartnerCount


def tile_columns_of(op: TileOp) -> tuple[TileColumn, ...]:
    """What the state of a key holds for an operation on the tiles of its own entity."""
    if isinstance(op, Sum):
        return (Total(source=op.measure.name, days=op.days),)
    if isinstance(op, Rate):
        return tuple(Total(source=measure.name, days=op.days) for measure in (op.numerator, op.denominator))
    if isinstance(op, ActiveDays):
        return tuple(ActiveBits(source=op.measure.name, days=op.days, word=word) for word in _words(op.days))
    return (LastActive(source=op.measure.name, days=op.days),)


def tile_value(op: TileOp) -> Column:
    """The feature as of the row's `DAY`, from the state of its key; null state counts as nothing."""
    columns = [F.coalesce(F.col(column.name), zero()) for column in tile_columns_of(op)]
    if isinstance(op, Sum):
        return columns[0]
    if isinstance(op, Rate):
        return (columns[0] + F.lit(op.prior * op.strength)) / (columns[1] + F.lit(float(op.strength)))
    if isinstance(op, ActiveDays):
        return sum((F.bit_count(word) for word in columns), start=F.lit(0)).cast("bigint")
    since = F.unix_date(DAY) + 1 - columns[0]
    return F.when(columns[0] > 0, since).otherwise(F.lit(op.days + 1)).cast("bigint")


def zero() -> Column:
    """0 as bigint."""
    return F.lit(0).cast("bigint")


def _words(days: int) -> range:
    return range((days + WORD_BITS - 1) // WORD_BITS)
