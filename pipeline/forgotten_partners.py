"""Takes a user out of what counts partners: an anchor's number of users is carried by the pairs that leave its windows.

The pairs of a user who is taken out never leave, so their share has to go at once. It goes as a delta on each day's
state, which is then what the bulk recompute of the remaining tiles gives.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping

from pyspark.sql import functions as F

from features.spark.carried import DIGEST_CHANGES, HIGH, LOW, ROWS, without_partner
from features.spark.ops import DAY
from features.spark.window_state import PAIRS, state_layout, stored_entities
from features.spec import DistinctPartners, Entity
from pipeline.context import Context
from pipeline.manifests import DataFile, PartitionManifest
from pipeline.observed import Keys
from pipeline.profile_state import layers, state_of
from pipeline.stages.names import profile_table
from pipeline.user_files import USER

Days = Mapping[datetime.date, PartitionManifest]


def without_partner_counts(context: Context, user: int) -> Iterator[PartitionManifest]:
    """The next generations, not committed, of the states that count a user; their deltas are written.

    Raises:
        DataError: when a day was written with other columns than the catalog wants.
        HeldError: when another run holds a day.
    """
    pairs = _current(context, PAIRS[DistinctPartners])
    for entity in stored_entities(context.catalog):
        days = {day: manifest for day, manifest in _current(context, entity).items() if day in pairs}
        counts_users = state_layout(entity, context.catalog).partners and USER not in entity.keys
        if counts_users and days:
            yield from _less_one(context, entity, days, {day: pairs[day] for day in days}, user)


def _current(context: Context, entity: Entity) -> dict[datetime.date, PartitionManifest]:
    table = profile_table(entity)
    found = (context.warehouse.manifest(table, partition) for partition in context.warehouse.partitions(table))
    return {datetime.date.fromisoformat(m.partition.removeprefix("dt=")): m for m in found if m is not None}


def _less_one(context: Context, entity: Entity, days: Days, pairs: Days, user: int) -> Iterator[PartitionManifest]:
    met = state_of(context, PAIRS[DistinctPartners], pairs).where(F.col(USER) == user)
    rows = without_partner(state_layout(entity, context.catalog), state_of(context, entity, days), met).persist()
    sums = rows.groupBy(DAY).agg(*(F.sum(name).alias(name) for name in DIGEST_CHANGES)).collect()
    changes = {row[DAY]: Keys(rows=row[ROWS], high=row[HIGH], low=row[LOW]) for row in sums}
    if changes:  # somebody counts the user
        with context.warehouse.attempt(profile_table(entity), [days[day].partition for day in changes]) as attempt:
            files, _ = attempt.write(rows.drop(*DIGEST_CHANGES), DAY)
    rows.unpersist()
    for day, change in changes.items():
        yield _with_delta(days[day], files[day], change, attempt.name)


def _with_delta(
    manifest: PartitionManifest, delta: tuple[DataFile, ...], change: Keys, attempt: str
) -> PartitionManifest:
    above = (file.model_copy(update={"layer": layers(manifest) + 1}) for file in delta)
    files, now = (*manifest.files, *above), Keys.of_digest(manifest.digest) + change
    update = {
        "generation": manifest.generation + 1,
        "attempt": attempt,
        "files": files,
        "rows": now.rows,
        "stored_rows": sum(file.rows for file in files),
        # A base is the state itself; one with a delta has to be read as their sum, as carried partitions are.
        "carried_from": manifest.carried_from or manifest.partition,
        "digest": now.digest(),
        "created_at": datetime.datetime.now(datetime.UTC),
    }
    return manifest.model_copy(update=update)
