"""The serving tables of a computed world: one row per entity, laid out for a store."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from features.spec import Entity
from pipeline.context import Context
from pipeline.manifests import day_partition
from pipeline.plan import stage
from pipeline.stages.names import serving_table
from tests.small_world import SAMPLE_DAYS, context_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

DAY = SAMPLE_DAYS[1]
BUCKETS = 3


@pytest.fixture(scope="module")
def served(spark: SparkSession, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Context:
    """The world with serving tables as of DAY."""
    copy = Path(shutil.copytree(world, tmp_path_factory.mktemp("served") / "copy"))
    context = context_of(spark, copy, f"serving.buckets={BUCKETS}")
    run = stage("serving").run
    assert run is not None
    assert list(run(context, [DAY]).computed) == [DAY]
    return context


def files_of(context: Context, entity: Entity) -> list[str]:
    manifest = context.warehouse.manifest(serving_table(entity), day_partition(DAY))
    assert manifest is not None
    return context.warehouse.file_urls(manifest)


@pytest.mark.parametrize("entity", [Entity.USER, Entity.USER_ANCHOR])
def test_a_bucket_is_one_file_sorted_by_key_and_a_key_is_in_one_row(
    spark: SparkSession, served: Context, entity: Entity
) -> None:
    seen = []
    buckets = set()
    for url in files_of(served, entity):
        keys = pq.ParquetFile(url).read(list(entity.keys)).to_pylist()
        rows = [tuple(key.values()) for key in keys]
        assert rows == sorted(rows)
        seen += rows
        hashes = spark.read.parquet(url).selectExpr(f"pmod(hash({', '.join(entity.keys)}), {BUCKETS}) AS b").distinct()
        (bucket,) = [row.b for row in hashes.collect()]
        assert f"part-{bucket:05d}-" in url
        buckets.add(bucket)
    assert len(buckets) == len(files_of(served, entity)) <= BUCKETS
    assert len(set(seen)) == len(seen) > 0


def test_what_is_up_to_date_is_left_alone(served: Context) -> None:
    run = stage("serving").run
    assert run is not None
    assert list(run(served, [DAY]).skipped) == [DAY]
