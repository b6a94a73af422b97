"""Which tasks a train set teaches: labels counted per split, and those left out that the gate day cannot judge."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from features.errors import DataError, Problem
from features.manifest import SplitName, Task
from features.schema import Catalog, label_name, mask_name
from pipeline.config import TasksConf
from pipeline.stages.names import SAMPLES

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Rows, judged rows and positives of a split."""

    rows: int
    judged: Mapping[str, int]
    positives: Mapping[str, int]


def count_labels(
    samples: DataFrame, catalog: Catalog, split_days: Mapping[SplitName, Sequence[datetime.date]]
) -> dict[SplitName, Counts]:
    """Rows, judged rows and positives of every split, in one pass over the label columns.

    Raises:
        DataError: naming every split without rows.
    """
    sums = [F.count(F.lit(1)).alias("rows")]
    for label in catalog.labels:
        sums.append(F.sum(mask_name(label.name)).alias(mask_name(label.name)))
        sums.append(F.sum(F.col(label_name(label.name)) * F.col(mask_name(label.name))).alias(label.name))
    by_day = {row["dt"]: row.asDict() for row in samples.groupBy("dt").agg(*sums).collect()}
    found: dict[SplitName, Counts] = {}
    for split, days in split_days.items():
        rows = [by_day[day] for day in days if day in by_day]
        found[split] = Counts(
            rows=sum(row["rows"] for row in rows),
            judged={lb.name: sum(row[mask_name(lb.name)] or 0 for row in rows) for lb in catalog.labels},
            positives={lb.name: sum(row[lb.name] or 0 for row in rows) for lb in catalog.labels},
        )
    empty = [split for split, count in found.items() if count.rows == 0 and split_days[split]]
    if empty:
        raise DataError(
            [
                Problem(
                    table=SAMPLES,
                    day=", ".join(day.isoformat() for day in split_days[split]),
                    what=f"the {split} split has no rows",
                    remedy="A model cannot be trained or judged on it; look at the raw days with "
                    "`limelight check-raw`, or choose another --date",
                )
                for split in empty
            ]
        )
    return found


def choose_tasks(
    gate: Counts, catalog: Catalog, limits: TasksConf, source: str
) -> tuple[tuple[Task, ...], dict[str, str]]:
    """The tasks that the gate day can judge, and why each other one is left out.

    Raises:
        DataError: when the main task is left out.
    """
    kept, left_out = [], {}
    for label in catalog.labels:
        positives = gate.positives[label.name]
        negatives = gate.judged[label.name] - positives
        share = max(positives, negatives) / max(1, positives + negatives)
        if limits.only is not None and label.name not in limits.only:
            left_out[label.name] = f"the source {source} cannot teach it"
        elif positives < limits.min_positives or negatives < limits.min_negatives:
            left_out[label.name] = (
                f"{positives} positives and {negatives} negatives on the gate day; needed are "
                f"{limits.min_positives} and {limits.min_negatives}"
            )
        elif share > limits.max_share:
            left_out[label.name] = f"near-constant given its parent: one class has {share:.2%} of the gate day"
        else:
            kept.append(Task(name=label.name, space=label.space, parent=label.parent))
    if limits.main in left_out or not kept:
        raise DataError(
            [
                Problem(
                    table=SAMPLES,
                    column=label_name(limits.main),
                    what=f"the main task cannot be judged: {left_out.get(limits.main, 'no task is left')}",
                    remedy="Choose another main task (conf tasks.main) or a later --date",
                )
            ]
        )
    return tuple(kept), left_out
