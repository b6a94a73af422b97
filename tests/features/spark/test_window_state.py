"""The catalog cut down to what some state columns are kept for, over catalogs drawn at random; no Spark job."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from features.schema import Catalog
from features.spark.window_state import PAIRS, catalog_of_state, state_layout, stored_entities
from features.spec import (
    ENTERS,
    GIFTS,
    ActiveDays,
    DaysSinceLast,
    Dense,
    DistinctPartners,
    DType,
    Entity,
    Feature,
    Ids,
    OnAir,
    Sum,
    TopCategory,
    WindowOp,
)

MEASURES, DAYS = st.sampled_from((ENTERS, GIFTS)), st.sampled_from((1, 7, 30, 70))


def over_windows(*ops: type[WindowOp]) -> st.SearchStrategy[WindowOp]:
    return st.one_of([st.builds(op, measure=MEASURES, days=DAYS) for op in ops])


OWN = over_windows(Sum, ActiveDays, DaysSinceLast)
OF_USER = st.one_of(OWN, over_windows(DistinctPartners, TopCategory))
OF_ANCHOR = st.one_of(OWN, over_windows(DistinctPartners), st.builds(OnAir, days=DAYS))
OPS = st.one_of(
    st.tuples(st.just(Entity.USER), OF_USER),
    st.tuples(st.just(Entity.ANCHOR), OF_ANCHOR),
    st.tuples(st.sampled_from((Entity.USER_CATEGORY, Entity.USER_ANCHOR)), OWN),
)


def catalog_of(ops: list[tuple[Entity, WindowOp]]) -> Catalog:
    features = []
    for number, (entity, op) in enumerate(ops):
        is_text = isinstance(op, TopCategory)
        features.append(
            Feature(
                name=f"f{number}",
                entity=entity,
                op=op,
                dtype=DType.STRING if is_text else DType.BIGINT,
                encoding=Ids(vocabulary="category") if is_text else Dense(),
                default="" if is_text else 0,
                doc="Of a test.",
            )
        )
    return Catalog(features=tuple(features), sequences=(), labels=())


@given(st.lists(OPS, min_size=1, max_size=6), st.lists(OPS, min_size=1, max_size=6))
def test_the_cut_down_catalog_has_every_column_that_is_lacking(
    before: list[tuple[Entity, WindowOp]], after: list[tuple[Entity, WindowOp]]
) -> None:
    old, new = catalog_of(before), catalog_of(after)
    for entity in {*stored_entities(old)} & {*stored_entities(new)}:
        stored, wanted = state_layout(entity, old), state_layout(entity, new)
        if stored.keys_meaning() != wanted.keys_meaning():
            continue
        lacking = [name for name in wanted.columns if name not in stored.columns]
        kept = wanted.only([name for name in wanted.columns if name in stored.columns])
        part = catalog_of_state(entity, new, lacking)
        assert {feature.op for feature in part.features} <= {feature.op for feature in new.features}
        if lacking:
            assert {*lacking} <= {*state_layout(entity, part).columns}
        # What says whether a row counts is among the columns that are kept.
        assert f"_tiles_{wanted.days}" in kept.columns
        assert kept.columns == tuple(name for name in wanted.columns if name in stored.columns)


@given(st.lists(OPS, min_size=1, max_size=6))
def test_equal_names_are_equal_columns(ops: list[tuple[Entity, WindowOp]]) -> None:
    """So that columns may be compared by name and fingerprint."""
    catalog = catalog_of(ops)
    found: dict[str, set[str]] = {}
    for entity in stored_entities(catalog):
        layout = state_layout(entity, catalog)
        assert tuple(layout.meanings()) == layout.columns
        for name, meaning in layout.meanings().items():
            found.setdefault(name, set()).add(meaning)
    assert all(len(meanings) == 1 for meanings in found.values())


@given(st.lists(OPS, min_size=1, max_size=6))
def test_tiles_are_read_as_far_back_as_some_operation_asks(ops: list[tuple[Entity, WindowOp]]) -> None:
    catalog = catalog_of(ops)
    for entity in stored_entities(catalog):
        layout = state_layout(entity, catalog)
        assert layout.reach(entity) == layout.days
        for kind, pair in PAIRS.items():
            asked = [f.op for f in catalog.windows(entity) if isinstance(f.op, kind)]
            if pair is not entity:
                days = [getattr(op, "days", 0) for op in asked]
                assert layout.reach(pair) == max(days, default=0)


def test_other_lives_are_told_apart() -> None:
    def life(*ops: WindowOp) -> str:
        return state_layout(Entity.ANCHOR, catalog_of([(Entity.ANCHOR, op) for op in ops])).keys_meaning()

    month, week = Sum(measure=GIFTS, days=30), Sum(measure=GIFTS, days=7)
    assert life(month) == life(month, week) == life(month, dataclasses.replace(week, measure=ENTERS))
    assert life(week) != life(week, month)
    assert life(month) != life(month, OnAir(days=7)) != life(month, OnAir(days=30))
    assert life(month, OnAir(days=30)) == life(month, OnAir(days=30), OnAir(days=7))
