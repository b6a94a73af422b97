"""Rooms as requests find them, read without a Spark session: what the naive oracle says of the same moments."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.schema import Catalog, load_catalog
from features.spec import Entity
from pipeline.config import TimeConf
from pipeline.room_logs import ROOM_ANCHOR, RoomLogs
from tests.features.random_logs import random_logs
from tests.oracle.room_state import expected_room_state
from tests.pipeline.raw_rows import ZONE
from tests.small_world import SHAPE, raw_folder, write_raw

CATALOG = load_catalog()
FEATURES = CATALOG.of_entity(Entity.ROOM)
WITH_ANCHOR = Catalog(features=(*FEATURES, ROOM_ANCHOR), sequences=(), labels=())
SEED = 5


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("rooms")
    write_raw(made, SEED)
    return made


def asked(first: str, last: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], Any]:
    """Rooms and instants of the impressions of some days, and the logs that hold only those impressions."""
    logs = random_logs(SEED, SHAPE)
    ts = logs["impressions"]["ts"]
    shown = logs["impressions"][(ts >= first) & (ts < last)].iloc[:300]
    at = shown["ts"].dt.tz_localize(ZONE).astype("int64").to_numpy()
    assert shown["ts"].dtype == "datetime64[us]"
    return shown["room_id"].to_numpy(), at, logs | {"impressions": shown}


@pytest.mark.parametrize("max_room_age_days", [None, 7, 1])
def test_rooms_are_those_of_the_oracle(warehouse: Path, max_room_age_days: int | None) -> None:
    rooms, at, logs = asked("2025-03-03", "2025-03-06")
    time = TimeConf(zone=ZONE, max_room_age_days=max_room_age_days)
    days = [(datetime.date(2025, 3, day) - datetime.date(1970, 1, 1)).days for day in (3, 5)]
    found = RoomLogs.read(str(warehouse), FEATURES, time, rooms=np.unique(rooms), days=days)
    assert found.missing == ()
    expected = expected_room_state(WITH_ANCHOR, logs, time.event_lag_seconds, max_room_age_days)
    state = found.state(rooms, at).to_pylist()
    wanted = [expected[row] for row in logs["impressions"]["impression_id"]]
    for name in wanted[0]:
        assert [row[name] for row in state] == [row[name] for row in wanted], name
        assert len({str(row[name]) for row in state}) > 2
    known = {row[ROOM_ANCHOR.name] for row in state} - {ROOM_ANCHOR.default}
    assert known <= set(found.anchors.tolist())


def test_days_that_are_not_ready_are_named_and_not_read(warehouse: Path) -> None:
    rooms, at, _ = asked("2025-03-05", "2025-03-06")
    marker = raw_folder(warehouse, "room_stats", datetime.date(2025, 3, 5)) / "_SUCCESS"
    marker.unlink()
    day = (datetime.date(2025, 3, 5) - datetime.date(1970, 1, 1)).days
    try:
        found = RoomLogs.read(str(warehouse), FEATURES, TimeConf(), rooms=np.unique(rooms), days=[day, day])
    finally:
        marker.touch()
    assert found.missing == ("raw/room_stats 2025-03-05",)
    whole = RoomLogs.read(str(warehouse), FEATURES, TimeConf(), rooms=np.unique(rooms), days=[day, day])
    viewers = [np.array(logs.state(rooms, at)["room_viewers"].to_pylist()) for logs in (found, whole)]
    assert (viewers[0] != viewers[1]).any()
