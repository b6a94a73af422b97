"""What no row of a raw table may be: one declaration per rule, tested all at once by `pipeline/check_raw.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pyspark.sql import Column
from pyspark.sql import functions as F

from pipeline.raw_repeats import lateness_days
from pipeline.sources.raw_layout import ACTIONS, RawTable

Severity = Literal["error", "warning"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Something that no row of a table may be.

    Attributes:
        column: where it shows; the first of `needs`.
        needs: columns without which the rule cannot be tested.
        offends: makes the expression over those columns (a Spark session must run); null counts as false.
    """

    what: str
    remedy: str
    needs: tuple[str, ...]
    offends: Callable[[], Column]
    severity: Severity = "error"

    @property
    def column(self) -> str:
        return self.needs[0]


def rules_of(table: RawTable, *, max_lateness_days: int) -> list[Rule]:
    """Every rule that a row of `table` has to keep."""
    return [
        *_null_rules(table),
        *_time_rules(table, max_lateness_days),
        *_sign_rules(table),
        *_OWN_RULES.get(table.name, ()),
    ]


def _null_rules(table: RawTable) -> list[Rule]:
    return [
        Rule(
            what="null where the contract allows none",
            remedy="Fill it, or leave the row out.",
            needs=(name,),
            offends=_is_null(name),
        )
        for name in table.required()
    ]


def _is_null(name: str) -> Callable[[], Column]:
    return lambda: F.col(name).isNull()


def _is_negative(name: str) -> Callable[[], Column]:
    """NaN counts: Spark orders it above every number, so a comparison alone lets it pass."""
    return lambda: (F.col(name) < 0) | F.isnan(F.col(name).cast("double"))


def _time_rules(table: RawTable, max_lateness_days: int) -> list[Rule]:
    if not table.event_time:
        return []
    return [
        Rule(
            what="rows happened after the end of the day they arrived on",
            remedy="Correct the clock or the time zone of the job that writes this table.",
            needs=table.event_time,
            offends=lambda: lateness_days(table) < 0,
        ),
        Rule(
            what=f"rows arrived more than {max_lateness_days} days late and will be quarantined",
            remedy="Expected for few rows; else deliver faster or raise time.max_lateness_days.",
            needs=table.event_time,
            offends=lambda: lateness_days(table) > max_lateness_days,
            severity="warning",
        ),
    ]


_NEVER_NEGATIVE = ("position", "value", "age", "level", "viewers", "entries", "comments", "gift_coins")


def _sign_rules(table: RawTable) -> list[Rule]:
    return [
        Rule(
            what="negative or not a number",
            remedy="Correct it in the job that writes this table.",
            needs=(name,),
            offends=_is_negative(name),
        )
        for name in table.column_names()
        if name in _NEVER_NEGATIVE
    ]


_OWN_RULES: dict[str, tuple[Rule, ...]] = {
    "actions": (
        Rule(
            what="unknown action",
            remedy=f"Name actions {', '.join(ACTIONS)}; leave others out.",
            needs=("action",),
            offends=lambda: ~F.col("action").isin(*ACTIONS),
        ),
    ),
    "rooms": (
        Rule(
            what="room ended before it started",
            remedy="Correct the times in the job that writes this table.",
            needs=("ended_at", "started_at"),
            offends=lambda: F.col("ended_at") < F.col("started_at"),
        ),
    ),
}
