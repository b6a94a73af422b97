"""The facts that the trigger decides from, gathered from manifests and the registry alone: no data file is read."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from features.evaluation import Evaluation
from features.schema import load_catalog
from jobs.champions import Published
from jobs.settings import Settings, model_values
from pipeline.evaluations import committed_samples, standing_evaluation
from pipeline.stages.names import TRAINSETS
from pipeline.tables import Warehouse
from pipeline.trainset import trainset_partition
from pipeline.trigger_facts import Champion, Committed, Facts, Making, ModelFacts

FOLLOWS_THE_SOURCE = ("task", "parent", "child")  # set from the source's tasks when a training starts


def gather(
    warehouse: Warehouse,
    settings: Settings,
    champions: Mapping[str, Published | None],
    mature: datetime.date,
    uncommitted: Iterable[Evaluation] = (),
) -> Facts:
    """What is known on the day after `mature` and its labels.

    Args:
        uncommitted: evaluations of a dry run, which are in no manifest.
    """
    seen = [published.in_use.seen_until for published in champions.values() if published is not None]
    samples = committed_samples(warehouse, min(seen), mature) if seen else {}
    evaluations = {(found.model, found.day): found for found in uncommitted}
    catalog, trainset = load_catalog().fingerprint(), settings.pipeline.trainset_fingerprint()
    return Facts(
        mature=mature,
        main_task=settings.pipeline.tasks.main,
        samples=samples,
        models=tuple(
            ModelFacts(
                model=model,
                making=Making(
                    catalog=catalog, trainset=trainset, model=settings_fingerprint(model_values(model)["model"])
                ),
                champion=_champion(warehouse, published, samples, evaluations) if published is not None else None,
            )
            for model, published in champions.items()
        ),
    )


def _champion(
    warehouse: Warehouse,
    published: Published,
    samples: Mapping[datetime.date, Committed],
    evaluations: Mapping[tuple[str, datetime.date], Evaluation],
) -> Champion:
    in_use, trainset = published.in_use, published.trainset
    manifest = warehouse.manifest(TRAINSETS, trainset_partition(trainset.name))
    newest = max((day for day in samples if day > in_use.seen_until), default=None)

    def evaluation(day: datetime.date) -> Evaluation | None:
        return evaluations.get((in_use.model, day)) or standing_evaluation(warehouse, in_use, day, samples)

    return Champion(
        version=in_use.version,
        digest=in_use.digest,
        trainset=trainset.name,
        trained_until=published.trained_until,
        seen_until=in_use.seen_until,
        gate_day=published.gate_day,
        making=Making(
            catalog=trainset.catalog_fingerprint,
            trainset=manifest.conf if manifest is not None else None,
            model=settings_fingerprint(published.card.get("conf", {}).get("model", {})),
        ),
        reference=evaluation(published.gate_day),
        newest=evaluation(newest) if newest is not None else None,
    )


def settings_fingerprint(model: Mapping[str, Any]) -> str:
    """Of the section `model` of a training conf; the tasks that follow from the source are no settings."""
    own = {name: value for name, value in model.items() if name not in FOLLOWS_THE_SOURCE}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:16]
