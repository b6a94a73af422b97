"""The kernel against loops over rows: hypothesis draws keys, equal instants and late arrivals."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.spark.asof_merge import (
    AT,
    DAY,
    KIND,
    QUERY,
    Chunk,
    Timeline,
    last_visible,
    segment_search,
    take_or_default,
    visible,
    visible_sum,
    whole_key_tables,
)

ROW = st.tuples(st.integers(0, 3), st.integers(0, 12), st.integers(0, 3))
FAR = 1_700_000_000_000_000
"""Micros of our century: they do not fit a float32, and their neighbours not a float64 of seconds."""


@dataclass(frozen=True)
class Case:
    """Events and queries as (segment, at, day)."""

    events: list[tuple[int, int, int]]
    queries: list[tuple[int, int, int]]

    def seen(self, query: tuple[int, int, int]) -> list[int]:
        """Numbers of the visible events, oldest first."""
        segment, at, day = query
        return [i for i, (s, t, a) in enumerate(self.events) if s == segment and t < at and a <= day]


cases = st.builds(lambda events, queries: Case(sorted(events), queries), st.lists(ROW), st.lists(ROW, min_size=1))


def timeline(rows: list[tuple[int, int, int]]) -> Timeline:
    segment, at, day = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    return Timeline(segment=segment, at=at + FAR, day=day)


@settings(deadline=None)
@given(cases)
def test_last_visible_is_the_newest_event_before_the_query(case: Case) -> None:
    expected = [seen[-1] if (seen := case.seen(query)) else -1 for query in case.queries]
    assert last_visible(timeline(case.queries), timeline(case.events)).tolist() == expected


@settings(deadline=None)
@given(cases, st.integers(1, 13))
def test_visible_sum_counts_the_open_interval(case: Case, span: int) -> None:
    values = np.arange(len(case.events), dtype=np.int64) ** 2 + 1
    expected = [
        sum(int(values[i]) for i in case.seen(query) if case.events[i][1] > query[1] - span) for query in case.queries
    ]
    assert visible_sum(timeline(case.queries), timeline(case.events), values, span).tolist() == expected


@settings(deadline=None)
@given(cases, st.integers(1, 4), st.integers(0, 12), st.integers(0, 3))
def test_newest_first_gathers_the_last_events(case: Case, length: int, max_age: int, day: int) -> None:
    queries = [(segment, at, day) for segment, at, _ in case.queries]
    asked = timeline(queries)
    prefixes = visible(asked, timeline(case.events), day).not_before(asked.at - max_age)
    taken, offsets = prefixes.newest_first(length, slice(None))
    found = [taken[start:stop].tolist() for start, stop in itertools.pairwise(offsets)]
    expected = [
        [i for i in reversed(case.seen(query)) if case.events[i][1] >= query[1] - max_age][:length] for query in queries
    ]
    assert found == expected


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=12).map(sorted), st.data())
def test_segment_search_equals_numpy_within_each_range(values: list[int], data: st.DataObject) -> None:
    at = np.array(values, dtype=np.int64)
    start = data.draw(st.integers(0, at.size))
    stop = data.draw(st.integers(start, at.size))
    bounds = np.arange(-1, 11)
    found = segment_search(at, np.full_like(bounds, start), np.full_like(bounds, stop), bounds)
    assert found.tolist() == (start + at[start:stop].searchsorted(bounds)).tolist()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=40).map(sorted), st.data())
def test_chunks_hold_whole_keys_whatever_the_batches(keys: list[tuple[int, int]], data: st.DataObject) -> None:
    table = pa.table({"user": [u for u, _ in keys], "room": [r for _, r in keys], "row": range(len(keys))})
    cuts = sorted(data.draw(st.lists(st.integers(0, len(keys)), max_size=6)))
    bounds = [0, *cuts, len(keys)]
    batch = table.to_batches()[0] if keys else pa.RecordBatch.from_pylist([], schema=table.schema)
    batches = [batch.slice(start, stop - start) for start, stop in itertools.pairwise(bounds)]
    chunk_rows = data.draw(st.integers(1, 10))
    chunks = list(whole_key_tables(batches, ("user", "room"), chunk_rows))
    owners = [set(zip(c["user"].to_pylist(), c["room"].to_pylist(), strict=True)) for c in chunks]
    assert [row for chunk in chunks for row in chunk["row"].to_pylist()] == list(range(len(keys)))
    assert all(chunk.num_rows >= chunk_rows for chunk in chunks[:-1])
    assert all(not a & b for a, b in itertools.combinations(owners, 2))


def test_a_chunk_is_cut_as_soon_as_a_key_ends() -> None:
    batches = [pa.RecordBatch.from_pydict({"user": [key] * 5}) for key in range(4)]
    assert [chunk.num_rows for chunk in whole_key_tables(batches, ("user",), 5)] == [5, 5, 5, 5]


def test_nulls_among_instants_are_an_error_not_floats() -> None:
    table = pa.table({AT: pa.array([1, None]), DAY: pa.array([0, 0]), KIND: pa.array([QUERY, QUERY])})
    chunk = Chunk(table=table, segment=np.zeros(2, dtype=np.int64), kind=np.full(2, QUERY))
    with pytest.raises(ValueError, match="1 nulls in an integer column"):
        chunk.part(QUERY)


def test_neighbouring_microseconds_are_told_apart() -> None:
    events = Timeline(segment=np.array([0, 0]), at=np.array([FAR, FAR + 1]), day=np.array([0, 0]))
    queries = Timeline(segment=np.array([0, 0, 0]), at=np.array([FAR, FAR + 1, FAR + 2]), day=np.array([0, 0, 0]))
    assert last_visible(queries, events).tolist() == [-1, 0, 1]


def test_take_or_default_fills_absent_rows_and_nulls() -> None:
    names, rows = pa.array(["a", None]), np.array([0, 1, -1])
    assert take_or_default(names, rows, "?").to_pylist() == ["a", "?", "?"]
    assert take_or_default(names, rows, None).to_pylist() == ["a", None, None]
