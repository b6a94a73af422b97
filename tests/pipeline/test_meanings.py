"""Which tables a change of the catalog touches: only those whose rows it changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from features.schema import Catalog, load_catalog
from features.spec import (
    GIFTS,
    SHARES,
    Dense,
    DistinctPartners,
    DType,
    Entity,
    Feature,
    Ids,
    OnAir,
    Rate,
    SequenceFeature,
    Sum,
    WindowOp,
)
from pipeline.meanings import meanings
from pipeline.plan import sample_stages

CATALOG = load_catalog()
TABLES = [table for stage in sample_stages() for table in stage.writes]


def with_feature(entity: Entity, op: WindowOp) -> Catalog:
    new = Feature(name="new", entity=entity, op=op, dtype=DType.BIGINT, encoding=Dense(), default=0, doc="Of a test.")
    rated = replace(new, dtype=DType.DOUBLE, default=0.0)
    return replace(CATALOG, features=(rated if isinstance(op, Rate) else new, *CATALOG.features))


def touched(catalog: Catalog) -> set[str]:
    return {table for table in TABLES if meanings(table, catalog) != meanings(table, CATALOG)}


@pytest.mark.parametrize(
    ("op", "entity", "tables"),
    [
        (Sum(measure=SHARES, days=7), Entity.USER, {"profiles_user"}),
        (Sum(measure=SHARES, days=7), Entity.USER_ANCHOR, {"profiles_user_anchor"}),
        (DistinctPartners(measure=SHARES, days=7), Entity.ANCHOR, {"profiles_anchor", "profiles_user_anchor"}),
        (OnAir(days=3), Entity.ANCHOR, {"profiles_anchor"}),
        (OnAir(days=3, max_session_hours=12), Entity.ANCHOR, {"profiles_anchor", "tiles_on_air"}),
        # Over sums that stand already.
        (Rate(numerator=GIFTS, denominator=GIFTS, days=30, prior=0.0, strength=1), Entity.USER, set()),
    ],
)
def test_a_new_window_touches_the_states_that_it_needs_and_the_samples(
    op: WindowOp, entity: Entity, tables: set[str]
) -> None:
    assert touched(with_feature(entity, op)) == {*tables, "samples"}


def test_encodings_and_words_touch_no_table() -> None:
    def coarser(feature: Feature) -> Feature:
        rare = isinstance(feature.encoding, Ids)
        return replace(feature, encoding=Ids(vocabulary="one")) if rare else replace(feature, doc="Other words.")

    catalog = replace(CATALOG, features=tuple(map(coarser, CATALOG.features)), sequences=())
    assert catalog.fingerprint() != CATALOG.fingerprint()
    assert touched(replace(catalog, sequences=CATALOG.sequences)) == set()


@pytest.mark.parametrize(
    ("change", "tables"),
    [
        (lambda watched: replace(watched, fields=watched.fields[:-1]), {"samples"}),
        (lambda watched: replace(watched, length=watched.length + 1), {"samples", "recent_actions", "tiles_actions"}),
    ],
)
def test_a_sequence_touches_the_last_actions_only_by_their_number_and_age(
    change: Callable[[SequenceFeature], SequenceFeature], tables: set[str]
) -> None:
    watched, *others = CATALOG.sequences
    assert touched(replace(CATALOG, sequences=(change(watched), *others))) == tables
