"""Does a warehouse keep the raw contract? Every violation at once, with counts and up to five examples.

Steps per table:
  1. days      late, missing, empty: from the listing
  2. columns   absent, of another type, files of a day that disagree: from the footers of every file
  3. rows      one pass: each rule's number of offenders per day and up to five of them, in bounded memory
  4. repeats   one pass over key, dt and payload hash
and between tables: actions whose impression is nowhere. Rules need only the columns they name, so a table with one bad
column is still checked for all else.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field
from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DateType, StructField, StructType

from features.errors import MAX_EXAMPLES, ConfError, Problem
from pipeline.raw_input import SESSION_ZONE_KEY, read_files
from pipeline.raw_listing import DayState, RawListing, day_problem, list_raw
from pipeline.raw_repeats import COPIES, DIFFER, repeat_key, repeats
from pipeline.raw_rules import Severity, rules_of
from pipeline.raw_shapes import DayShape, read_shapes, shape_problems
from pipeline.sources.raw_layout import DAY_COLUMN, RAW_TABLES, READY_MARKER, RawTable, days_between

RULE, SHOWN = "_rule", "_shown"


class RawCheckConf(BaseModel):
    """Limits of the contract; the same meaning as for reading (`RawInput`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    zone: str = "Asia/Shanghai"
    max_lateness_days: int = Field(default=3, ge=0)
    max_repeat_share: float = Field(default=0.01, ge=0, le=1)
    marker: str = READY_MARKER


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One broken rule in one place; an error stops the stages, a warning they cope with and count."""

    problem: Problem
    severity: Severity


def check_raw(
    spark: SparkSession, warehouse: str, first_day: dt.date, last_day: dt.date, conf: RawCheckConf
) -> list[Violation]:
    """All violations in the raw days [first_day, last_day], by table; empty for a warehouse that keeps the contract.

    Raises:
        ConfError: the session's time zone is not conf's.
        DataError: a folder is named like a day and is none.
    """
    if spark.conf.get(SESSION_ZONE_KEY) != conf.zone:
        raise ConfError(f"{SESSION_ZONE_KEY} is {spark.conf.get(SESSION_ZONE_KEY)}, time.zone is {conf.zone}")
    reach = first_day - dt.timedelta(days=conf.max_lateness_days)
    listing = list_raw(spark, warehouse, first_day=reach, last_day=last_day, marker=conf.marker)
    days = days_between(first_day, last_day)
    checks = [_TableCheck(spark, listing, table, days, conf) for table in RAW_TABLES.values()]
    found = [violation for check in checks for violation in check.run()]
    return [*found, *_unknown_impressions(spark, listing, days_between(reach, last_day), days)]


def has_errors(violations: Iterable[Violation]) -> bool:
    return any(violation.severity == "error" for violation in violations)


class _TableCheck:
    """All rules of one table over some days."""

    def __init__(
        self, spark: SparkSession, listing: RawListing, table: RawTable, days: Sequence[dt.date], conf: RawCheckConf
    ) -> None:
        self._spark, self._listing, self._table, self._days, self._conf = spark, listing, table, days, conf
        ready = [day for day in days if listing.state(table.name, day) is DayState.READY]
        self._shapes = read_shapes(spark, listing, table.name, ready, every_file=True)

    def run(self) -> list[Violation]:
        found = [*self._check_days(), *self._check_columns()]
        schema = sound_columns(self._table, self._shapes)
        if self._shapes and len(schema.fields) > 1:
            rows = read_files(self._spark, self._listing, self._table.name, self._shapes, schema)
            found += [*self._check_rows(rows), *self._check_repeats(rows)]
        return found

    def _check_days(self) -> list[Violation]:
        found = []
        for day in self._days:
            state = self._listing.state(self._table.name, day)
            if state is DayState.READY and self._shapes[day].rows == 0:
                state = DayState.EMPTY
            if state is not DayState.READY:
                severity: Severity = "warning" if state is DayState.EMPTY else "error"
                found.append(Violation(problem=day_problem(self._table.name, day, state), severity=severity))
        return found

    def _check_columns(self) -> list[Violation]:
        problems = [
            problem for day, shape in self._shapes.items() for problem in shape_problems(self._table.name, day, shape)
        ]
        problems += [
            Problem(
                what="files of one day have different columns",
                table=self._table.name,
                day=day.isoformat(),
                count=len(shape.odd_files),
                examples=shape.odd_files,
                remedy="Write each day by one job with one schema.",
            )
            for day, shape in self._shapes.items()
            if shape.odd_files
        ]
        return [Violation(problem=problem, severity="error") for problem in problems]

    def _check_rows(self, rows: DataFrame) -> list[Violation]:
        """Each offending row is repeated per rule it breaks; sound rows go no further than the first filter."""
        rules = rules_of(self._table, max_lateness_days=self._conf.max_lateness_days)
        rules = [rule for rule in rules if set(rule.needs) <= set(rows.columns)]
        if not rules:
            return []
        shown = F.to_json(F.struct(*(name for name in rows.columns if name not in (DAY_COLUMN, "content"))))
        broken = F.array(*(F.when(rule.offends(), number) for number, rule in enumerate(rules)))
        offenders = (
            rows.withColumn(RULE, F.explode(broken))
            .where(F.col(RULE).isNotNull())
            .select(DAY_COLUMN, RULE, shown.alias(SHOWN))
        )
        counted = offenders.groupBy(DAY_COLUMN, RULE).agg(F.count(F.lit(1)).alias("count"), *five_of(F.col(SHOWN)))
        return [
            Violation(
                problem=Problem(
                    what=rules[row[RULE]].what,
                    table=self._table.name,
                    day=row[DAY_COLUMN].isoformat(),
                    column=rules[row[RULE]].column,
                    count=row["count"],
                    examples=examples_of(row),
                    remedy=rules[row[RULE]].remedy,
                ),
                severity=rules[row[RULE]].severity,
            )
            for row in sorted(counted.collect(), key=lambda row: (row[DAY_COLUMN], row[RULE]))
        ]

    def _check_repeats(self, rows: DataFrame) -> list[Violation]:
        key = repeat_key(self._table)
        if self._table.kind == "updates" or not set(key) <= set(rows.columns):
            return []
        payload = [name for name in rows.columns if name in self._table.column_names()]
        named = rows.where(~F.greatest(*(F.col(name).isNull() for name in (*key, DAY_COLUMN))))
        found = repeats(named, self._table, payload)
        shown = F.to_json(F.struct(*key))
        extra = F.sum(F.col(COPIES) - 1).alias("extra")
        total = sum(shape.rows for shape in self._shapes.values())
        counted = found.groupBy(DIFFER).agg(extra, *five_of(shown)).collect()
        repeated = sum(row["extra"] for row in counted)
        return [
            Violation(
                problem=Problem(
                    what=f"repeated {', '.join(self._table.key)}, payload {'differs' if row[DIFFER] else 'equal'}",
                    table=self._table.name,
                    column=", ".join(self._table.key),
                    count=row["extra"],
                    examples=examples_of(row),
                    remedy="Give each event an id of its own." if row[DIFFER] else "Find what delivers twice.",
                ),
                severity=self._repeat_severity(bool(row[DIFFER]), repeated, total),
            )
            for row in sorted(counted, key=lambda row: bool(row[DIFFER]))
        ]

    def _repeat_severity(self, differs: bool, repeated: int, total: int) -> Severity:
        above = repeated > self._conf.max_repeat_share * total
        return "error" if differs or above or self._table.kind == "snapshot" else "warning"


def sound_columns(table: RawTable, shapes: dict[dt.date, DayShape]) -> StructType:
    """Contract columns that every file has with the right type, then `dt`."""
    bad = {problem.column for day, shape in shapes.items() for problem in shape_problems(table.name, day, shape)}
    odd = any(shape.odd_files for shape in shapes.values())
    fields = [] if odd else [field for field in table.columns.fields if field.name not in bad]
    nullable = [StructField(field.name, field.dataType) for field in fields]
    return StructType([*nullable, StructField(DAY_COLUMN, DateType())])


def five_of(shown: Column) -> list[Column]:
    """Aggregates for up to five of a group's rows in bounded memory: the least of each of five classes of a hash."""
    kind = F.pmod(F.xxhash64(shown), F.lit(MAX_EXAMPLES))
    return [F.min(F.when(kind == number, shown)).alias(f"example{number}") for number in range(MAX_EXAMPLES)]


def examples_of(row: Row) -> list[str]:
    """What `five_of` found."""
    return [row[f"example{n}"] for n in range(MAX_EXAMPLES) if row[f"example{n}"] is not None]


def _unknown_impressions(
    spark: SparkSession, listing: RawListing, impression_days: Iterable[dt.date], action_days: Iterable[dt.date]
) -> list[Violation]:
    """Actions that name an impression which none of the days holds: they can be no label. Informative."""
    shown = _ready_rows(spark, listing, "impressions", impression_days)
    acted = _ready_rows(spark, listing, "actions", action_days)
    if not {"impression_id"} <= set(shown.columns) or not {"impression_id", "action_id"} <= set(acted.columns):
        return []
    strangers = acted.where(F.col("impression_id").isNotNull()).join(
        shown.select("impression_id"), "impression_id", "left_anti"
    )
    example = F.to_json(F.struct("action_id", "impression_id"))
    counted = strangers.groupBy(DAY_COLUMN).agg(F.count(F.lit(1)).alias("count"), *five_of(example))
    return [
        Violation(
            problem=Problem(
                what="action of an unknown impression",
                table="actions",
                day=row[DAY_COLUMN].isoformat(),
                column="impression_id",
                count=row["count"],
                examples=examples_of(row),
                remedy="It counts in profiles, and is no label; deliver its impression, or null.",
            ),
            severity="warning",
        )
        for row in sorted(counted.collect(), key=lambda row: row[DAY_COLUMN])
    ]


def _ready_rows(spark: SparkSession, listing: RawListing, table: str, days: Iterable[dt.date]) -> DataFrame:
    ready = [day for day in days if listing.state(table, day) is DayState.READY]
    shapes = read_shapes(spark, listing, table, ready)
    return read_files(spark, listing, table, shapes, sound_columns(RAW_TABLES[table], shapes))
