"""Small random raw tables that meet what real logs do: late rows, empty days, equal timestamps, midnight, actions
without an impression, users and rooms that no table knows, snapshots that are missing for a day.

Timestamps are naive and in the business time zone; `dt` is the arrival day. Everything is a function of the seed.
Logs of several seeds are joined with disjoint ids, so that one Spark job judges many of them.
"""

from __future__ import annotations

import datetime as dt
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline.sources.raw_layout import RAW_TABLES, SAMPLED_NEGATIVE

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

RawLogs = dict[str, pd.DataFrame]

LOG_STRIDE = 1_000_000
"""Ids of log k lie in [k × LOG_STRIDE, (k + 1) × LOG_STRIDE)."""

ID_COLUMNS = ("impression_id", "action_id", "user_id", "anchor_id", "room_id")
CATEGORIES = ("dance", "games", "music", "talk")
FOLLOW_UPS = ("gift", "follow", "comment", "like", "share")


@dataclass(frozen=True, kw_only=True)
class LogShape:
    """How large and how unruly a random log is.

    Attributes:
        max_lateness_days: largest dt − date of ts.
        quiet_share: share of days on which nothing happens.
    """

    first_day: dt.date = dt.date(2024, 2, 25)
    days: int = 9
    users: int = 4
    anchors: int = 3
    rooms: int = 7
    impressions: int = 60
    max_lateness_days: int = 3
    quiet_share: float = 0.2
    sampled_negatives: bool = True


def random_logs(seed: int, shape: LogShape | None = None) -> RawLogs:
    """One frame per raw table, in the columns of the contract plus `dt`."""
    draw = _Draw(seed, shape or LogShape())
    rooms = draw.rooms()
    impressions = draw.impressions(rooms)
    return {
        "impressions": impressions,
        "actions": draw.actions(impressions, rooms),
        "users": draw.users(),
        "anchors": draw.anchors(),
        "rooms": draw.room_rows(rooms),
        "room_stats": draw.room_stats(rooms),
    }


def many_logs(seeds: Iterable[int], shape: LogShape | None = None) -> RawLogs:
    """The logs of all seeds in one set of tables; log k (in the order of `seeds`) has its ids moved by k strides."""
    return joined(moved(random_logs(seed, shape), place * LOG_STRIDE) for place, seed in enumerate(seeds))


def moved(logs: Mapping[str, pd.DataFrame], by: int) -> RawLogs:
    """A copy with `by` added to every id."""
    return {
        name: frame.assign(**{column: frame[column] + by for column in ID_COLUMNS if column in frame})
        for name, frame in logs.items()
    }


def joined(logs: Iterable[Mapping[str, pd.DataFrame]]) -> RawLogs:
    """Rows of all logs, table by table."""
    parts = list(logs)
    return {name: pd.concat([part[name] for part in parts], ignore_index=True) for name in parts[0]}


def to_spark(spark: SparkSession, logs: Mapping[str, pd.DataFrame]) -> dict[str, DataFrame]:
    """The frames as Spark sees the raw tables: types of the contract, `dt` a date, naive times in the session zone."""
    return {name: frame_to_spark(spark, name, frame) for name, frame in logs.items()}


def frame_to_spark(spark: SparkSession, table: str, frame: pd.DataFrame) -> DataFrame:
    """One raw table; see `to_spark`."""
    from pyspark.sql.types import BooleanType, DateType, StructField, StructType

    further = [StructField("dt", DateType(), nullable=False)]
    if SAMPLED_NEGATIVE in frame:
        further.append(StructField(SAMPLED_NEGATIVE, BooleanType()))
    schema = StructType([*RAW_TABLES[table].columns.fields, *further])
    with warnings.catch_warnings():
        # pyspark 3.5 asks pandas 2.2 for the kind of a column in a way that pandas has deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        return spark.createDataFrame(frame[schema.fieldNames()], schema=schema)


class _Draw:
    """Draws one log. The order of the calls is part of the function of the seed."""

    def __init__(self, seed: int, shape: LogShape) -> None:
        self.rng = np.random.default_rng(seed)
        self.shape = shape
        self.days = [shape.first_day + dt.timedelta(days=offset) for offset in range(shape.days)]
        busy = [day for day in self.days if self.rng.random() >= shape.quiet_share]
        self.busy = busy or self.days[:1]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def moment(self) -> dt.datetime:
        """Mostly on a coarse grid (equal timestamps), at times midnight or the last microsecond of a day."""
        day = dt.datetime.combine(self.busy[int(self.rng.integers(len(self.busy)))], dt.time())
        kind = self.rng.random()
        if kind < 0.05:
            return day
        if kind < 0.10:
            return day + dt.timedelta(days=1, microseconds=-1)
        if kind < 0.60:
            return day + dt.timedelta(minutes=30 * int(self.rng.integers(48)))
        return day + dt.timedelta(microseconds=int(self.rng.integers(86_400_000_000)))

    def arrival(self, happened: dt.datetime) -> dt.date:
        """Three of four rows arrive on their day."""
        late = 0 if self.chance(0.75) else int(self.rng.integers(1, self.shape.max_lateness_days + 1))
        return happened.date() + dt.timedelta(days=late)

    def rooms(self) -> pd.DataFrame:
        """One row per session: room_id, anchor_id, started_at, ended_at (NaT: still on air), category."""
        rows = []
        for room_id in range(1, self.shape.rooms + 1):
            started = self.moment()
            length = dt.timedelta(seconds=int(self.rng.integers(60, 30 * 3600)))
            rows.append(
                {
                    "room_id": room_id,
                    "anchor_id": int(self.rng.integers(1, self.shape.anchors + 1)),
                    "started_at": started,
                    "ended_at": None if self.chance(0.2) else started + length,
                    "category": self.rng.choice(CATEGORIES),
                }
            )
        return _typed(pd.DataFrame(rows), "room_id", "anchor_id")

    def impressions(self, rooms: pd.DataFrame) -> pd.DataFrame:
        rows = []
        for impression_id in range(1, self.shape.impressions + 1):
            room_id, anchor_id = self._room(rooms)
            ts = self.moment()
            rows.append(
                {
                    "impression_id": impression_id,
                    "user_id": int(self.rng.integers(1, self.shape.users + 1)),
                    "anchor_id": anchor_id,
                    "room_id": room_id,
                    "ts": ts,
                    "scene": self.rng.choice(["feed", "search"]) if self.chance(0.9) else None,
                    "device": self.rng.choice(["phone", "tablet"]) if self.chance(0.9) else None,
                    "position": int(self.rng.integers(0, 40)) if self.chance(0.9) else None,
                    "dt": self.arrival(ts),
                    SAMPLED_NEGATIVE: self.chance(0.1),
                }
            )
        frame = _typed(pd.DataFrame(rows), "impression_id", "user_id", "anchor_id", "room_id", position="Int32")
        return frame if self.shape.sampled_negatives else frame.drop(columns=[SAMPLED_NEGATIVE])

    def _room(self, rooms: pd.DataFrame) -> tuple[int, int]:
        """A room and its anchor; one in ten is a room that the rooms table does not know."""
        if self.chance(0.1):
            return self.shape.rooms + 1, int(self.rng.integers(1, self.shape.anchors + 2))
        row = rooms.iloc[int(self.rng.integers(len(rooms)))]
        return int(row["room_id"]), int(row["anchor_id"])

    def actions(self, impressions: pd.DataFrame, rooms: pd.DataFrame) -> pd.DataFrame:
        """Follow-ups of impressions, some without their impression_id, and some out of the blue."""
        rows: list[dict[str, object]] = []
        for shown in impressions.to_dict("records"):
            where: dict[str, object] = {name: shown[name] for name in ("user_id", "anchor_id", "room_id")}
            where["impression_id"] = None if self.chance(0.2) else shown["impression_id"]
            if self.chance(0.5):
                rows.extend(self._visit(where, shown["ts"].to_pydatetime()))
        for _ in range(self.shape.impressions // 10):
            room_id, anchor_id = self._room(rooms)
            user_id = int(self.rng.integers(1, self.shape.users + 2))
            blue: dict[str, object] = {"user_id": user_id, "anchor_id": anchor_id, "room_id": room_id}
            rows.append(
                self._action({**blue, "impression_id": None}, self.rng.choice(["enter", *FOLLOW_UPS]), self.moment())
            )
        for action_id, row in enumerate(rows, start=1):
            row["action_id"] = action_id
        frame = pd.DataFrame(rows, columns=[*RAW_TABLES["actions"].column_names(), "dt"])
        frame = _typed(frame, "action_id", "user_id", "anchor_id", "room_id", impression_id="Int64", value="float64")
        return frame.sample(frac=1.0, random_state=int(self.rng.integers(2**31))).reset_index(drop=True)

    def _visit(self, where: dict[str, object], shown: dt.datetime) -> Iterable[dict[str, object]]:
        """What may follow an impression: an enter, a watch (ts is its end), further actions within it."""
        enters = self.chance(0.8)
        if enters:
            yield self._action(where, "enter", shown + self._seconds(60))
        seconds = float(self.rng.choice([0.0, 1.9995, 2.0, 30.0, round(self.rng.exponential(120), 4)]))
        if self.chance(0.8):
            yield self._action(where, "watch", shown + dt.timedelta(seconds=seconds), seconds)
        for action in FOLLOW_UPS:
            if self.chance(0.25):
                coins = float(self.rng.integers(0, 500)) if action == "gift" else 1.0
                yield self._action(where, action, shown + self._seconds(30 * 3600 if self.chance(0.1) else 600), coins)

    def _seconds(self, below: int) -> dt.timedelta:
        return dt.timedelta(seconds=int(self.rng.integers(below)))

    def _action(
        self, where: dict[str, object], action: str, happened: dt.datetime, value: float = 1.0
    ) -> dict[str, object]:
        return {**where, "action": action, "ts": happened, "value": value, "dt": self.arrival(happened)}

    def users(self) -> pd.DataFrame:
        """Daily snapshots without the last user, who has no profile; some days are missing."""
        rows = [
            {
                "user_id": user_id,
                "gender": self._maybe(["f", "m"]),
                "city": self._maybe(["beijing", "chengdu", "shanghai"]),
                "device": self._maybe(["phone", "tablet"]),
                "age": int(self.rng.integers(16, 70)) if self.chance(0.8) else None,
                "registered_on": day - dt.timedelta(days=int(self.rng.integers(400))) if self.chance(0.8) else None,
                "dt": day,
            }
            for day in self._snapshot_days()
            for user_id in range(1, self.shape.users)
        ]
        frame = pd.DataFrame(rows, columns=[*RAW_TABLES["users"].column_names(), "dt"])
        return _typed(frame, "user_id", age="Int32")

    def anchors(self) -> pd.DataFrame:
        """Daily snapshots of all anchors; some days are missing."""
        rows = [
            {
                "anchor_id": anchor_id,
                "gender": self._maybe(["f", "m"]),
                "city": self._maybe(["beijing", "chengdu", "shanghai"]),
                "category": self._maybe(list(CATEGORIES)),
                "age": int(self.rng.integers(18, 60)) if self.chance(0.8) else None,
                "level": int(self.rng.integers(0, 60)) if self.chance(0.8) else None,
                "signed_on": day - dt.timedelta(days=int(self.rng.integers(400))) if self.chance(0.8) else None,
                "dt": day,
            }
            for day in self._snapshot_days()
            for anchor_id in range(1, self.shape.anchors + 1)
        ]
        frame = pd.DataFrame(rows, columns=[*RAW_TABLES["anchors"].column_names(), "dt"])
        return _typed(frame, "anchor_id", age="Int32", level="Int32")

    def _maybe(self, values: list[str]) -> str | None:
        return str(self.rng.choice(values)) if self.chance(0.85) else None

    def _snapshot_days(self) -> list[dt.date]:
        """The day before the first is always there, so that every day has a snapshot."""
        before = self.shape.first_day - dt.timedelta(days=1)
        return [before, *(day for day in self.days if self.chance(0.8))]

    def room_rows(self, rooms: pd.DataFrame) -> pd.DataFrame:
        """A row when the room starts, another when it ends; a category may be corrected on the way."""
        rows = []
        for room in rooms.to_dict("records"):
            started, ended = room["started_at"].to_pydatetime(), room["ended_at"]
            fields = {
                **room,
                "tags": [str(tag) for tag in self.rng.choice(["new", "hot", "pk"], size=int(self.rng.integers(3)))],
                "content": self.rng.random(8).astype("float32").tolist() if self.chance(0.7) else None,
            }
            rows.append({**fields, "ended_at": None, "dt": self.arrival(started)})
            if self.chance(0.3):
                corrected = str(self.rng.choice(CATEGORIES)) if self.chance(0.8) else None
                rows.append({**fields, "ended_at": None, "category": corrected, "dt": self.arrival(started)})
            if not pd.isna(ended):
                rows.append({**fields, "dt": self.arrival(ended.to_pydatetime())})
        frame = pd.DataFrame(rows, columns=[*RAW_TABLES["rooms"].column_names(), "dt"])
        return _typed(frame, "room_id", "anchor_id")

    def room_stats(self, rooms: pd.DataFrame) -> pd.DataFrame:
        """Some minutes of each room; not every minute has a row."""
        rows = []
        for room in rooms.to_dict("records"):
            first = room["started_at"].to_pydatetime().replace(second=0, microsecond=0)
            for minute in sorted({int(self.rng.exponential(120)) for _ in range(12)}):
                at = first + dt.timedelta(minutes=minute)
                viewers, entries, comments, coins = (int(self.rng.integers(50)) for _ in range(4))
                rows.append(
                    {
                        "room_id": room["room_id"],
                        "minute": at,
                        "viewers": viewers,
                        "entries": entries,
                        "comments": comments,
                        "gift_coins": coins,
                        "dt": self.arrival(at + dt.timedelta(seconds=60)),
                    }
                )
        return _typed(pd.DataFrame(rows), "room_id", "viewers", "entries", "comments", "gift_coins")


def _typed(frame: pd.DataFrame, *int64: str, **types: str) -> pd.DataFrame:
    """Dtypes that survive nulls and empty frames; times in microseconds, like the raw Parquet."""
    times = {name: "datetime64[us]" for name in ("ts", "started_at", "ended_at", "minute") if name in frame}
    return frame.astype({**dict.fromkeys(int64, "int64"), **types, **times})
