"""Numbers of keys that a warm start relies on."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.artefacts import moved_keys

KEYS = st.lists(st.integers(0, 12), unique=True, max_size=8)


def table(keys: list[int]) -> pa.Table:
    """Numbered in their order."""
    return pa.table({"key": pa.array(keys, pa.int64()), "id": pa.array(range(2, 2 + len(keys)), pa.int32())})


@settings(deadline=None)
@given(before=KEYS, now=KEYS)
def test_moved_keys_against_a_loop(before: list[int], now: list[int]) -> None:
    wanted = [key for key in before if key not in now or now.index(key) != before.index(key)]
    assert moved_keys(table(before), table(now)) == [str(key) for key in wanted]


@settings(deadline=None)
@given(before=KEYS, more=KEYS)
def test_keys_that_are_only_added_move_none(before: list[int], more: list[int]) -> None:
    assert moved_keys(table(before), table([*before, *(key for key in more if key not in before)])) == []
