"""raw logs → tiles, one partition per arrival day."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from pyspark.sql import functions as F

from features.spark.ops import ARRIVED, HAPPENED
from features.spark.tiles import tiles
from features.spec import TILED_ENTITIES, Entity
from pipeline.context import Context, StageResult, summarise
from pipeline.stages.names import tile_table

LATE_IMPRESSIONS = "impressions_too_late_for_samples"


def inputs_of(context: Context, day: datetime.date) -> dict[str, str]:
    """Raw partitions that the tiles of an arrival day depend on."""
    first_room_day = context.first_raw_day("rooms") or day
    return {
        **context.raw_inputs("impressions", day, day),
        **context.raw_inputs("actions", day, day),
        **context.raw_inputs("rooms", first_room_day, day),
    }


def run(context: Context, days: Sequence[datetime.date]) -> StageResult:
    """Tiles of arrival days; days before the history of the impressions begins have none."""
    known = context.raw.listing.since_history("impressions", days)
    inputs = {day: inputs_of(context, day) for day in known}
    manifests = []
    computed: set[datetime.date] = set()
    for entity in TILED_ENTITIES:
        todo = context.stale_days(tile_table(entity), inputs)
        if not todo:
            continue
        context.report(f"{entity}: {len(todo)} days")
        frame = tiles(
            entity,
            impressions=context.raw.read("impressions", todo),
            actions=context.raw.read("actions", todo),
            rooms=context.raw.read("rooms", context.raw_days("rooms", _first(context, todo), max(todo))),
        )
        counted: list[str] = []
        counts: dict[datetime.date, dict[str, int]] = {}
        if entity is Entity.USER:
            counts = _raw_counts(context, todo)
            # What arrives after its day's samples were written is in no sample; it is counted here.
            too_late = F.date_diff(ARRIVED, HAPPENED) > context.conf.time.label_delay_days
            frame = frame.withColumn(LATE_IMPRESSIONS, F.when(too_late, F.col("impressions")).otherwise(0))
            counted = [LATE_IMPRESSIONS]
        written = context.warehouse.write_days(
            frame,
            tile_table(entity),
            todo,
            context.provenance(inputs),
            day_column=ARRIVED,
            counted=counted,
            counts=counts,
        )
        manifests += list(written.values())
        computed |= set(todo)
    return summarise(manifests, sorted(computed), [day for day in known if day not in computed])


def _raw_counts(context: Context, days: Sequence[datetime.date]) -> dict[datetime.date, dict[str, int]]:
    """Rows of each arrival day that count nowhere, and whether the day is there and empty."""
    counts: dict[datetime.date, dict[str, int]] = {day: {} for day in days}
    for table in ("impressions", "actions"):
        found = context.raw.counts(table, days)
        for day in days:
            counts[day][f"{table}_quarantined"] = found.quarantined.get(day, 0)
            counts[day][f"{table}_repeated"] = found.repeated.get(day, 0)
            counts[day][f"{table}_empty_days"] = int(day in found.empty_days)
            counts[day][f"{table}_unread_columns"] = len(context.raw.columns.unread(table, day, context.catalog))
    return counts


def _first(context: Context, days: Sequence[datetime.date]) -> datetime.date:
    return context.first_raw_day("rooms") or min(days)
