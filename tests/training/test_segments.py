"""Which rows belong to which segment, against plain counting."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.encoding import Encoder
from tests.training.raw_trainset import ANCHORS, GATE_DAY, USERS, RawTrainset, write_raw_trainset
from tests.training.test_gate import SEGMENTS
from training.segments import HEAVY_USERS, by_value, heavy_users, segments_of

RULES = SEGMENTS.model_copy(update={"columns": ("user_city",)})


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> RawTrainset:
    return write_raw_trainset(tmp_path_factory.mktemp("trainset"))


def test_new_keys_are_those_that_the_vocabulary_did_not_admit_by_that_day(raw: RawTrainset) -> None:
    found = segments_of(raw.samples, Encoder.load(raw.trainset, raw.root), RULES)
    users, anchors = (raw.samples[name].to_pylist() for name in ("user_id", "anchor_id"))
    known = {10**14 + user for user in range(0, USERS - 2, 2)}  # the last is admitted a day later
    assert found.rows["new user_id"].tolist() == [user not in known for user in users]
    assert found.rows["new anchor_id"].tolist() == [anchor >= ANCHORS - 1 for anchor in anchors]
    assert str(GATE_DAY) in {str(day) for day in raw.samples["dt"].to_pylist()}
    assert found.absent == {}


def test_an_evicted_key_is_new_again(tmp_path: Path) -> None:
    raw = write_raw_trainset(tmp_path, evicted={"anchor": [5]})
    found = segments_of(raw.samples, Encoder.load(raw.trainset, raw.root), RULES)
    anchors = raw.samples["anchor_id"].to_pylist()
    assert found.rows["new anchor_id"].tolist() == [anchor >= ANCHORS - 1 or anchor == 5 for anchor in anchors]


def test_a_segment_that_conf_asks_for_and_the_day_cannot_tell_is_named(raw: RawTrainset) -> None:
    rules = RULES.model_copy(update={"columns": ("category",), "new_keys": ("hour", "nobody")})
    found = segments_of(raw.samples, Encoder.load(raw.trainset, raw.root), rules)
    assert set(found.absent) == {"category", "new hour", "new nobody"}  # an hour is a bucket, never new
    assert set(found.rows) == {HEAVY_USERS}


@settings(max_examples=50, deadline=None)
@given(group=st.lists(st.integers(0, 12), min_size=1, max_size=80), share=st.floats(0.01, 0.99))
def test_heavy_users_are_as_many_as_the_share_allows_and_no_lighter_than_any_other(
    group: list[int], share: float
) -> None:
    counts = Counter(group)
    inside = {user for user, heavy in zip(group, heavy_users(np.array(group), share), strict=True) if heavy}
    assert len(inside) <= share * len(counts)
    outside = counts.keys() - inside
    assert all(counts[heavy] > counts[light] for heavy in inside for light in outside)
    # the next lighter group of users would not fit
    best = max((counts[user] for user in outside), default=0)
    assert len(inside) + sum(counts[user] == best for user in outside) > share * len(counts)


def test_values_are_a_partition_and_the_rarer_ones_are_one_segment() -> None:
    values = pa.chunked_array([["a", "b", "a", None], ["c", "a", "b", "d"]])
    found = by_value("category", values, 2)
    assert {name: rows.nonzero()[0].tolist() for name, rows in found.items()} == {
        "category=a": [0, 2, 5],
        "category=b": [1, 6],
        "category=(all others)": [3, 4, 7],
    }
    assert set(by_value("category", values, 5)) == {f"category={value}" for value in ("a", "b", "c", "d", "(null)")}
