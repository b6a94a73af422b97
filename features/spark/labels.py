"""Labels: what a user did after an impression, by the rules of the catalog (`Label`), each task in its own space.

    1. actions without an impression_id → the user's latest impression of the room   one row per action and day D
    2. all actions ⋈ their impression, arrived by D + label_delay, in the window     one row per action that counts
    3. grouped by impression: which actions happened, summed amounts, cut off?       one row per impression with any
    4. impressions ⟕ 3, rules                                                        label_*, mask_*, flag_*

Amounts are integer thousandths (milliseconds of a watch), instants integer microseconds.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import LongType, StructField, StructType

from features.schema import Catalog, label_name, mask_name
from features.spark.asof_merge import AT, DAY, KIND, ORDER, QUERY, Chunk, asof_merge, last_visible, take_or_default
from features.spark.event_time import MICROS, business_day, day_number, micros
from features.spark.rooms import with_newest_room
from features.spec import Label

ENTER = "enter"
DURATION = "watch"
"""The action whose value is how long it lasted (seconds) and whose ts is its end; only it can be cut off."""

PER_UNIT = 1_000
HOUR_MICROS = 3_600 * MICROS
ROOM_END_SLACK = MICROS
"""A watch that ends later than this before its room's end was ended by the room."""

CONVERSION_WITHOUT_ENTER = "flag_conversion_without_enter"
REASONS = ("between", "cut_off", "missing")
"""Why a valued task is masked: its sum lies between the thresholds, its end was not the user's, it has no row."""
_SHOWN, _SAMPLE_DAY, _CUTOFF = "shown", "sample_day", "cutoff"
_END, _AMOUNT, _ARRIVED = "end", "amount", "arrived"


def labels(
    catalog: Catalog,
    impressions: DataFrame,
    actions: DataFrame,
    rooms: DataFrame,
    *,
    label_delay_days: int,
    attribution_hours: int,
    conversions_imply_enter: bool,
    days: Sequence[dt.date] | None = None,
    max_room_age_days: int | None = None,
) -> DataFrame:
    """Labels of every impression; many days in one pass, each day as if its data ended at D + label_delay_days.

    An action belongs to its impression when it happened in [ts, ts + attribution_hours) and arrived by
    D + label_delay_days. One without impression_id belongs to the user's latest impression of its room, by
    (ts, impression_id), that is not later than the action and arrived by the same day, if the window holds it.

    Rules of a task:
      space       `entered`: masked where the impression was not entered. A conversion (the action of a task in the
                  space `entered`) without a visible enter implies the enter, or is dropped.
      unvalued    positive when the action happened, else negative.
      valued      amounts of all its actions are summed: ≥ positive_from positive, ≤ negative_to negative, between
                  masked. Without an action the sum is 0, but an entered impression without a watch is masked: its
                  watch was still going on when the data ended, or was lost.
      cut off     a watch that ended at or after the room's `ended_at` − 1 s (newest rooms row by D + label_delay_days),
                  or began within the attribution window and ended at or after its end (only its part within is
                  summed), is positive when the sum reaches positive_from, else masked.

    Args:
        impressions: raw (dt = arrival): those to label, arrived by D + label_delay_days. Those of the following
            ⌈attribution_hours / 24⌉ days compete for actions without impression_id and should be there too.
        actions, rooms: raw, dt up to the last D + label_delay_days.
        conversions_imply_enter: see above.
        days: the days D to label; None labels every impression given.
        max_room_age_days: rows of a room that arrived longer before D + label_delay_days do not count; None for no
            bound.

    Returns:
        impression_id; int label_<task>, mask_<task> in catalog order (label 0 where masked); the `flag_columns`.
    """
    cutoff = F.date_add(business_day(), label_delay_days)
    shown = impressions.select(
        "impression_id",
        "user_id",
        "room_id",
        micros("ts").alias(_SHOWN),
        business_day().alias(_SAMPLE_DAY),
        cutoff.alias(_CUTOFF),
        F.col("dt").alias(_ARRIVED),
    )
    wanted = dict.fromkeys([ENTER, *(label.action for label in catalog.labels)])
    relevant = actions.where(F.col("action").isin(*wanted))
    window = attribution_hours * HOUR_MICROS
    attributed = _with_impression(relevant).unionByName(
        _without_impression(relevant, shown, label_delay_days=label_delay_days, window=window)
    )
    targets = shown if days is None else shown.where(F.col(_SAMPLE_DAY).isin(list(days)))
    done = _done(_in_window(attributed, targets, rooms, window, max_room_age_days), list(wanted))
    return (
        targets.select("impression_id")
        .join(done, on="impression_id", how="left")
        .select("impression_id", *_rules(catalog, conversions_imply_enter))
    )


def flag_columns(catalog: Catalog) -> tuple[str, ...]:
    """Int 0/1 columns of `labels` that the caller sums in the pass of its write: what was masked and why."""
    valued = [label for label in catalog.labels if label.positive_from is not None]
    return (CONVERSION_WITHOUT_ENTER, *(_flag(label, why) for label in valued for why in REASONS))


def _flag(label: Label, why: str) -> str:
    return f"flag_{label.name}_{why}"


# --- 1. Whose action it is -------------------------------------------------------------------------------


def _action_columns() -> list[Column]:
    amount = F.round(F.coalesce(F.col("value"), F.lit(0.0)) * PER_UNIT).cast("bigint")
    return [F.col("action"), micros("ts").alias(_END), amount.alias(_AMOUNT), F.col("dt").alias(_ARRIVED)]


def _with_impression(actions: DataFrame) -> DataFrame:
    """impression_id, action, end, amount, arrived."""
    return actions.where(F.col("impression_id").isNotNull()).select("impression_id", *_action_columns())


def _without_impression(actions: DataFrame, shown: DataFrame, *, label_delay_days: int, window: int) -> DataFrame:
    """The same columns for actions that name no impression; only those that find one.

    Which impressions have arrived depends on the day D whose samples are written, so an action asks once for every
    D from which the window reaches it, and only the answer that lies on D counts.
    """
    first_day = F.to_date(F.timestamp_micros(micros("ts") - F.lit(window)))
    sample_days = F.explode(F.sequence(first_day, business_day()))
    queries = (
        actions.where(F.col("impression_id").isNull())
        .select("user_id", "room_id", *_action_columns(), sample_days.alias(_SAMPLE_DAY))
        .where(F.col(_ARRIVED) <= F.date_add(_SAMPLE_DAY, label_delay_days))
        # The merge is strict, and an impression counts for an action of the same instant: one microsecond later.
        .withColumn(AT, F.col(_END) + 1)
        .withColumn(DAY, day_number(F.date_add(_SAMPLE_DAY, label_delay_days)))
    )
    events = shown.select(
        "user_id",
        "room_id",
        F.lit(0).alias(KIND),
        F.col(_SHOWN).alias(AT),
        day_number(_ARRIVED).alias(DAY),
        F.col("impression_id").alias(ORDER),
        F.col(_SHOWN).alias("owner_shown"),
        day_number(_SAMPLE_DAY).cast("bigint").alias("owner_day"),
    )
    owner = {"impression_id": ORDER, "owner_shown": "owner_shown", "owner_day": "owner_day"}
    passed = queries.select("action", _END, _AMOUNT, _ARRIVED, _SAMPLE_DAY)
    schema = StructType([*passed.schema.fields, *(StructField(name, LongType()) for name in owner)])
    kernel = LastImpressionKernel(passed=tuple(passed.columns), owner=owner)
    found = asof_merge(queries, events, keys=("user_id", "room_id"), kernel=kernel, schema=schema)
    is_of_day = F.col("owner_day") == day_number(_SAMPLE_DAY)
    is_in_window = F.col(_END) < F.col("owner_shown") + F.lit(window)
    return found.where(is_of_day & is_in_window).select("impression_id", "action", _END, _AMOUNT, _ARRIVED)


@dataclass(frozen=True, kw_only=True)
class LastImpressionKernel:
    """Passes the queries' columns through and adds those of the newest visible event, null without one."""

    passed: tuple[str, ...]
    owner: Mapping[str, str]

    def __call__(self, chunk: Chunk) -> Iterator[pa.RecordBatch]:
        asked, shown = chunk.part(QUERY), chunk.part(0)
        last = last_visible(asked.time, shown.time)
        columns = [asked.column(name) for name in self.passed]
        columns += [take_or_default(shown.column(name), last, None) for name in self.owner.values()]
        yield pa.RecordBatch.from_arrays(columns, names=[*self.passed, *self.owner])


# --- 2, 3. What was done after an impression ---------------------------------------------------------------


def _in_window(
    attributed: DataFrame, shown: DataFrame, rooms: DataFrame, window: int, max_room_age_days: int | None
) -> DataFrame:
    """impression_id, action, amount within the window, is_cut_off: the actions that count."""
    begin = F.col(_END) - F.col(_AMOUNT) * (MICROS // PER_UNIT)
    window_end = F.col(_SHOWN) + F.lit(window)
    is_duration = F.col("action") == DURATION
    reaches_in = (F.col(_END) < window_end) | (is_duration & (begin < window_end))
    joined = attributed.join(
        shown.select("impression_id", "room_id", _SHOWN, _CUTOFF), on="impression_id", how="inner"
    ).where((F.col(_ARRIVED) <= F.col(_CUTOFF)) & (F.col(_END) >= F.col(_SHOWN)) & reaches_in)
    with_end = with_newest_room(joined, rooms, cutoff=_CUTOFF, columns=["ended_at"], max_age_days=max_room_age_days)
    room_ended = F.coalesce(F.col(_END) >= micros("ended_at") - F.lit(ROOM_END_SLACK), F.lit(False))
    within = F.least(F.col(_AMOUNT), F.floor((window_end - begin) / (MICROS // PER_UNIT)))
    return with_end.select(
        "impression_id",
        "action",
        F.when(is_duration, within).otherwise(F.col(_AMOUNT)).alias(_AMOUNT),
        (is_duration & (room_ended | (F.col(_END) >= window_end))).alias("is_cut_off"),
    )


def _done(counted: DataFrame, actions: Sequence[str]) -> DataFrame:
    """impression_id and, per action, did_<action>, amount_<action>, cut_<action>."""
    aggregates = []
    for action in actions:
        is_action = F.col("action") == action
        aggregates += [
            F.max(is_action).alias(f"did_{action}"),
            F.sum(F.when(is_action, F.col(_AMOUNT))).alias(f"amount_{action}"),
            F.max(is_action & F.col("is_cut_off")).alias(f"cut_{action}"),
        ]
    return counted.groupBy("impression_id").agg(*aggregates)


# --- 4. Rules ------------------------------------------------------------------------------------------------


def _did(action: str) -> Column:
    return F.coalesce(F.col(f"did_{action}"), F.lit(False))


def _rules(catalog: Catalog, conversions_imply_enter: bool) -> Iterator[Column]:
    conversions = dict.fromkeys(label.action for label in catalog.labels if label.space == "entered")
    converted = F.greatest(*(_did(action) for action in conversions), F.lit(False), F.lit(False))
    entered = _did(ENTER) | converted if conversions_imply_enter else _did(ENTER)
    flags = {CONVERSION_WITHOUT_ENTER: converted & ~_did(ENTER)}
    for label in catalog.labels:
        is_judged = entered if label.space == "entered" else F.lit(True)
        if label.positive_from is None:
            happened = entered if label.action == ENTER else _did(label.action)
            is_positive = happened & entered if label.action in conversions else happened
            is_masked = ~is_judged
        else:
            is_positive, masked = _valued(label, label.positive_from, entered)
            flags |= {_flag(label, why): is_judged & applies for why, applies in masked.items()}
            is_masked = ~is_judged | F.greatest(*masked.values())
        yield (is_positive & ~is_masked).cast("int").alias(label_name(label.name))
        yield (~is_masked).cast("int").alias(mask_name(label.name))
    for name in flag_columns(catalog):
        yield flags[name].cast("int").alias(name)


def _valued(label: Label, positive_from: float, entered: Column) -> tuple[Column, dict[str, Column]]:
    """Whether the sum is positive; and, by reason, whether the task is masked. At most one reason applies."""
    amount = F.coalesce(F.col(f"amount_{label.action}"), F.lit(0))
    is_positive = amount >= round(positive_from * PER_UNIT)
    is_negative = ~is_positive if label.negative_to is None else amount <= round(label.negative_to * PER_UNIT)
    is_missing = entered & ~_did(label.action) if label.action == DURATION else F.lit(False)
    is_cut_off = F.coalesce(F.col(f"cut_{label.action}"), F.lit(False)) & ~is_positive
    is_between = ~is_positive & ~is_negative & ~is_cut_off & ~is_missing
    return is_positive, {"between": is_between, "cut_off": is_cut_off, "missing": is_missing}
