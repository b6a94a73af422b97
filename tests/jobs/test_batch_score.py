"""The batch scorer on a real Spark: the scores of the scorer alone, whatever the partitions."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.errors import PythonException

from features.errors import DataError
from jobs.batch_score import score_frame
from tests.training.raw_trainset import GATE_DAY, RawTrainset, publish, write_raw_trainset
from training.scorer import Scorer

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> RawTrainset:
    evicted = {"user": [10**14 + 2, 10**14 + 4], "anchor": [3]}
    made = write_raw_trainset(tmp_path_factory.mktemp("trainset"), gate_rows=300, evicted=evicted)
    pq.write_table(made.samples, Path(made.root) / "rows.parquet")
    return made


@pytest.fixture(scope="module")
def folder(raw: RawTrainset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(raw, tmp_path_factory.mktemp("model") / "published", "esmm")


@pytest.mark.parametrize("day", [None, GATE_DAY])
def test_scores_are_those_of_the_scorer(
    spark: SparkSession, raw: RawTrainset, folder: Path, day: datetime.date | None
) -> None:
    rows = spark.read.parquet(f"{raw.root}/rows.parquet").repartition(3, "anchor_id")
    given = rows if day is None else rows.drop("dt")
    found = score_frame(given, str(folder), day=day).toPandas().sort_values("impression_id")
    scorer = Scorer.open(str(folder))
    wanted = scorer.score(raw.samples)
    assert found["impression_id"].tolist() == raw.samples["impression_id"].to_pylist()
    assert list(found.columns) == ["impression_id", *scorer.tasks]
    for task in scorer.tasks:
        np.testing.assert_allclose(found[task], wanted[task], rtol=0, atol=1e-5)
        assert found[task].nunique() > 50


def test_missing_columns_are_named_before_anything_runs(spark: SparkSession, raw: RawTrainset, folder: Path) -> None:
    rows = spark.read.parquet(f"{raw.root}/rows.parquet")
    with pytest.raises(DataError, match=r"missing \(2\); e.g. hour, impression_id"):
        score_frame(rows.drop("hour", "impression_id"), str(folder))


def test_a_row_without_a_number_ends_the_job_and_names_the_column(
    spark: SparkSession, raw: RawTrainset, folder: Path
) -> None:
    from pyspark.sql import functions as F

    rows = spark.read.parquet(f"{raw.root}/rows.parquet")
    broken = rows.withColumn("room_viewers", F.when(F.col("anchor_id") != 3, F.col("room_viewers")))
    with pytest.raises(PythonException, match="column=room_viewers: null, NaN or infinite"):
        score_frame(broken, str(folder)).collect()
