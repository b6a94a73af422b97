"""What a server must know of an entity on the morning of D: one row per entity, unencoded, as samples are.

    profiles ⟗ snapshots ⟗ last actions      one row per key that any of them has
    ⟕ vocabulary of each key                 the id that the newest train set gives it
→ keys, features (their defaults where unknown), sequences newest first, ids, freshness
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from features.manifest import OOV_ID
from features.schema import Catalog, sequence_name
from features.spec import Entity, Feature, Ids, SequenceFeature, SnapshotOp, WindowOp

AS_OF = "dt"
NEWEST_ARRIVAL = "newest_arrival"
LAST_ACTION = "last_action_at"


def served_features(catalog: Catalog, entity: Entity) -> tuple[Feature, ...]:
    """Features that are known of an entity before there is an impression."""
    return tuple(f for f in catalog.of_entity(entity) if isinstance(f.op, WindowOp | SnapshotOp))


def key_vocabularies(catalog: Catalog, entity: Entity) -> dict[str, str]:
    """Key column → vocabulary that has ids of it."""
    encodings = {feature.name: feature.encoding for feature in catalog.features}
    return {key: e.vocabulary for key in entity.keys if isinstance(e := encodings.get(key), Ids)}


def recent_sequences(catalog: Catalog, recent: DataFrame) -> DataFrame:
    """The sequences of every user as an impression at the start of the day would see them, and a little later.

    Args:
        recent: `recent_actions` of one day.

    Returns:
        user_id; per sequence, newest first, the last `length` events: `<sequence>_at` (micros since 1970 UTC, from
        which the server takes ages) and each field that is not an age; `last_action_at`.
    """
    columns = [column for sequence in catalog.sequences for column in _sequence_columns(sequence)]
    return recent.groupBy("user_id").agg(*columns, F.max(F.array_max("at")).alias(LAST_ACTION))


def _sequence_columns(sequence: SequenceFeature) -> Iterator[Column]:
    is_its = F.col("action") == sequence.action
    scales = {"watch_ms": 1000, "coins": 1}

    def newest_first(array: str) -> Column:
        start = F.greatest(F.size(array) - sequence.length + 1, F.lit(1))
        return F.first(F.when(is_its, F.reverse(F.slice(array, start, sequence.length))), ignorenulls=True)

    yield newest_first("at").alias(f"{sequence.name}_at")
    for field in sequence.fields:
        if field.source == "age_s":
            continue
        scale = scales.get(field.source)
        values = newest_first("value" if scale else field.source)
        yield (_scaled(values, scale) if scale else values).alias(sequence_name(sequence.name, field.name))


def _scaled(values: Column, scale: int) -> Column:
    return F.transform(values, lambda value: F.round(value * scale).cast("bigint"))


def serving_rows(
    catalog: Catalog,
    entity: Entity,
    *,
    day: dt.date,
    newest_arrival: dt.date,
    parts: Sequence[DataFrame],
    vocabularies: Mapping[str, DataFrame],
) -> DataFrame:
    """One row per key that any part has.

    Args:
        parts: each unique by the entity's keys; together they have its `served_features`.
        vocabularies: key column → (key, id); a key that is not there has the id of OOV.

    Returns:
        dt = D, keys..., features in catalog order and never null but for vectors, sequences (users; empty without
        events), `id_<key>`, `newest_arrival` (the last raw day that any of it rests on), `last_action_at` (users).
    """
    joined = parts[0]
    for part in parts[1:]:
        joined = joined.join(part, on=list(entity.keys), how="full")
    for key, vocabulary in vocabularies.items():
        ids = vocabulary.select(F.col("key").alias(key), F.col("id").alias(f"id_{key}"))
        joined = joined.join(ids, on=key, how="left")
    columns = [F.lit(day).alias(AS_OF), *(F.col(key) for key in entity.keys)]
    for feature in served_features(catalog, entity):
        value = F.col(feature.name).cast(feature.dtype.value)
        default = F.lit(feature.default).cast(feature.dtype.value)
        columns.append((value if feature.default is None else F.coalesce(value, default)).alias(feature.name))
    known = set(joined.columns)
    arrays = [
        name for name in joined.columns if name not in {f.name for f in catalog.features} and name in _arrays(catalog)
    ]
    columns += [F.coalesce(F.col(name), F.array().cast(dict(joined.dtypes)[name])).alias(name) for name in arrays]
    columns += [F.coalesce(F.col(f"id_{key}"), F.lit(OOV_ID)).cast("int").alias(f"id_{key}") for key in vocabularies]
    columns.append(F.lit(newest_arrival).alias(NEWEST_ARRIVAL))
    columns += [F.col(LAST_ACTION)] if LAST_ACTION in known else []
    return joined.select(*columns)


def _arrays(catalog: Catalog) -> set[str]:
    """Columns of `recent_sequences`."""
    names = {f"{sequence.name}_at" for sequence in catalog.sequences}
    return names | {sequence_name(s.name, field.name) for s in catalog.sequences for field in s.fields}
