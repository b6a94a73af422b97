"""Declarations refuse what makes no sense, and their fingerprints follow their meaning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import CatalogError
from features.spec import (
    ENTERS,
    GIFTS,
    IMPRESSIONS,
    MAX_WINDOW_DAYS,
    MEASURES,
    ActiveDays,
    Buckets,
    DaysSinceLast,
    Dense,
    DistinctPartners,
    DType,
    Entity,
    Feature,
    Field,
    Ids,
    OnAir,
    Rate,
    RoomAge,
    Sum,
    TopCategory,
    Vector,
    canonical,
    fingerprint,
)

ENTERED = Feature(
    name="user_enters_7d",
    entity=Entity.USER,
    op=Sum(measure=ENTERS, days=7),
    dtype=DType.BIGINT,
    encoding=Dense(),
    default=0,
    doc="Enters.",
)


@pytest.mark.parametrize("days", [0, -1, MAX_WINDOW_DAYS + 1])
@pytest.mark.parametrize("op", [Sum, ActiveDays, DaysSinceLast, DistinctPartners, TopCategory])
def test_a_window_outside_the_limits_is_refused(op: Any, days: int) -> None:
    with pytest.raises(CatalogError, match=f"window of {days} days"):
        op(measure=ENTERS, days=days)


@pytest.mark.parametrize("days", [0, MAX_WINDOW_DAYS + 1])
def test_rates_and_on_air_have_the_same_limits(days: int) -> None:
    with pytest.raises(CatalogError, match=f"window of {days} days"):
        Rate(numerator=ENTERS, denominator=IMPRESSIONS, days=days, prior=0.1, strength=1)
    with pytest.raises(CatalogError, match=f"window of {days} days"):
        OnAir(days=days)


@pytest.mark.parametrize("strength", [0, -3.5])
def test_a_rate_needs_strength(strength: float) -> None:
    with pytest.raises(CatalogError, match="must be above 0"):
        Rate(numerator=ENTERS, denominator=IMPRESSIONS, days=7, prior=0.1, strength=strength)


@pytest.mark.parametrize("boundaries", [(), (1, 1), (2, 1)])
def test_bucket_boundaries_must_increase(boundaries: tuple[float, ...]) -> None:
    with pytest.raises(CatalogError, match="strictly increasing"):
        Buckets(boundaries=boundaries)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "User"}, "must match"),
        ({"name": "_sum"}, "must match"),
        ({"entity": Entity.ROOM}, "windows exist on"),
        ({"op": RoomAge()}, "RoomAge is an operation on rooms"),
        ({"entity": Entity.USER_ANCHOR, "op": TopCategory(measure=ENTERS, days=7)}, "needs a user or an anchor"),
        ({"entity": Entity.USER_CATEGORY, "op": DistinctPartners(measure=ENTERS, days=7)}, "needs a user or an anchor"),
        ({"default": 0.0}, "default 0.0 is not a bigint"),
        ({"default": None}, "default None is not a bigint"),
        ({"dtype": DType.STRING, "default": ""}, "cannot be encoded as Dense"),
        ({"dtype": DType.VECTOR, "default": None, "encoding": Ids(vocabulary="v")}, "encoded as Vector"),
        ({"encoding": Vector(dim=4)}, "encoded as Vector"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        replace(ENTERED, **changes)


def test_days_are_those_of_the_window() -> None:
    assert ENTERED.days == 7
    hour = replace(ENTERED, name="scene_id", entity=Entity.IMPRESSION, op=Field(column="scene"))
    assert hour.days is None


def test_words_do_not_change_the_fingerprint() -> None:
    assert fingerprint(replace(ENTERED, doc="Other words.")) == fingerprint(ENTERED)


@given(st.sampled_from(MEASURES), st.integers(1, 365), st.sampled_from(MEASURES), st.integers(1, 365))
def test_equal_meaning_is_equal_text(one: Any, one_days: int, other: Any, other_days: int) -> None:
    first, second = Sum(measure=one, days=one_days), Sum(measure=other, days=other_days)
    assert (canonical(first) == canonical(second)) == (first == second)
    assert (fingerprint(first) == fingerprint(second)) == (first == second)


def test_operations_of_equal_fields_differ() -> None:
    texts = {canonical(op(measure=GIFTS, days=7)) for op in (Sum, ActiveDays, DaysSinceLast, DistinctPartners)}
    assert len(texts) == 4


def test_measures_have_names_of_their_own() -> None:
    assert len({measure.name for measure in MEASURES}) == len(MEASURES)
