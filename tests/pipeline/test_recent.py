"""The stage of the last actions: a day carried from the eve, and the same day from raw alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.stages import recent
from pipeline.stages.names import RECENT_ACTIONS
from tests.small_world import SAMPLE_DAYS, context_of, digests, raw_copy

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

FIRST, SECOND = SAMPLE_DAYS


def test_a_carried_day_has_the_digest_of_the_day_made_from_raw(
    spark: SparkSession, world: Path, tmp_path: Path
) -> None:
    warehouse = raw_copy(world, tmp_path / "warehouse")
    told: list[str] = []
    for day in SAMPLE_DAYS:
        context = replace(context_of(spark, warehouse), report=told.append)
        assert list(recent.run(context, [day]).computed) == [day]
    assert told == ["1 days from raw", f"1 days from {FIRST}"]
    in_one_pass_from_raw = {name: value for name, value in digests(world).items() if name.startswith(RECENT_ACTIONS)}
    assert digests(warehouse) == in_one_pass_from_raw
    assert recent.carried_from(context, SECOND) == FIRST
    assert recent.carried_from(replace(context, force=True), SECOND) is None
