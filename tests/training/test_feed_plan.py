"""The plan's promises, swept over world sizes, row groups and batch sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from features.errors import ConfError, DataError
from features.manifest import DataFile
from training.dealing import Dealt, dealt_until
from training.feed_plan import (
    EpochPlan,
    Plan,
    RowGroup,
    Slice,
    list_row_groups,
    plan_epoch,
    plan_evaluation,
)
from training.streams import most_held
from training.world import World

Row = tuple[int, int]  # (row group, place in it)

world_sizes = st.integers(1, 9)
group_sizes = st.lists(st.integers(1, 40), min_size=9, max_size=60)
batch_sizes = st.integers(9, 80)
shard_counts = st.sampled_from([1, 2, 4, 6, 8, 12, 16])


def _groups(sizes: Sequence[int]) -> tuple[RowGroup, ...]:
    half = len(sizes) // 2
    files = [
        DataFile(path="a.parquet", row_groups=tuple(sizes[:half])),
        DataFile(path="b.parquet", row_groups=tuple(sizes[half:])),
    ]
    return list_row_groups(files)


def _plans(
    sizes: Sequence[int], shards: int, batch: int, world_size: int, epoch: int = 0, dealt: Dealt = ()
) -> list[EpochPlan]:
    """The plan of every rank; skips examples too small for one step."""
    try:
        return [
            plan_epoch(
                _groups(sizes),
                logical_shards=shards,
                batch_size=batch,
                world=World(rank=rank, size=world_size),
                seed=5,
                epoch=epoch,
                dealt=dealt,
            )
            for rank in range(world_size)
        ]
    except DataError:
        assume(False)
        raise


def _rows(slices: Sequence[Slice]) -> list[Row]:
    return [(part.row_group, place) for part in slices for place in range(part.start, part.stop)]


def _steps(plan: EpochPlan) -> list[list[Row]]:
    return [_rows(plan.slices(step)) for step in range(plan.first_step, plan.steps)]


@given(sizes=group_sizes, shards=shard_counts, batch=batch_sizes, world_size=world_sizes)
@settings(max_examples=150, deadline=None)
def test_equal_full_steps_and_every_row_once_or_counted(
    sizes: list[int], shards: int, batch: int, world_size: int
) -> None:
    plans = _plans(sizes, shards, batch, world_size)
    steps = [_steps(plan) for plan in plans]
    assert len({len(own) for own in steps}) == 1
    for step in zip(*steps, strict=True):
        assert sum(len(rows) for rows in step) == batch
        assert {len(rows) for rows in step} <= {batch // world_size, batch // world_size + 1}
    read = Counter(row for own in steps for rows in own for row in rows)
    assert set(read.values()) <= {1}
    assert len(read) + plans[0].dropped == sum(sizes) == plans[0].rows
    assert all(0 <= place < sizes[group] for group, place in read)


@given(sizes=group_sizes, shards=shard_counts, batch=batch_sizes)
@settings(max_examples=100, deadline=None)
def test_a_global_step_is_the_same_set_of_rows_for_every_world_size_that_divides_the_shards(
    sizes: list[int], shards: int, batch: int
) -> None:
    alone = _plans(sizes, shards, batch, 1)[0]
    expected = [set(rows) for rows in _steps(alone)]
    for world_size in (w for w in range(2, 10) if len(alone.streams) % w == 0):
        steps = [_steps(plan) for plan in _plans(sizes, shards, batch, world_size)]
        assert [set().union(*step) for step in zip(*steps, strict=True)] == expected


def test_the_streams_are_the_logical_shards_where_there_are_row_groups_enough() -> None:
    assert [len(_plans([8] * 16, 16, 16, w)[0].streams) for w in (1, 2, 4, 8, 16)] == [16] * 5
    assert len(_plans([8] * 16, 16, 16, 3)[0].streams) == 15
    assert len(_plans([8] * 11, 16, 16, 1)[0].streams) == 8


@given(sizes=group_sizes, shards=shard_counts, batch=batch_sizes, world_size=world_sizes)
@settings(max_examples=100, deadline=None)
def test_ranks_read_only_what_petastorm_shards_to_them(
    sizes: list[int], shards: int, batch: int, world_size: int
) -> None:
    for plan in _plans(sizes, shards, batch, world_size):
        assert all(piece % world_size == plan.world.rank for piece in plan.reads)
        assert all(group % world_size == plan.world.rank for group in plan.reads.values())
        assert sorted(plan.reads.values()) == sorted(set(plan.reads.values()))
        needed = {group for rows in _steps(plan) for group, _ in rows}
        assert needed <= set(plan.reads.values())


@given(data=st.data(), sizes=group_sizes, shards=shard_counts, batch=batch_sizes, world_size=world_sizes)
@settings(max_examples=100, deadline=None)
def test_resuming_reads_exactly_what_was_left(
    data: st.DataObject, sizes: list[int], shards: int, batch: int, world_size: int
) -> None:
    for plan in _plans(sizes, shards, batch, world_size):
        step = data.draw(st.integers(0, plan.steps))
        rest = plan.from_step(step)
        assert _steps(rest) == _steps(plan)[step:]
        assert {group for rows in _steps(rest) for group, _ in rows} == set(rest.reads.values())
        assert set(rest.reads.values()) <= set(plan.reads.values())


@given(
    data=st.data(),
    sizes=group_sizes,
    shards=shard_counts,
    batch=batch_sizes,
    world_sizes=st.lists(world_sizes, min_size=2, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_rows_left_are_read_once_by_whatever_worlds_take_the_epoch_over(
    data: st.DataObject, sizes: list[int], shards: int, batch: int, world_sizes: list[int]
) -> None:
    """Each world reads some steps, and the next one goes on where the streams that it has are others."""
    dealt: Dealt = ()
    first, read = 0, Counter[Row]()
    for place, world_size in enumerate(world_sizes):
        plans = [plan.from_step(first) for plan in _plans(sizes, shards, batch, world_size, dealt=dealt)]
        steps, streams = plans[0].steps, len(plans[0].streams)
        until = steps if place + 1 == len(world_sizes) else data.draw(st.integers(first, steps - 1))
        for step in range(first, until):
            rows = [row for plan in plans for row in _rows(plan.slices(step))]
            assert len(rows) == batch
            read.update(rows)
        following = world_sizes[min(place + 1, len(world_sizes) - 1)]
        if len(_plans(sizes, shards, batch, following)[0].streams) != streams:
            dealt = dealt_until(dealt, streams, until)
        first = until
    assert set(read.values()) == {1}
    assert len(read) + plans[0].dropped == sum(sizes)
    assert not dealt or plans[0].dropped < batch


def test_a_deal_cuts_the_rows_left_evenly_and_never_changes_between_versions() -> None:
    plan = _plans([10] * 8, 4, 8, 3, dealt=((4, 3),))[0]
    assert [stream.rows for stream in plan.streams] == [19, 19, 18]
    assert (plan.steps, plan.dropped) == (10, 0)
    assert [stream.order for stream in plan.streams] == [(1, 0), (0, 3, 7, 5), (4, 6, 2)]
    assert [stream.starts for stream in plan.streams] == [(0, 0), (9, 0, 6, 6), (6, 0, 6)]


@given(
    data=st.data(),
    sizes=group_sizes,
    shards=shard_counts,
    batch=batch_sizes,
    world_size=world_sizes,
    dealt=st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_row_groups_arrive_in_the_order_in_which_they_are_wanted(
    data: st.DataObject, sizes: list[int], shards: int, batch: int, world_size: int, dealt: bool
) -> None:
    """Petastorm hands pieces out in ascending order; a naive consumer counts what it has begun and not finished."""
    groups = _groups(sizes)
    earlier = ((1, 1),) if dealt and sum(sizes) >= 2 * batch and len(sizes) > 1 else ()
    plans = _plans(sizes, shards, batch, world_size, dealt=earlier)
    judged = [plan_evaluation(groups, batch_size=batch, world=plan.world) for plan in plans]
    resumed = [plan.from_step(data.draw(st.integers(plan.dealt_at, plan.steps))) for plan in plans]
    every: list[Plan] = [*resumed, *judged]
    for plan in every:
        taken = [part for step in range(plan.first_step, plan.steps) for part in plan.slices(step)]
        wanted = list(dict.fromkeys(part.row_group for part in taken))
        assert list(plan.reads.values()) == wanted
        assert list(plan.reads) == sorted(plan.reads)
        assert {need.row_group: need.rows for need in plan.needs} == {
            number: sum(part.rows for part in taken if part.row_group == number) for number in wanted
        }
        last = {part.row_group: place for place, part in enumerate(taken)}
        held, most = set[int](), 0
        for place, part in enumerate(taken):
            held.add(part.row_group)
            most = max(most, len(held))
            held -= {number for number in held if last[number] == place}
        assert most_held(plan.needs) == most


def test_a_resumed_plan_does_not_read_what_was_read() -> None:
    plan = _plans([10] * 64, 16, 32, 2)[0]
    assert len(plan.reads) == 32
    assert len(plan.from_step(plan.steps // 2).reads) == 16
    assert plan.from_step(plan.steps).reads == {}


def test_order_changes_with_the_epoch_and_with_nothing_else() -> None:
    sizes = [10] * 64
    assert _steps(_plans(sizes, 16, 32, 1)[0]) == _steps(_plans(sizes, 16, 32, 1)[0])
    first, second = (_plans(sizes, 16, 32, 1, epoch)[0] for epoch in (0, 1))
    assert _steps(first) != _steps(second)
    group = _groups(sizes)[3]
    assert first.row_order(group).tolist() == first.row_order(group).tolist()
    assert first.row_order(group).tolist() != second.row_order(group).tolist()
    assert sorted(second.row_order(group)) == list(range(10))


def test_the_order_never_changes_between_versions() -> None:
    """A checkpoint of an older version must resume in the order it was written in."""
    plan = _plans([10] * 8, 4, 8, 1)[0]
    assert [stream.order for stream in plan.streams] == [(4, 0), (5, 1), (2, 6), (7, 3)]
    assert plan.row_order(_groups([10] * 8)[2]).tolist() == [2, 6, 0, 5, 9, 3, 1, 7, 8, 4]


@given(sizes=st.lists(st.integers(0, 30), max_size=30), batch=st.integers(1, 70), world_size=world_sizes)
@settings(max_examples=150, deadline=None)
def test_evaluation_reads_every_row_once_in_equal_steps(sizes: list[int], batch: int, world_size: int) -> None:
    groups = _groups(sizes)
    plans = [plan_evaluation(groups, batch_size=batch, world=World(rank=r, size=world_size)) for r in range(world_size)]
    assert len({(plan.steps, plan.batch_size) for plan in plans}) == 1
    read = [row for plan in plans for step in range(plan.steps) for row in _rows(plan.slices(step))]
    assert sorted(read) == [(group.index, place) for group in groups for place in range(group.rows)]
    for plan in plans:
        assert all(len(_rows(plan.slices(step))) <= plan.batch_size for step in range(plan.steps))
        assert not plan.sharded or all(piece % world_size == plan.world.rank for piece in plan.reads)


def test_fewer_rows_than_ranks_in_a_batch_is_refused() -> None:
    with pytest.raises(ConfError, match="batch_size=3 is below the 4 ranks"):
        _plans([8] * 16, 16, 3, 4)


def test_fewer_row_groups_than_ranks_is_refused() -> None:
    with pytest.raises(DataError, match="3 row groups cannot feed 4 ranks"):
        plan_epoch(_groups([8] * 3), logical_shards=16, batch_size=8, world=World(rank=0, size=4), seed=0, epoch=0)


def test_too_few_rows_for_one_step_is_refused() -> None:
    with pytest.raises(DataError, match=r"not one step of batch_size=100.*has 4 of 16 rows"):
        plan_epoch(_groups([4] * 4), logical_shards=4, batch_size=100, world=World(), seed=0, epoch=0)


def test_a_step_outside_the_epoch_is_refused() -> None:
    plan = _plans([8] * 16, 16, 16, 1)[0]
    with pytest.raises(ConfError, match=r"steps 0 to 8; cannot begin at 9"):
        plan.from_step(9)
