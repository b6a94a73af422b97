"""Names of the derived tables."""

from __future__ import annotations

from features.spec import Entity

RECENT_ACTIONS = "recent_actions"
SAMPLES = "samples"
ON_AIR_TILES = "tiles_on_air"
ACTION_TILES = "tiles_actions"
TRAINSETS = "trainsets"
DECISIONS = "decisions"
RETRAINS = "retrains"  # a folder of leases alone: who retrains


def tile_table(entity: Entity) -> str:
    """Partial aggregates of an entity, by arrival day."""
    return f"tiles_{entity}"


def serving_table(entity: Entity) -> str:
    """What a server must know of an entity as of a day."""
    return f"serving_{entity}"


def profile_table(entity: Entity) -> str:
    """Window features of an entity as of a day."""
    return f"profiles_{entity}"


def evaluation_table(model: str) -> str:
    """How the champions of a model did on days of samples."""
    return f"evaluations_{model}"
