"""What is checked of which table: it follows from the catalog and from the table's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from features.schema import KEY_COLUMNS, Catalog
from features.spark.ops import HAPPENED, ActiveBits, StateColumn
from features.spark.window_state import state_layout, stored_entities
from features.spec import (
    MEASURES,
    TILED_ENTITIES,
    ActiveDays,
    DayOfWeek,
    DaysSinceLast,
    DistinctPartners,
    Feature,
    HourOfDay,
    OnAir,
    Position,
    Rate,
    RoomAge,
    RoomLast,
    RoomSum,
    SnapshotAge,
    Sum,
)
from pipeline.binning import Binning, Judged, binnings_of
from pipeline.stages.names import SAMPLES, profile_table, serving_table, tile_table

Bounds = tuple[float | None, float | None]
TILES = frozenset(tile_table(entity) for entity in TILED_ENTITIES)


@dataclass(frozen=True, kw_only=True)
class TablePlan:
    """What is checked of one table.

    Attributes:
        keys: unique together within a partition; empty when not known.
        required: columns that are never null.
        bounds: smallest and largest value that the meaning of a column allows.
        one_in: histograms of values are taken of one row in so many, chosen by a hash of its keys; nulls, what is no
            number, and labels are counted in every row.
    """

    table: str
    keys: tuple[str, ...]
    binnings: Mapping[str, Binning]
    required: frozenset[str]
    bounds: Mapping[str, Bounds]
    one_in: int = 1


def plan_of(table: str, schema: Sequence[tuple[str, str]], catalog: Catalog, one_in: int = 1) -> TablePlan:
    """The plan of a table with these columns (name, Spark SQL type)."""
    names = [name for name, _ in schema]
    keys = table_keys(table, names)
    features = {feature.name: feature for feature in catalog.features}
    binnings = binnings_of(schema, catalog, keys)
    bounds = {name: _bounds(features[name]) for name in names if name in features}
    for name, binning in binnings.items():
        if isinstance(binning, Judged):
            bounds |= {name: (0, 1), binning.mask: (0, 1)}
    stored = _stored_columns(table, catalog)
    binnings = {name: binning for name, binning in binnings.items() if not isinstance(stored.get(name), ActiveBits)}
    bounds |= {name: (0, None) for name, column in stored.items() if not isinstance(column, ActiveBits)}
    if table in TILES:
        bounds |= {measure.name: (0, None) for measure in MEASURES}
    nullable = {feature.name for feature in catalog.features if feature.default is None}
    whole = {*names} if table in TILES else {*names} - nullable if table == SAMPLES else {*keys, *stored}
    return TablePlan(
        table=table,
        keys=keys,
        binnings=binnings,
        required=frozenset(whole),
        bounds={name: bound for name, bound in bounds.items() if bound != (None, None)},
        one_in=one_in if keys else 1,
    )


def _stored_columns(table: str, catalog: Catalog) -> Mapping[str, StateColumn]:
    """State columns of a table of profiles; none of other tables.

    Bits of active days move on with the calendar: they have no distribution and no order.
    """
    for entity in stored_entities(catalog):
        if table == profile_table(entity):
            return {column.name: column for column in state_layout(entity, catalog).sums}
    return {}


def table_keys(table: str, columns: Sequence[str]) -> tuple[str, ...]:
    """What is unique within a partition of a table; empty for tables of another kind."""
    if table == SAMPLES:
        return tuple(name for name in KEY_COLUMNS if name == "impression_id")
    for entity in TILED_ENTITIES:
        if table == tile_table(entity):
            return (*entity.keys, HAPPENED)
        if table in (profile_table(entity), serving_table(entity)):
            return tuple(key for key in entity.keys if key in columns)
    return ()


def _bounds(feature: Feature) -> Bounds:
    match feature.op:
        case ActiveDays(days=days):
            return 0, days
        case DaysSinceLast(days=days):
            return 1, days + 1
        case HourOfDay():
            return 0, 23
        case DayOfWeek():
            return 0, 6
        case SnapshotAge() | RoomAge():
            return -1, None
        case Sum() | Rate() | DistinctPartners() | OnAir() | RoomLast() | RoomSum():
            return 0, None
    return (0, None) if isinstance(feature.encoding, Position) else (None, None)
