"""The world of interests is what its equation says, for any number of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.interests import COLUMNS, FULL, INTERESTS, Drawn, splits_of
from training.samples.schema import SampleSchema

SMALL = replace(FULL, rows={"train": 20_000, "test": 500})
SIGMAS = 4.5


@pytest.fixture(scope="module", params=INTERESTS)
def drawn(request: pytest.FixtureRequest) -> Drawn:
    return splits_of(SMALL, request.param)["train"]


def test_histories_hold_all_interests_equally_and_nothing_else(drawn: Drawn) -> None:
    interests = drawn.interests.shape[1]
    shares = (drawn.history[:, :, None] == drawn.interests[:, None, :]).sum(axis=1)
    assert (shares.sum(axis=1) == SMALL.length).all()
    assert shares.min() == SMALL.length // interests
    assert shares.max() == -(-SMALL.length // interests)
    assert all(len(set(row)) == interests for row in drawn.interests[:500].tolist())


def test_half_of_the_candidates_are_of_an_interest_of_any_place(drawn: Drawn) -> None:
    places = drawn.candidate[:, None] == drawn.interests
    rows, interests = places.shape
    assert abs(places.any(axis=1).mean() - 0.5) < SIGMAS * np.sqrt(0.25 / rows)
    assert np.unique(drawn.candidate).size == SMALL.categories
    # The candidate tells nothing of the history's first event but that its category is one of K.
    first = (drawn.history[:, 0] == drawn.candidate)[places.any(axis=1)]
    share = 1 / interests
    assert abs(first.mean() - share) <= SIGMAS * np.sqrt(share * (1 - share) / len(first))


def test_clicks_are_drawn_from_the_equation(drawn: Drawn) -> None:
    is_own = (drawn.candidate[:, None] == drawn.interests).any(axis=1)
    for rows in (is_own, ~is_own):
        probability, click = drawn.probability[rows], drawn.click[rows]
        noise = np.sqrt((probability * (1 - probability)).sum())
        assert abs((click - probability).sum()) < SIGMAS * noise
    logit = np.log(drawn.probability / (1 - drawn.probability)) - SMALL.base - SMALL.affinity * is_own
    by_category = dict(zip(drawn.candidate.tolist(), logit.tolist(), strict=True))
    assert logit == pytest.approx([by_category[category] for category in drawn.candidate.tolist()])
    noise = SMALL.quality_std / np.sqrt(2 * SMALL.categories)
    assert np.std(list(by_category.values())) == pytest.approx(SMALL.quality_std, abs=SIGMAS * noise)


def test_the_equation_is_as_hard_for_any_number_of_interests() -> None:
    means = [splits_of(SMALL, number)["train"].probability.mean() for number in INTERESTS]
    assert np.ptp(means) < SIGMAS * np.sqrt(2 * 0.1 / 20_000)  # its variance is about 0.1


def test_splits_are_the_same_at_each_call_and_differ() -> None:
    first, second = splits_of(SMALL, 2), splits_of(SMALL, 2)
    assert first["test"].table().equals(second["test"].table())
    assert not np.array_equal(first["test"].history, first["train"].history[:500])


def test_models_see_ids_alone() -> None:
    table = splits_of(SMALL, 4)["test"].table()
    assert (
        table.column_names == SampleSchema.model_validate({"columns": COLUMNS}).read == ["category", "history", "click"]
    )
    assert {len(row) for row in table["history"].to_pylist()} == {SMALL.length}
