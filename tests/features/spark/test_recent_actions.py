"""The last actions before a day: from tiles, from a state and tiles, against the naive oracle; sequences of them."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F

from features.schema import Catalog, load_catalog
from features.spark.action_events import action_events
from features.spark.asof_merge import AT, DAY, KIND, ORDER, Chunk
from features.spark.event_time import DAY_MICROS, EPOCH, MICROS
from features.spark.ops import ARRIVED
from features.spark.recent_actions import (
    STATE_SCHEMA,
    RecentKernel,
    action_tiles,
    as_stored,
    recent_actions,
    unpacked,
)
from features.spark.sequences import sequences
from tests.features.random_logs import RawLogs, many_logs, to_spark
from tests.features.spark.test_sequences import by_impression, short_and_long
from tests.oracle.recent_actions import State, expected_recent
from tests.oracle.sequences import expected_sequences

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SEEDS = range(20, 26)
DAYS = [dt.date(2024, 2, 24) + dt.timedelta(days=offset) for offset in range(17)]
EVENT_LAG_S = 1800
LOCAL_1970 = dt.datetime(1970, 1, 1, 8)
"""Midnight in Greenwich as the clocks of Asia/Shanghai show it."""


def tight() -> Catalog:
    """Two sequences per action, so short and young that length and age both cut."""
    catalog = load_catalog()
    young = (dataclasses.replace(s, length=3, max_age_days=2) for s in catalog.sequences)
    short = (dataclasses.replace(s, name=f"{s.name}_short", length=1, max_age_days=4) for s in catalog.sequences)
    return dataclasses.replace(catalog, sequences=(*young, *short))


@pytest.fixture(scope="module")
def logs() -> RawLogs:
    return many_logs(SEEDS)


def states_of(frame: DataFrame, days: Sequence[dt.date]) -> list[State]:
    """The rows of each day; fails on a repeated key or on arrays of different lengths."""
    found: list[State] = [{} for _ in days]
    for row in frame.collect():
        happened = [LOCAL_1970 + dt.timedelta(microseconds=at) for at in row["at"]]
        columns = (row[name] for name in ("action_id", "anchor_id", "category", "value"))
        state = found[days.index(row["dt"])]
        assert (row["user_id"], row["action"]) not in state
        state[row["user_id"], row["action"]] = list(zip(happened, *columns, strict=True))
    return found


def tiles_of(catalog: Catalog, tables: Mapping[str, DataFrame], days: Sequence[dt.date]) -> DataFrame:
    events = action_events(catalog, tables["actions"], tables["rooms"])
    return action_tiles(catalog, events, days=days, event_lag_s=EVENT_LAG_S)


@pytest.mark.spark
def test_the_state_equals_the_oracle_from_tiles_and_from_a_state(spark: SparkSession, logs: RawLogs) -> None:
    arrivals = [DAYS[0] + dt.timedelta(days=offset) for offset in range(-5, len(DAYS) - 1)]
    tiles = tiles_of(tight(), to_spark(spark, logs), arrivals).localCheckpoint()
    expected = expected_recent(tight(), logs, DAYS, EVENT_LAG_S)
    bulk = recent_actions(tight(), as_stored(tiles), days=DAYS, event_lag_s=EVENT_LAG_S).localCheckpoint()
    assert states_of(bulk, DAYS) == expected
    for since, days in ((3, DAYS[3:4]), (3, DAYS[4:5]), (6, DAYS[7:]), (12, DAYS[16:])):
        stored = as_stored(tiles.where(F.col(ARRIVED) >= DAYS[since]), bulk.where(F.col("dt") == DAYS[since]))
        carried = recent_actions(tight(), stored, days=days, event_lag_s=EVENT_LAG_S)
        assert states_of(carried, days) == expected[DAYS.index(days[0]) : DAYS.index(days[-1]) + 1]
    assert not any(expected[0].values())
    assert max(len(rows) for state in expected for rows in state.values()) > 3, "no late event of the lag is kept"


@pytest.mark.spark
def test_a_tile_is_of_its_own_arrivals_alone(spark: SparkSession, logs: RawLogs) -> None:
    arrived = DAYS[6]
    tables = to_spark(spark, logs)
    own = {**logs, "actions": logs["actions"][logs["actions"]["dt"] == arrived]}
    assert len(own["actions"])
    (expected,) = expected_recent(tight(), own, [DAYS[7]], EVENT_LAG_S)
    found = as_stored(tiles_of(tight(), tables, [arrived]))
    assert states_of(found, [DAYS[7]]) == [expected]


@pytest.mark.spark
@pytest.mark.parametrize("max_room_age_days", [None, 1])
@pytest.mark.parametrize("catalog", [short_and_long(), tight()], ids=["long", "tight"])
def test_sequences_from_what_is_stored_equal_the_oracle(
    spark: SparkSession, logs: RawLogs, catalog: Catalog, max_room_age_days: int | None
) -> None:
    tables = to_spark(spark, logs)
    actions, rooms = tables["actions"], tables["rooms"]
    first = DAYS[5]
    shown = tables["impressions"].where(F.to_date("ts") >= first)
    earlier, since = (actions.where(is_so) for is_so in (F.col("dt") < first, F.col("dt") >= first))
    events = action_events(catalog, earlier, rooms.where(F.col("dt") < first), max_room_age_days)
    days = [first - dt.timedelta(days=back) for back in range(1, 12)]
    stored = as_stored(action_tiles(catalog, events, days=days, event_lag_s=EVENT_LAG_S))
    found = sequences(catalog, shown, since, rooms, EVENT_LAG_S, stored, max_room_age_days)
    late = logs | {"impressions": logs["impressions"][logs["impressions"]["ts"] >= str(first)]}
    expected = expected_sequences(catalog, late, EVENT_LAG_S, max_room_age_days)
    assert by_impression(found) == expected
    forgetful = expected != expected_sequences(catalog, late, EVENT_LAG_S)
    assert forgetful == (max_room_age_days is not None), "no room was old enough to be forgotten"


@pytest.mark.spark
def test_a_catalog_without_sequences_keeps_no_action(spark: SparkSession, logs: RawLogs) -> None:
    catalog = dataclasses.replace(load_catalog(), sequences=())
    tables = to_spark(spark, logs)
    stored = as_stored(tiles_of(catalog, tables, DAYS[:2]))
    assert states_of(recent_actions(catalog, stored, days=DAYS[2:3], event_lag_s=EVENT_LAG_S), DAYS[2:3]) == [{}]
    found = sequences(catalog, tables["impressions"], tables["actions"], tables["rooms"], EVENT_LAG_S, stored)
    assert sorted(row["impression_id"] for row in found.collect()) == sorted(logs["impressions"]["impression_id"])


# --- The kernel alone: thousands of logs without Spark -----------------------------------------------------

USERS, HORIZON = 3, 6
LENGTHS, AGES_DAYS, LAG = (2, 1), (2, 3), DAY_MICROS // 8

EVENT = st.tuples(
    st.integers(0, USERS - 1), st.integers(0, 1), st.integers(0, 8 * HORIZON - 1), st.integers(0, HORIZON)
)
"""User, kind, eighths of a day since the first midnight, days late."""


def chunk_of(rows: list[dict[str, Any]]) -> Chunk:
    """Rows as a merge by user would hand them to the kernel."""
    ordered = sorted(rows, key=lambda row: (row["user_id"], row[KIND], row[AT], row[ORDER]))
    ints = {name: pa.int64() for name in ("user_id", KIND, AT, DAY, ORDER, "anchor_id")}
    lists = {f"packed_{name}": pa.list_(pa.int64()) for name in (AT, ORDER, "anchor_id")}
    texts = {"category": pa.string(), "value": pa.float64()}
    packs = {"packed_category": pa.list_(pa.string()), "packed_value": pa.list_(pa.float64())}
    table = pa.Table.from_pylist(ordered, schema=pa.schema({**ints, **texts, **lists, **packs}))
    users = np.array([row["user_id"] for row in ordered], dtype=np.int64)
    kinds = np.array([row[KIND] for row in ordered], dtype=np.int64)
    return Chunk(table=table, segment=np.unique(users, return_inverse=True)[1], kind=kinds)


def run_kernel(rows: list[dict[str, Any]], days: Sequence[int], *, of_eve: bool = False) -> list[dict[str, Any]]:
    kernel = RecentKernel(
        days=tuple((day, day * DAY_MICROS) for day in days),
        actions=("watch", "gift"),
        lengths=LENGTHS,
        ages=tuple(age * DAY_MICROS for age in AGES_DAYS),
        lag=LAG,
        of_eve=of_eve,
    )
    found = [row for batch in unpacked(kernel, chunk_of(rows)) for row in batch.to_pylist()]
    return sorted(found, key=lambda row: (row["dt"], row["user_id"], row["action"]))


def as_packed(state: dict[str, Any]) -> dict[str, Any]:
    day = (state["dt"] - EPOCH).days - 1
    kind = ("watch", "gift").index(state["action"])
    lists = {AT: "at", ORDER: "action_id", "anchor_id": "anchor_id", "category": "category", "value": "value"}
    packs = {f"packed_{column}": state[name] for column, name in lists.items()}
    return {"user_id": state["user_id"], KIND: kind, AT: 0, DAY: day, ORDER: 0, **packs}


@settings(deadline=None, max_examples=150)
@given(st.lists(EVENT, max_size=24))
def test_tiles_and_carrying_day_by_day_give_what_all_events_give(drawn: list[tuple[int, int, int, int]]) -> None:
    events = [
        {
            "user_id": user,
            KIND: kind,
            AT: eighth * DAY_MICROS // 8,
            DAY: eighth // 8 + late,
            ORDER: number,
            "anchor_id": number,
            "category": f"c{number}",
            "value": number / 8,
        }
        for number, (user, kind, eighth, late) in enumerate(drawn)
    ]
    days = range(2 * HORIZON + max(AGES_DAYS) + 2)
    bulk = run_kernel(events, days)
    tiles = run_kernel(events, days, of_eve=True)
    assert run_kernel([as_packed(tile) for tile in tiles], days) == bulk
    state: list[dict[str, Any]] = []
    carried = []
    for day in days:
        arrived = [tile for tile in tiles if (tile["dt"] - EPOCH).days == day]
        state = run_kernel([as_packed(row) for row in (*arrived, *state)], [day])
        carried += state
    assert carried == bulk
    assert bulk == naive_states(events, days)


def naive_states(events: list[dict[str, Any]], days: Sequence[int]) -> list[dict[str, Any]]:
    found = []
    for day in days:
        for user in range(USERS):
            for kind, action in sorted(enumerate(("watch", "gift")), key=lambda item: item[1]):
                start = day * DAY_MICROS
                own = sorted(
                    (e for e in events if e["user_id"] == user and e[KIND] == kind and e[DAY] < day),
                    key=lambda e: (e[AT], e[ORDER]),
                )
                own = [event for event in own if event[AT] >= start - AGES_DAYS[kind] * DAY_MICROS]
                settled = [event for event in own if event[AT] < start - LAG]
                kept = [*settled[-LENGTHS[kind] :], *own[len(settled) :]]
                if kept:
                    lists = zip(STATE_SCHEMA.names[3:], (AT, ORDER, "anchor_id", "category", "value"), strict=True)
                    arrays = {name: [event[column] for event in kept] for name, column in lists}
                    found.append({"dt": EPOCH + dt.timedelta(days=day), "user_id": user, "action": action, **arrays})
    return found


def test_a_user_with_a_million_events_keeps_the_last_ones() -> None:
    number = 1_000_000
    at = np.arange(number) * (DAY_MICROS // number)
    ids = pa.array(np.arange(number))
    columns = {KIND: pa.array(np.zeros(number, dtype=np.int32)), AT: pa.array(at), ORDER: ids, "anchor_id": ids}
    fixed = {"user_id": pa.array(np.full(number, 7)), DAY: pa.array(np.zeros(number, dtype=np.int32))}
    texts = {"category": pa.array(["music"] * number), "value": pa.array(np.ones(number))}
    chunk = Chunk(
        table=pa.table({**columns, **fixed, **texts}),
        segment=np.zeros(number, dtype=np.int64),
        kind=np.zeros(number, dtype=np.int64),
    )
    kernel = RecentKernel(
        days=((1, DAY_MICROS),),
        actions=("watch",),
        lengths=(50,),
        ages=(30 * DAY_MICROS,),
        lag=60 * MICROS,
        of_eve=False,
    )
    (batch,) = unpacked(kernel, chunk)
    kept = batch.column("action_id").to_pylist()
    # All of the last minute before midnight, and the 50 before it.
    assert kept == [list(range(int(np.searchsorted(at, DAY_MICROS - 60 * MICROS)) - 50, number))]
