"""What the rows of each table are made of, beyond inputs, code and conf: part by part, so that a change is found in the
tables and in the columns that it touches, and nowhere else.
"""

from __future__ import annotations

from features.schema import Catalog
from features.spark.recent_actions import kept_bounds
from features.spark.snapshots import SNAPSHOT_TABLES
from features.spark.window_state import on_air_ops, state_layout, stored_entities
from features.spec import TILED_ENTITIES, Entity, fingerprint
from pipeline.stages.names import (
    ACTION_TILES,
    ON_AIR_TILES,
    RECENT_ACTIONS,
    SAMPLES,
    profile_table,
    serving_table,
    tile_table,
)

KEYS = "(keys)"
"""A part that is no column: which keys there are."""
CATALOG = "(catalog)"
"""The same: everything that is declared."""


def meanings(table: str, catalog: Catalog) -> dict[str, str]:
    """Part of a table → fingerprint of what it is made of, in the order of the parts.

    The parts are the columns of samples and of window state; the actions whose last events are kept; the measures of
    time on air; of what is served everything. Other tiles are made of measures, which are code: they have none.
    """
    if table == SAMPLES:
        return catalog.sample_meanings()
    if table in (ACTION_TILES, RECENT_ACTIONS):
        return {action: fingerprint(bound) for action, bound in kept_bounds(catalog).items()}
    if table == ON_AIR_TILES:
        return {name: fingerprint(op.max_session_hours) for name, op in on_air_ops(catalog).items()}
    for entity in TILED_ENTITIES:
        if table == profile_table(entity) and entity in stored_entities(catalog):
            layout = state_layout(entity, catalog)
            return {KEYS: layout.keys_meaning(), **layout.meanings()}
        if table == serving_table(entity):
            return {CATALOG: catalog.fingerprint()}
    return {}


def stands_in_parts(table: str) -> bool:
    """Whether the parts of a table stand or fall one by one: each is made of its inputs without the others."""
    return table in (SAMPLES, ACTION_TILES) or _profiled(table) is not None


def read_for_some_columns(table: str) -> frozenset[str]:
    """Inputs that a table has only if some column is made of them; where they are not among its inputs, none is."""
    if table == SAMPLES:
        snapshots = {f"raw/{name}" for name in SNAPSHOT_TABLES.values()}
        return frozenset(snapshots | {profile_table(entity) for entity in TILED_ENTITIES})
    entity = _profiled(table)
    if entity in (Entity.USER, Entity.ANCHOR):
        return frozenset({tile_table(Entity.USER_CATEGORY), tile_table(Entity.USER_ANCHOR)})
    return frozenset()


def _profiled(table: str) -> Entity | None:
    return next((entity for entity in TILED_ENTITIES if table == profile_table(entity)), None)
