"""Rows of raw days in time: how many, how many arrived too late, and in which ranges their keys lie.

rows of some days → one aggregate per day of arrival → faults stop the run, all days at once; else a `DayFound` each
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from features.errors import DataError, Problem
from pipeline.raw_repeats import lateness_days
from pipeline.sources.raw_layout import DAY_COLUMN, RawTable

PUNCTUALITY = ("on_time", "late")


@dataclass(frozen=True, kw_only=True)
class DayFound:
    """Rows of a day of arrival.

    Attributes:
        late: those that arrived too late to count anywhere.
        keys: of PUNCTUALITY → least and greatest first column of the key, of rows that arrived on the day they
            happened and of the others: where ids tell the time, these lie apart.
    """

    rows: int
    late: int
    keys: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True, kw_only=True)
class _Fault:
    """Something that stops the run when a row has it."""

    what: str
    column: str
    offends: Column
    remedy: str

    def counted(self, number: int, example: Column) -> list[Column]:
        """Aggregates: how many rows, and the first and last of them."""
        shown = F.when(self.offends, example)
        return [
            F.count(F.when(self.offends, 1)).alias(f"count{number}"),
            F.min(shown).alias(f"least{number}"),
            F.max(shown).alias(f"most{number}"),
        ]

    def problem(self, number: int, spec: RawTable, row: Row) -> Problem | None:
        """What the aggregates of a day say."""
        if not row[f"count{number}"]:
            return None
        return Problem(
            what=self.what,
            table=spec.name,
            day=row[DAY_COLUMN].isoformat(),
            column=self.column,
            count=row[f"count{number}"],
            examples=sorted({row[f"least{number}"], row[f"most{number}"]}),
            remedy=self.remedy,
        )


def times_by_day(rows: DataFrame, spec: RawTable, max_lateness_days: int) -> dict[dt.date, DayFound]:
    """What was found on each day that has a row.

    Raises:
        DataError: rows cannot be placed in time, or have no key; per day and fault the number and two examples.
    """
    lateness = lateness_days(spec) if spec.event_time else F.lit(0)
    faults = _faults(spec, lateness)
    example = F.to_json(F.struct(*dict.fromkeys((*spec.key, *spec.event_time))), {"ignoreNullFields": "false"})
    aggregates = [
        F.count(F.lit(1)).alias("total"),
        F.count(F.when(lateness > max_lateness_days, 1)).alias("late"),
        *(column for kind in PUNCTUALITY for column in _key_range(kind, lateness, F.col(spec.key[0]))),
        *(column for number, fault in enumerate(faults) for column in fault.counted(number, example)),
    ]
    days = sorted(rows.groupBy(DAY_COLUMN).agg(*aggregates).collect(), key=lambda row: row[DAY_COLUMN])
    told = (fault.problem(number, spec, row) for row in days for number, fault in enumerate(faults))
    if problems := [problem for problem in told if problem is not None]:
        raise DataError(problems)
    return {row[DAY_COLUMN]: _found(row) for row in days}


def _faults(spec: RawTable, lateness: Column) -> Sequence[_Fault]:
    nameless = F.greatest(*(F.col(name).isNull() for name in (*spec.key, *spec.event_time[:1], spec.key[0])))
    return (
        _Fault(
            what="rows happened after the end of the day they arrived on",
            column=spec.event_time[0] if spec.event_time else spec.key[0],
            offends=lateness < 0,
            remedy="Correct the clock or the time zone of the job that writes this table, and replace the day.",
        ),
        _Fault(
            what="null in the key or in the time of a row",
            column=", ".join((*spec.key, *spec.event_time[:1])),
            offends=nameless,
            remedy="Fill it or leave such rows out, and replace the day.",
        ),
    )


def _key_range(kind: str, lateness: Column, key: Column) -> list[Column]:
    is_kind = lateness <= 0 if kind == "on_time" else lateness > 0
    return [edge(F.when(is_kind, key)).alias(f"{edge.__name__}_key_{kind}") for edge in (F.min, F.max)]


def _found(row: Row) -> DayFound:
    keys = {kind: (row[f"min_key_{kind}"], row[f"max_key_{kind}"]) for kind in PUNCTUALITY}
    return DayFound(
        rows=int(row["total"]),
        late=int(row["late"]),
        keys={kind: ends for kind, ends in keys.items() if ends[0] is not None},
    )
