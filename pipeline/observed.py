"""What is seen of rows while they are written: one pass gives counts, the content digest, and histograms of every day.

Spark's Observation takes aggregates only, evaluates each of them for every row, and cannot group. Histograms of many
days and columns therefore go without one sum per bin:

    1. slot       per column: day × bins + bin, computed in a projection     one int per row and column
    2. observe    histogram_numeric(slot, days × bins) per column            [(slot, rows)], exact: see below
    3. drop       the slots again                                            the rows as they came

`histogram_numeric` merges the closest values when it holds more than it was allowed: with as many allowed as there can
be distinct slots, it only ever merges equal ones, which is counting. The place of merged values is their mean, which
may be off by a rounding: slots are doubles, and rounded when read.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql import functions as F

from features.spark.row_hash import HALVES
from pipeline.binning import FIRST_BIN, Binning, Judged, bin_count, bin_sql, sampled_bin_sql
from pipeline.check_plan import TablePlan
from pipeline.checks import DaySeen
from pipeline.footers import Span

HISTOGRAMS = "histograms"
KEY_ERROR = 0.02  # relative standard error of the number of distinct keys
_DAY_INDEX = "slot_day"
_CHOSEN = "slot_chosen"


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Rows of a day, and an order-free sum over the hashes of their keys (`features.spark.row_hash`).

    Equal for two sets of rows exactly when each key is there as often in one as in the other (but for a chance of
    2^-64): if the keys of one are unique, so are those of the other, and none is lost. Over all columns it is the
    content digest of a partition, and it follows what is added and taken out without reading the rest.
    """

    rows: int = 0
    high: int = 0
    low: int = 0

    @classmethod
    def of_digest(cls, digest: str) -> Self:
        """The sums that a digest was written from."""
        rows, high, low = (int(part, 16) for part in digest.split("-"))
        return cls(rows=rows, high=high, low=low)

    def digest(self) -> str:
        """As manifests have it."""
        return "-".join(f"{part & 0xFFFFFFFFFFFFFFFF:x}" for part in (self.rows, self.high, self.low))

    def __add__(self, other: Self) -> Self:
        return replace(self, rows=self.rows + other.rows, high=self.high + other.high, low=self.low + other.low)

    def __sub__(self, other: Self) -> Self:
        return replace(self, rows=self.rows - other.rows, high=self.high - other.high, low=self.low - other.low)


def keys_of(frame: DataFrame, day_column: str, keys: Sequence[str]) -> dict[datetime.date, Keys]:
    """The keys of every day of some rows; a Spark job."""
    key_hash = F.xxhash64(*[F.col(name) for name in keys])
    sums = [F.sum(half(key_hash)).alias(name) for name, half in HALVES.items()]
    found = frame.groupBy(F.col(day_column).alias("day")).agg(F.count(F.lit(1)).alias("rows"), *sums).collect()
    return {row["day"]: Keys(rows=row["rows"], high=row["high"], low=row["low"]) for row in found}


class Watch:
    """Watches the rows of some days while they are written.

    Args:
        days, day_column: the days of the rows, and the date column that tells them apart.
        counted: integer columns that are summed per day and not written.
        keys: columns whose hashes are summed per day, see `Keys`.
        hashed: columns that the content digest is over; all that are written, by default.
        plan: what the border checks need; without one only rows, digest and sums are taken.
    """

    def __init__(
        self,
        frame: DataFrame,
        days: Sequence[datetime.date],
        *,
        day_column: str,
        counted: Sequence[str] = (),
        keys: Sequence[str] = (),
        hashed: Sequence[str] = (),
        plan: TablePlan | None = None,
    ) -> None:
        self._days, self._counted, self._plan = tuple(days), tuple(counted), plan
        self._observation = Observation()
        self._observed: dict[str, Any] | None = None
        written = frame.drop(*counted)
        self.schema = tuple((field.name, field.dataType.simpleString()) for field in written.schema.fields)
        expressions = observed_columns(days, day_column, hashed or written.columns, counted)
        expressions += key_columns(days, day_column, keys) if keys else []
        watched, slots = frame, list[str]()
        if plan is not None:
            expressions += distinct_key_columns(days, day_column, plan.keys) if plan.keys else []
            expressions += histogram_columns(len(days), plan.binnings)
            watched = with_slots(frame, days, day_column, plan)
            slots = [slot_column(name) for name in plan.binnings]
        self.rows = watched.observe(self._observation, *expressions).drop(*counted, *slots)
        """The rows to write: those of the frame, without `counted`."""

    def _figures(self) -> dict[str, Any]:
        if self._observed is None:
            self._observed = self._observation.get
        return self._observed

    def row_count(self, index: int) -> int:
        """Rows of the day at this place among `days`; after the write, as all that follows."""
        return int(self._figures()[f"rows_{index}"] or 0)

    def digest(self, index: int) -> str:
        """Content digest of a day."""
        return content_digest(self._figures(), index)

    def keys(self, index: int) -> Keys:
        """The keys of a day, when they were asked for."""
        high, low = (int(self._figures()[f"key_{half}_{index}"] or 0) for half in ("high", "low"))
        return Keys(rows=self.row_count(index), high=high, low=low)

    def counts(self, index: int) -> dict[str, int]:
        """Sums of the counted columns of a day."""
        return {name: int(self._figures()[f"{name}_{index}"] or 0) for name in self._counted}

    def seen(self, spans: Mapping[datetime.date, Mapping[str, Span]]) -> dict[datetime.date, DaySeen]:
        """What the border checks judge; `spans` are those of the files written."""
        assert self._plan is not None, "watched without a plan"
        figures = self._figures()
        counted = histograms(figures, len(self._days), self._plan)
        return {
            day: DaySeen(
                rows=self.row_count(index),
                spans=spans.get(day, {}),
                histograms=counted[index],
                distinct_keys=int(figures[f"keys_{index}"]) if self._plan.keys else None,
            )
            for index, day in enumerate(self._days)
        }


def observed_columns(
    days: Sequence[datetime.date], day_column: str, columns: Sequence[str], counted: Sequence[str]
) -> list[Column]:
    """Aggregates of one pass, per day: rows, two order-free sums of row hashes, sums of counted columns."""
    row_hash = F.xxhash64(*[F.col(name) for name in columns])
    expressions = []
    for index, day in enumerate(days):
        here = F.col(day_column) == F.lit(day)
        expressions += [
            F.count(F.when(here, F.lit(1))).alias(f"rows_{index}"),
            *(F.sum(F.when(here, half(row_hash))).alias(f"{name}_{index}") for name, half in HALVES.items()),
            *(F.sum(F.when(here, F.col(name))).alias(f"{name}_{index}") for name in counted),
        ]
    return expressions


def content_digest(observed: Mapping[str, int | None], index: int) -> str:
    """Order-free digest of a day's rows."""
    rows, high, low = (int(observed[f"{name}_{index}"] or 0) for name in ("rows", "high", "low"))
    return Keys(rows=rows, high=high, low=low).digest()


def key_columns(days: Sequence[datetime.date], day_column: str, keys: Sequence[str]) -> list[Column]:
    """Per day: two order-free sums of key hashes."""
    key_hash = F.xxhash64(*[F.col(name) for name in keys])
    return [
        F.sum(F.when(F.col(day_column) == F.lit(day), half(key_hash))).alias(f"key_{name}_{index}")
        for index, day in enumerate(days)
        for name, half in HALVES.items()
    ]


def distinct_key_columns(days: Sequence[datetime.date], day_column: str, keys: Sequence[str]) -> list[Column]:
    """Per day: about how many distinct keys (HyperLogLog++, `KEY_ERROR`)."""
    key_hash = F.xxhash64(*[F.col(name) for name in keys])
    return [
        F.approx_count_distinct(F.when(F.col(day_column) == F.lit(day), key_hash), KEY_ERROR).alias(f"keys_{index}")
        for index, day in enumerate(days)
    ]


def slot_column(name: str) -> str:
    """The column that holds a row's slot; it is never written."""
    return f"slot_of_{name}"


def with_slots(frame: DataFrame, days: Sequence[datetime.date], day_column: str, plan: TablePlan) -> DataFrame:
    """The rows with a slot per binned column; null where the row is of no day asked for, or not sampled."""
    types = dict(frame.dtypes)
    places = ", ".join(f"DATE'{day}', {index}" for index, day in enumerate(days))
    chosen = f"pmod(xxhash64({', '.join(f'`{key}`' for key in plan.keys)}), {plan.one_in}) = 0" if plan.keys else "true"
    indexed = frame.selectExpr(
        "*", f"element_at(map({places}), `{day_column}`) AS {_DAY_INDEX}", f"{chosen} AS {_CHOSEN}"
    )
    slots = []
    for name, binning in plan.binnings.items():
        at = bin_sql(name, types[name], binning)
        if plan.one_in > 1:
            at = sampled_bin_sql(name, types[name], binning, _CHOSEN)
        slots.append(f"double({_DAY_INDEX} * {bin_count(binning)} + {at}) AS {slot_column(name)}")
    return indexed.selectExpr("*", *slots).drop(_DAY_INDEX, _CHOSEN)


def histogram_columns(days: int, binnings: Mapping[str, Binning]) -> list[Column]:
    """One aggregate for all histograms; as text, for an Observation hands arrays over piece by piece."""
    counted = ", ".join(
        f"histogram_numeric({slot_column(name)}, {days * bin_count(binning)}) AS `{name}`"
        for name, binning in binnings.items()
    )
    return [F.expr(f"to_json(struct({counted}))").alias(HISTOGRAMS)] if counted else []


def histograms(observed: Mapping[str, object], days: int, plan: TablePlan) -> list[dict[str, list[int]]]:
    """Per day: column → rows per bin; a sampled row stands for `plan.one_in` rows."""
    text = observed.get(HISTOGRAMS)
    slots = json.loads(str(text)) if text else {}
    found: list[dict[str, list[int]]] = [
        {name: [0] * bin_count(binning) for name, binning in plan.binnings.items()} for _ in range(days)
    ]
    for name, binning in plan.binnings.items():
        for slot in slots.get(name, ()):
            day, at = divmod(round(slot["x"]), bin_count(binning))
            is_sampled = at >= FIRST_BIN and not isinstance(binning, Judged)
            found[day][name][at] += int(slot["y"]) * (plan.one_in if is_sampled else 1)
    return found
