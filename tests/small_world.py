"""A small unruly platform (late rows, quiet days, equal times), and what the pipeline makes of it.

Tests that compare two runs compare them on this: local against a cluster, one number of partitions against another,
an interrupted backfill against one that was not.
"""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.settings import Settings
from pipeline.config import day_range
from pipeline.context import Context
from pipeline.run import StageRun, compute_samples, open_context
from tests.features.random_logs import LogShape, random_logs
from tests.pipeline.raw_rows import ARROW_TYPES, ZONE
from tests.warehouse_files import manifests

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FIRST_DAY = datetime.date(2025, 3, 1)
SHAPE = LogShape(
    first_day=FIRST_DAY,
    days=6,
    users=60,
    anchors=15,
    rooms=50,
    impressions=1500,
    quiet_share=0,
    sampled_negatives=False,
)
SAMPLE_DAYS = (datetime.date(2025, 3, 4), datetime.date(2025, 3, 5))
RAW_DAYS = day_range(datetime.date(2025, 2, 28), datetime.date(2025, 3, 10))
TILE_DAYS = day_range(RAW_DAYS[0], datetime.date(2025, 3, 4))


def write_raw(warehouse: Path, seed: int = 11, shape: LogShape = SHAPE) -> None:
    """Every raw table with a marked folder for every day, also for those on which nothing arrived."""
    for table, frame in random_logs(seed, shape).items():
        times = frame.select_dtypes("datetime").columns
        zoned = frame.assign(**{name: frame[name].dt.tz_localize(ZONE) for name in times})
        for day in RAW_DAYS:
            folder = raw_folder(warehouse, table, day)
            folder.mkdir(parents=True)
            rows = zoned[zoned["dt"] == day]
            if len(rows):
                schema = pa.schema(list(ARROW_TYPES[table].items()))
                pq.write_table(
                    pa.Table.from_pandas(rows, schema=schema, preserve_index=False), folder / "part-0.parquet"
                )
            (folder / "_SUCCESS").touch()


def raw_folder(warehouse: Path, table: str, day: datetime.date) -> Path:
    """Where a raw day lies."""
    return warehouse / "raw" / table / f"dt={day.isoformat()}"


def raw_copy(world: Path, target: Path) -> Path:
    """The raw tables alone, in a warehouse of their own; modification marks are kept."""
    shutil.copytree(world / "raw", target / "raw")
    return target


def context_of(spark: SparkSession, warehouse: Path, *overrides: str, force: bool = False) -> Context:
    """A context as a command opens it, in a session that is there already."""
    return open_context(spark, str(warehouse), Settings.load("local", overrides).pipeline, force=force)


def compute(context: Context, *days: datetime.date) -> list[StageRun]:
    """Tiles, profiles and samples of some days, SAMPLE_DAYS by default."""
    return compute_samples(context, days or SAMPLE_DAYS, lambda _: None)


def digests(warehouse: Path) -> dict[str, str]:
    """`table/partition` → content digest of everything that was committed."""
    return {name: manifest.digest for name, manifest in manifests(warehouse).items()}
