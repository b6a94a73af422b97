"""Samples: one row per impression of day D, unencoded, with everything that was known of it and what came of it.

impressions ⟕ room state                       by impression_id
            ⟕ profiles and snapshots as of D   by (day, keys), narrow ones first: what is joined is dragged along
            ⟕ labels ⟕ sequences               by impression_id, last: the wide arrays are shuffled once
→ one select of exactly `catalog.sample_columns()`

A part that the catalog has nothing of is left out: so the samples of a catalog that is cut down to new features are
the new columns alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from features.errors import CatalogError
from features.schema import KEY_COLUMNS, Catalog, label_name, mask_name
from features.spark.event_time import business_day
from features.spec import DayOfWeek, Entity, Feature, Field, HourOfDay

DAY = "day"


def sampled_impressions(impressions: DataFrame, *, label_delay_days: int) -> DataFrame:
    """The raw impressions that become samples: those of day D that arrived by D + label_delay_days, with `day` = D."""
    dated = impressions.withColumn(DAY, business_day())
    return dated.where(F.col("dt") <= F.date_add(DAY, label_delay_days))


def samples(
    catalog: Catalog,
    impressions: DataFrame,
    *,
    profiles: Mapping[Entity, DataFrame],
    snapshots: Mapping[Entity, DataFrame],
    sequences: DataFrame | None,
    room_state: DataFrame | None,
    labels: DataFrame | None,
    counted: Sequence[str] = (),
    known: Mapping[str, str] | None = None,
) -> DataFrame:
    """Joins the parts of each impression; many days in one pass.

    Args:
        impressions: of `sampled_impressions`; impression_id is unique.
        profiles, snapshots: per entity day, keys..., features; unique by (day, keys).
        sequences, room_state, labels: by impression_id, a row for every impression; None where the catalog has none.
        counted: columns of `labels` to keep behind the samples' own, for the caller to sum in the pass of its write
            (`labels.flag_columns`).
        known: feature → column of `impressions` that has its values already.

    Returns:
        `catalog.sample_columns()`: names, types and order; `dt` is D; then `counted`. As many rows as impressions,
        exactly if every part is unique by its key (the caller compares the two counts). A feature that is null
        after its join has the catalog's default (a vector stays null); labels, masks and sequences are never
        filled: a null there means that a part lacks an impression, and the border check stops it.

    Raises:
        CatalogError: names the features that no part computes, or as `Catalog.key_column`.
    """
    joined = _shown(catalog, impressions, known or {})
    if room_state is not None:
        room = _features_of(catalog, Entity.ROOM, room_state, ("impression_id",))
        joined = joined.join(room, on="impression_id", how="left")
    as_of = [(entity, part) for parts in (profiles, snapshots) for entity, part in parts.items()]
    for entity, part in sorted(as_of, key=lambda item: len(item[1].columns)):
        keyed = _features_of(catalog, entity, part, (DAY, *entity.keys))
        sample_keys = {key: catalog.key_column(key) for key in entity.keys}
        joined = joined.join(keyed.withColumnsRenamed(sample_keys), on=[DAY, *sample_keys.values()], how="left")
    if labels is not None:
        task_columns = [name for label in catalog.labels for name in (label_name(label.name), mask_name(label.name))]
        joined = joined.join(labels.select("impression_id", *task_columns, *counted), on="impression_id", how="left")
    if sequences is not None:
        joined = joined.join(sequences, on="impression_id", how="left")
    _check_computed(catalog, joined)
    return joined.select(*_columns(catalog), *counted)


def _shown(catalog: Catalog, impressions: DataFrame, known: Mapping[str, str]) -> DataFrame:
    """day, the keys with dt = D, the features of the impression itself, and those that are `known`."""
    keys = {**{name: F.col(name) for name in KEY_COLUMNS}, "dt": business_day()}
    own = {
        feature.name: _own_value(feature)
        for feature in catalog.of_entity(Entity.IMPRESSION)
        if feature.name not in KEY_COLUMNS
    }
    own |= {name: F.col(column) for name, column in known.items()}
    return impressions.select(business_day().alias(DAY), *(value.alias(name) for name, value in (keys | own).items()))


def _own_value(feature: Feature) -> Column:
    match feature.op:
        case Field(column=column):
            return F.col(column)
        case HourOfDay():
            return F.hour("ts")
        case DayOfWeek():
            return F.weekday("ts")
    raise CatalogError(f"{feature.name}: {type(feature.op).__name__} is no operation on impressions")


def _features_of(catalog: Catalog, entity: Entity, part: DataFrame, keys: tuple[str, ...]) -> DataFrame:
    """`keys` and those features of the entity that the part has."""
    return part.select(*keys, *(f.name for f in catalog.of_entity(entity) if f.name in part.columns))


def _check_computed(catalog: Catalog, joined: DataFrame) -> None:
    missing = [feature.name for feature in catalog.features if feature.name not in joined.columns]
    if missing:
        raise CatalogError(f"no profile, snapshot or room state computes {', '.join(missing)}")


def _columns(catalog: Catalog) -> list[Column]:
    defaults = {feature.name: feature.default for feature in catalog.features if feature.name not in KEY_COLUMNS}
    columns = []
    for column in catalog.sample_columns():
        value = F.col(column.name).cast(column.sql_type)
        default = defaults.get(column.name)
        if default is not None:
            value = F.coalesce(value, F.lit(default).cast(column.sql_type))
        columns.append(value.alias(column.name))
    return columns
