"""Raw features in a table → scores, on all executors: the batch scorer.

spark-submit --py-files build/dist/limelight.zip --properties-file conf/spark/cluster.conf \
    jobs/batch_score.py --folder URL --rows URL --out URL [--day YYYY-MM-DD]

Every Python worker opens the published folder once, by its URL: a place that all executors reach. It verifies it, and
scores batch by batch (mapInArrow) with ONNX Runtime on one thread: Spark's tasks are what runs in parallel.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import sys
from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from features.errors import DataError, ExitCode, Problem
from features.storage import absolute
from jobs.console import Steps, people_first
from jobs.spark_session import spark_session
from jobs.stage_door import a_day
from training.scorer import Scorer
from training.scoring import Wanted, with_ids

Batches = Iterable[pa.RecordBatch]


def score_frame(rows: DataFrame, folder_url: str, *, day: datetime.date | None = None) -> DataFrame:
    """Score a DataFrame of raw features.

    Args:
        rows: the columns that the model reads (schema.json of the folder), and the row's id; others are dropped.
        folder_url: of a published folder, which every executor reaches.
        day: whose admissions count; each row's own `dt` by default.

    Returns:
        The row's id (bigint), and per task a probability (double).

    Raises:
        DataError: columns are missing, or the folder is not as it was published.
    """
    url = absolute(folder_url)
    scorer = Scorer.open(url, examples=True)
    wanted, row_id = Wanted.of(scorer), scorer.trainset.row_id_from
    missing = [name for name in (*wanted.needed, row_id) if name not in rows.columns]
    if missing:
        remedy = "Write the rows with the catalog that the model was trained with"
        what = "columns that the model reads are missing"
        raise DataError([Problem(table="rows", what=what, count=len(missing), examples=missing, remedy=remedy)])
    present = [F.col(name) for name in wanted.types if name in rows.columns]
    doubles = [T.StructField(task, T.DoubleType()) for task in scorer.tasks]
    schema = T.StructType([T.StructField(row_id, T.LongType()), *doubles])
    return rows.select(*present).mapInArrow(_scoring(url, day), schema)


def _scoring(url: str, day: datetime.date | None) -> Callable[[Batches], Batches]:
    """What a task does with its batches; it travels as a URL and a day."""

    def scored(batches: Batches) -> Batches:
        scorer = _open(url)
        wanted, row_id, first = Wanted.of(scorer), scorer.trainset.row_id_from, 0
        for batch in batches:
            rows = wanted.checked(pa.Table.from_batches([batch]), first)
            first += len(rows)
            scores = scorer.score(with_ids(scorer, rows), day)
            names = [row_id, *scorer.tasks]
            arrays = [rows[row_id].combine_chunks(), *(pa.array(scores[task]) for task in scorer.tasks)]
            yield pa.RecordBatch.from_arrays(arrays, names)

    return scored


@functools.lru_cache(maxsize=2)
def _open(url: str) -> Scorer:
    """Once per Python worker, which serves many tasks."""
    return Scorer.open(url, threads=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Score a folder of Parquet into another. Errors made on purpose end the process with their exit code."""
    parser = argparse.ArgumentParser(prog="jobs/batch_score.py", description="Score raw features by a published model.")
    parser.add_argument("--folder", required=True, help="URL of a published folder, which every executor reaches")
    parser.add_argument("--rows", required=True, help="URL of the Parquet to score")
    parser.add_argument("--out", required=True, help="URL of the folder of the scores; it must not be there yet")
    parser.add_argument("--day", type=a_day, metavar="YYYY-MM-DD", help="whose vocabulary counts; each row's dt if not")
    parser.add_argument("--place", default="cluster", help="which conf/spark file: cluster (default) or local")
    options = parser.parse_args(arguments)
    with people_first(), spark_session("batch score", options.place, "UTC") as spark, Steps().step("score") as step:
        scores = score_frame(spark.read.parquet(absolute(options.rows)), options.folder, day=options.day)
        scores.write.parquet(absolute(options.out))
        step.rows = spark.read.parquet(absolute(options.out)).count()
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
