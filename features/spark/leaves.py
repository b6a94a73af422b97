"""The booster of a train set: XGBoost on Spark, fitted on days before the first train day.

He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook" (ADKDD 2014): the index of the leaf
that each tree puts a row in is a categorical feature. The look-up itself is `features.encoding`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from features.errors import DataError, Problem
from features.manifest import FIRST_KEY_ID
from features.schema import Catalog, label_name, mask_name
from features.spec import Buckets, Dense


@dataclass(frozen=True, kw_only=True)
class BoosterParams:
    """Size of the booster; `workers` is part of what makes two fits equal."""

    trees: int
    depth: int
    learning_rate: float
    min_child_weight: float
    workers: int
    seed: int


def booster_features(catalog: Catalog) -> tuple[str, ...]:
    """Every number of the catalog, untransformed; ids, strings, vectors and the position stay out."""
    return tuple(feature.name for feature in catalog.features if isinstance(feature.encoding, Dense | Buckets))


def fit_booster(samples: DataFrame, catalog: Catalog, task: str, params: BoosterParams) -> bytes:
    """Samples of the fit days → the serialised booster (UBJSON).

    Raises:
        DataError: when the fit days hold no row of one class: nothing could be learnt.
    """
    from xgboost.spark import SparkXGBClassifier

    logging.getLogger("XGBoost-PySpark").setLevel(logging.WARNING)
    columns = booster_features(catalog)
    judged = samples.where(F.col(mask_name(task)) == 1)
    # Floats are summed in row order: fixed partitions and a fixed order in each make two fits equal.
    rows = (
        judged.select(
            "impression_id",
            F.col(label_name(task)).alias("label"),
            *[F.col(name).cast("float").alias(name) for name in columns],
        )
        .repartition(params.workers, "impression_id")
        .sortWithinPartitions("impression_id")
    )
    _require_two_classes(rows, task)
    classifier = SparkXGBClassifier(
        features_col=list(columns),
        label_col="label",
        num_workers=params.workers,
        n_estimators=params.trees,
        max_depth=params.depth,
        learning_rate=params.learning_rate,
        min_child_weight=params.min_child_weight,
        tree_method="hist",
        random_state=params.seed,
        verbosity=0,
        verbose=False,
    )
    booster = classifier.fit(rows).get_booster()
    return bytes(booster.save_raw("ubj"))


def _require_two_classes(rows: DataFrame, task: str) -> None:
    found = {int(row["label"]): int(row["count"]) for row in rows.groupBy("label").count().collect()}
    if len(found) < 2:
        raise DataError(
            [
                Problem(
                    table="samples",
                    column=label_name(task),
                    what=f"the booster's fit days hold only the classes {sorted(found)}",
                    count=sum(found.values()),
                    remedy="Give more fit days (conf days.fit) or choose another main task (conf tasks.main)",
                )
            ]
        )


def leaf_id_count(booster: Any) -> int:
    """Rows that one tree's leaves need in the embedding table: the largest node number of any tree, plus ids 0, 1."""
    largest = max(_largest_node(json.loads(tree)) for tree in booster.get_dump(dump_format="json"))
    return largest + 1 + FIRST_KEY_ID


def _largest_node(node: dict[str, Any]) -> int:
    children: Sequence[dict[str, Any]] = node.get("children", ())
    return max([int(node["nodeid"]), *(_largest_node(child) for child in children)])
