"""Raw days to measure on: a platform of a given size whose users come back to the anchors they know.

Every arrival day is a function of (seed, day) alone, so days are written one by one and an interrupted run goes on
where it stopped. What makes incremental work easy or hard is stated, not hidden:
  active     each user is active or not for RUN_DAYS days at a time, a fifth of the users on any day; so about
             (1 − active share) / RUN_DAYS of the users of a day were not there the day before (churn)
  new pairs  NEW_SHARE of the (user, anchor) draws are of any anchor, the others of the user's FAVOURITES
  late       LATE of the rows arrive one or two days after they happened
A skewed copy has the same volume, with one anchor in 20 % of all rows and one user with a million events in 30 days.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.sources.raw_layout import READY_MARKER

ZONE = "Asia/Shanghai"
FIRST_DAY = dt.date(2025, 1, 1)
MICROS = 1_000_000
DAY_MICROS = 86_400 * MICROS

ACTIVE_SHARE, RUN_DAYS = 0.2, 5
FAVOURITES, NEW_SHARE = 10, 0.05
LATE = (0.97, 0.02, 0.01)
ACTIONS = ("enter", "watch", "like", "comment", "gift", "share", "follow")
ACTION_SHARES = (0.30, 0.30, 0.16, 0.12, 0.05, 0.04, 0.03)
CATEGORIES = tuple(f"category_{number:02d}" for number in range(12))
ON_AIR_SHARE = 0.7
HOT_ANCHOR, HOT_ANCHOR_SHARE = 7, 0.2
HOT_USER, HOT_USER_EVENTS, HOT_USER_DAYS = 11, 1_000_000, 30
ROW_GROUP = 250_000

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large the platform is.

    Attributes:
        actions: rows of the actions table a day; half as many impressions.
        days: the last one is number days − 1.
        first: number of the first day to write.
        minutes: minutes per room and day that room_stats has rows for.
    """

    actions: int
    days: int
    users: int = 200_000
    anchors: int = 20_000
    first: int = 0
    minutes: int = 20
    is_skewed: bool = False
    seed: int = 20250101

    @property
    def name(self) -> str:
        """Folder of the data."""
        skew = "-skewed" if self.is_skewed else ""
        return f"{self.first}-{self.days}x{self.actions}-{self.users}-{self.anchors}-{self.minutes}{skew}"

    @property
    def day_list(self) -> list[dt.date]:
        """Arrival days."""
        return [FIRST_DAY + dt.timedelta(days=number) for number in range(self.first, self.days)]

    @property
    def hot_user_share(self) -> float:
        """Of a day's actions; a million events in HOT_USER_DAYS days at a million actions a day, in proportion else."""
        return HOT_USER_EVENTS / HOT_USER_DAYS / 1_000_000


def write_raw_days(size: Size, root: Path, progress: Callable[[], None]) -> Path:
    """The raw tables of a size below `root`; days that are complete are left alone.

    Returns:
        The warehouse.
    """
    warehouse = root / size.name
    for day in size.day_list:
        for table, make in _TABLES.items():
            folder = warehouse / "raw" / table / f"dt={day.isoformat()}"
            marker = folder / READY_MARKER
            if not marker.exists():
                folder.mkdir(parents=True, exist_ok=True)
                pq.write_table(make(size, day), folder / "part-0.parquet", row_group_size=ROW_GROUP, compression="zstd")
                marker.touch()
        progress()
    return warehouse


def midnight(day: dt.date) -> int:
    """Micros since 1970 UTC at which a business day begins."""
    return int(dt.datetime.combine(day, dt.time(), ZoneInfo(ZONE)).timestamp()) * MICROS


def _rng(size: Size, day: dt.date, salt: int) -> np.random.Generator:
    return np.random.default_rng((size.seed, day.toordinal(), salt))


def _hashed(values: Ints, salt: int) -> NDArray[np.float64]:
    """A fixed number in [0, 1) for each value (splitmix64)."""
    mixed = values.astype(np.uint64) + np.uint64(salt * 0x9E3779B97F4A7C15 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11), dtype=np.float64) / 2.0**53


def active_users(size: Size, day: dt.date) -> Ints:
    """Ids of the users who do something on a day."""
    users = np.arange(size.users, dtype=np.int64)
    run = (day.toordinal() + users % RUN_DAYS) // RUN_DAYS
    return users[_hashed(users * 100_003 + run, 1) < ACTIVE_SHARE]


def _visits(size: Size, day: dt.date, rows: int, salt: int) -> tuple[np.random.Generator, Ints, Ints, Ints, Ints]:
    """Generator, user, anchor, room and ts of `rows` rows that arrive on a day."""
    rng = _rng(size, day, salt)
    active = active_users(size, day)
    user = active[(rng.random(rows) ** 1.5 * active.size).astype(np.int64)]
    favourite = (rng.random(rows) ** 2 * FAVOURITES).astype(np.int64)
    anchor = (_hashed(user * FAVOURITES + favourite, 2) ** 1.5 * size.anchors).astype(np.int64)
    anchor = np.where(rng.random(rows) < NEW_SHARE, rng.integers(0, size.anchors, rows), anchor)
    if size.is_skewed:
        user = np.where(rng.random(rows) < size.hot_user_share, HOT_USER, user)
        anchor = np.where(rng.random(rows) < HOT_ANCHOR_SHARE, HOT_ANCHOR, anchor)
    late = rng.choice(len(LATE), size=rows, p=LATE)
    late = np.minimum(late, (day - FIRST_DAY).days)
    ts = midnight(day) - late * DAY_MICROS + rng.integers(0, DAY_MICROS, rows)
    return rng, user, anchor, _room(day, anchor, late), ts


def _room(day: dt.date, anchor: Ints, late: Ints) -> Ints:
    return (day.toordinal() - late) * 1_000_000 + anchor


def _ids(day: dt.date, rows: int) -> Ints:
    return day.toordinal() * 100_000_000 + np.arange(rows, dtype=np.int64)


def _instants(micros: Ints) -> pa.Array:
    return pa.array(micros, type=pa.timestamp("us", tz="UTC"))


def _actions(size: Size, day: dt.date) -> pa.Table:
    rng, user, anchor, room, ts = _visits(size, day, size.actions, 3)
    kind = rng.choice(len(ACTIONS), size=size.actions, p=ACTION_SHARES)
    seconds = np.round(rng.exponential(60, size.actions), 3)
    coins = rng.integers(1, 500, size.actions).astype(np.float64)
    value = np.where(kind == ACTIONS.index("watch"), seconds, np.where(kind == ACTIONS.index("gift"), coins, 1.0))
    shown = day.toordinal() * 100_000_000 + rng.integers(0, max(1, size.actions // 2), size.actions)
    return pa.table(
        {
            "action_id": _ids(day, size.actions),
            "impression_id": pa.array(shown, mask=rng.random(size.actions) < 0.1),
            "user_id": user,
            "anchor_id": anchor,
            "room_id": room,
            "ts": _instants(ts),
            "action": pa.array(ACTIONS).take(pa.array(kind)),
            "value": value,
        }
    )


def _impressions(size: Size, day: dt.date) -> pa.Table:
    rows = size.actions // 2
    rng, user, anchor, room, ts = _visits(size, day, rows, 4)
    return pa.table(
        {
            "impression_id": _ids(day, rows),
            "user_id": user,
            "anchor_id": anchor,
            "room_id": room,
            "ts": _instants(ts),
            "scene": pa.array(["feed", "search", "follow"]).take(pa.array(rng.integers(0, 3, rows))),
            "device": pa.array(["phone", "tablet"]).take(pa.array(rng.integers(0, 2, rows))),
            "position": rng.integers(0, 30, rows).astype(np.int32),
        }
    )


def _shows(size: Size, day: dt.date) -> tuple[Ints, Ints, Ints]:
    """Anchor, start and end of the rooms of a day."""
    rng = _rng(size, day, 5)
    anchor = np.flatnonzero(rng.random(size.anchors) < ON_AIR_SHARE)
    started = midnight(day) + rng.integers(0, 20 * 3600, anchor.size) * MICROS
    return anchor, started, started + rng.integers(1800, 3 * 3600, anchor.size) * MICROS


def _rooms(size: Size, day: dt.date) -> pa.Table:
    """A row when a room starts, another when it ends; a room that is on air at midnight ends there."""
    anchor, started, ended = _shows(size, day)
    ended = np.minimum(ended, midnight(day) + DAY_MICROS - 1)
    once = np.concatenate((np.zeros(anchor.size, dtype=bool), np.ones(anchor.size, dtype=bool)))
    twice = np.concatenate((anchor, anchor))
    category = (_hashed(twice, 6) * len(CATEGORIES)).astype(np.int64)
    # One room in ten gets another category when it ends: an event before that must not know.
    corrected = once & (_hashed(twice + day.toordinal() * 100_003, 7) < 0.1)
    category = np.where(corrected, (category + 1) % len(CATEGORIES), category)
    none = pa.nulls(twice.size)
    return pa.table(
        {
            "room_id": _room(day, twice, np.zeros(twice.size, dtype=np.int64)),
            "anchor_id": twice,
            "started_at": _instants(np.concatenate((started, started))),
            "ended_at": pa.array(np.concatenate((ended, ended)), mask=~once).cast(pa.timestamp("us", tz="UTC")),
            "category": pa.array(CATEGORIES).take(pa.array(category)),
            "tags": none.cast(pa.list_(pa.string())),
            "content": none.cast(pa.list_(pa.float32())),
        }
    )


def _room_stats(size: Size, day: dt.date) -> pa.Table:
    anchor, started, _ = _shows(size, day)
    minute = np.repeat(started // (60 * MICROS), size.minutes) + np.tile(np.arange(size.minutes), anchor.size)
    inside = minute * 60 * MICROS + 60 * MICROS <= midnight(day) + DAY_MICROS
    rng = _rng(size, day, 8)
    counts = {name: rng.integers(0, 50, minute.size) for name in ("viewers", "entries", "comments", "gift_coins")}
    room = np.repeat(_room(day, anchor, np.zeros(anchor.size, dtype=np.int64)), size.minutes)
    table = pa.table({"room_id": room, "minute": _instants(minute * 60 * MICROS), **counts})
    return table.filter(pa.array(inside))


_TABLES: dict[str, Callable[[Size, dt.date], pa.Table]] = {
    "actions": _actions,
    "impressions": _impressions,
    "rooms": _rooms,
    "room_stats": _room_stats,
}
