"""The arms of Spark: the bulk recompute of one day's features, straight from 30 days of raw Parquet.

Nothing is stored between raw rows and features, and rows are summed into windows without tiles where no category has
to be looked up: no arm pays for what only a later day would read.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from features.schema import Catalog
from features.spark.event_time import business_day
from features.spark.on_air import on_air_tiles, session_days
from features.spark.ops import CATEGORY
from features.spark.profiles import profiles, reads_on_air, tiles_read
from features.spark.sequences import sequences
from features.spark.tiles import row_tiles, with_category
from features.spark.window_state import on_air_ops
from features.spec import DistinctPartners, Entity, TopCategory

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ONE_DAY = dt.timedelta(days=1)


def raw(spark: SparkSession, warehouse: Path, table: str, first: dt.date, last: dt.date) -> DataFrame:
    """The rows of a raw table that arrived from first to last."""
    folder = warehouse / "raw" / table
    days = [first + ONE_DAY * offset for offset in range((last - first).days + 1)]
    urls = [str(folder / f"dt={day.isoformat()}") for day in days if (folder / f"dt={day.isoformat()}").exists()]
    return spark.read.option("basePath", str(folder)).parquet(*urls).withColumn("dt", F.to_date("dt"))


def first_day(warehouse: Path) -> dt.date:
    """Where the raw history begins."""
    return min(dt.date.fromisoformat(folder.name[3:]) for folder in (warehouse / "raw" / "rooms").iterdir())


def full(
    spark: SparkSession, family: str, catalog: Catalog, warehouse: Path, day: dt.date, event_lag_s: int
) -> DataFrame:
    """One family from raw rows alone: an entity's profiles as of `day`, or sequences of the day's impressions."""
    start, before = first_day(warehouse), day - ONE_DAY
    if family == "sequences":
        reach = max(sequence.max_age_days for sequence in catalog.sequences)
        actions = raw(spark, warehouse, "actions", day - ONE_DAY * reach, day)
        shown = raw(spark, warehouse, "impressions", day, day).where(business_day() == F.lit(day))
        return sequences(catalog, shown, actions, raw(spark, warehouse, "rooms", start, day), event_lag_s)
    entity = Entity(family)
    longest = max(feature.days or 0 for feature in catalog.windows(entity))
    rooms = raw(spark, warehouse, "rooms", start, before)
    shown, done = (raw(spark, warehouse, name, day - ONE_DAY * longest, before) for name in ("impressions", "actions"))
    asked = [f.op.measure.action for f in catalog.windows(entity) if isinstance(f.op, DistinctPartners | TopCategory)]
    read = {}
    for part in tiles_read(entity, catalog):
        rows = row_tiles(shown, done)
        if part is not entity and None not in asked:  # only some actions have a say in what the pairs are asked
            rows = row_tiles(shown.where(F.lit(False)), done.where(F.col("action").isin(asked)))
        read[part] = with_category(rows, rooms) if CATEGORY in part.keys else rows
    on_air = None
    if reads_on_air(entity, catalog):
        ops = on_air_ops(catalog)
        arrivals = [day - ONE_DAY * back for back in range(1, longest + session_days(ops) + 1)]
        on_air = on_air_tiles(rooms, ops, days=arrivals, max_room_age_days=None)
    return profiles(entity, catalog=catalog, tiles=read, on_air=on_air, days=[day])
