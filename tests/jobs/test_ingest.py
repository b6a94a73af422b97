"""Sources by name, what they ask for, and what an ingest tells of rows that it left out."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from features.errors import ConfError
from jobs.ingest import SIMULATED_TASKS, SOURCES, Ingested, IngestOptions, find_source
from pipeline.sources.report import IngestReport, SourceFacts

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DAY = datetime.date(2025, 3, 1)


def test_an_unknown_source_names_those_there_are() -> None:
    assert find_source("simulate") is SOURCES["simulate"]
    with pytest.raises(ConfError, match="no source 'kuairant'; sources are simulate, kuairand, kuailive, complete"):
        find_source("kuairant")


@pytest.mark.parametrize("source", ["kuairand", "kuailive"])
def test_a_dataset_without_a_folder_is_asked_for(spark: SparkSession, tmp_path: Path, source: str) -> None:
    with pytest.raises(ConfError, match=f"source {source} reads a folder: give --data FOLDER"):
        find_source(source)(spark, IngestOptions(), str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_what_an_ingest_left_out_is_said() -> None:
    facts = SourceFacts(source="s", zone="UTC", tasks=SIMULATED_TASKS, first_day=DAY, last_day=DAY)
    report = IngestReport(
        facts=facts,
        rows={"actions": {DAY: 2, DAY + datetime.timedelta(days=1): 3}},
        absent_columns={"log.tab": "scene is null"},
        dropped={"without a user": 1200, "never": 0},
        notes=("a note",),
    )
    told = Ingested.of(report)
    assert told.rows == {"actions": 5}
    assert told.remarks == (
        "log.tab is absent: scene is null",
        "1,200 input rows left out: without a user",
        "a note",
    )
