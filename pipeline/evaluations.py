"""Champions on days of samples: which days are new, and the commit of what was found. Scoring is the training side's.

    evaluations_<model>/manifests/dt=YYYY-MM-DD/manifest.<n>    has no files: the evaluation is in the manifest

A day is evaluated once for each version and each content of its samples; a crash leaves the days before committed.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from features.evaluation import FEATURE_EDGES, SCORE_EDGES, Evaluation
from pipeline.manifests import PartitionManifest, day_partition
from pipeline.stages.names import SAMPLES, evaluation_table
from pipeline.tables import Warehouse
from pipeline.trigger_facts import Committed

DAY_PREFIX = "dt="


@dataclass(frozen=True, kw_only=True)
class InUse:
    """The champion of a model, as far as its days matter; `digest` is of the published folder."""

    model: str
    version: str
    digest: str
    seen_until: datetime.date


def committed_samples(
    warehouse: Warehouse, after: datetime.date, until: datetime.date
) -> dict[datetime.date, Committed]:
    """Committed days of samples in (after, until], ascending; a committed day is mature."""
    found = {}
    for day in _days(warehouse, SAMPLES):
        manifest = warehouse.manifest(SAMPLES, day_partition(day)) if after < day <= until else None
        if manifest is not None:
            found[day] = Committed(rows=manifest.rows, digest=manifest.digest)
    return found


def new_days(warehouse: Warehouse, champion: InUse, until: datetime.date) -> list[datetime.date]:
    """Days that the champion has not seen and was not evaluated on, its gate day among them, oldest first."""
    samples = committed_samples(warehouse, champion.seen_until, until)
    return [
        day for day, committed in samples.items() if not _stands(read_evaluation(warehouse, champion, day), committed)
    ]


def read_evaluation(warehouse: Warehouse, champion: InUse, day: datetime.date) -> Evaluation | None:
    """The champion's evaluation on a day; None when there is none, or it is of another version."""
    manifest = warehouse.manifest(evaluation_table(champion.model), day_partition(day))
    found = manifest.evaluation if manifest is not None else None
    return found if found is not None and (found.version, found.digest) == (champion.version, champion.digest) else None


def standing_evaluation(
    warehouse: Warehouse, champion: InUse, day: datetime.date, samples: Mapping[datetime.date, Committed]
) -> Evaluation | None:
    """The champion's evaluation on a day, unless the samples of the day are others now."""
    found = read_evaluation(warehouse, champion, day)
    return found if day not in samples or _stands(found, samples[day]) else None


def commit_evaluation(
    warehouse: Warehouse,
    champion: InUse,
    day: datetime.date,
    evaluate: Callable[[list[str], str], Evaluation],
) -> Evaluation:
    """Evaluate a day under its lease, and commit what was found.

    Args:
        evaluate: URLs of the day's files and the digest of their content → what was found.

    Raises:
        HeldError: when another run evaluates the day.
        NotReadyError: when the samples of the day were not computed.
    """
    table, partition = evaluation_table(champion.model), day_partition(day)
    with warehouse.attempt(table, [partition]) as attempt:
        samples = warehouse.require(SAMPLES, [day])[day]
        found = evaluate(warehouse.file_urls(samples), samples.digest)
        attempt.lease.check()
        warehouse.commit(
            [
                PartitionManifest(
                    table=table,
                    partition=partition,
                    generation=attempt.generations[partition],
                    attempt=attempt.name,
                    files=(),
                    rows=0,
                    digest=hashlib.sha256(found.model_dump_json().encode()).hexdigest()[:32],
                    schema=(),
                    inputs={f"{SAMPLES}/{partition}": samples.digest},
                    counts={"evaluated": found.rows},
                    evaluation=found,
                    created_at=datetime.datetime.now(datetime.UTC),
                )
            ]
        )
    return found


def _stands(found: Evaluation | None, samples: Committed) -> bool:
    """Whether an evaluation is of the samples as they are now, and cut as histograms are cut now."""
    edges = (SCORE_EDGES, FEATURE_EDGES)
    return found is not None and found.samples == samples.digest and (found.score_edges, found.feature_edges) == edges


def _days(warehouse: Warehouse, table: str) -> list[datetime.date]:
    names = warehouse.partitions(table)
    return sorted(
        datetime.date.fromisoformat(name.removeprefix(DAY_PREFIX)) for name in names if name.startswith(DAY_PREFIX)
    )
