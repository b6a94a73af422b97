"""The world as a sample set, opened once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.audit.sample_set import SampleSet, own_days
from tests.small_world import SAMPLE_DAYS, context_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="package")
def clean(spark: SparkSession, world: Path) -> SampleSet:
    """The samples of the world, in which nothing was planted."""
    return own_days(context_of(spark, world), SAMPLE_DAYS)
