"""Rooms as requests find them, from the raw logs of the rooms asked for, without a Spark session.

raw/rooms, raw/room_stats of the days in reach        files of ready days, filtered by room
rows too late to count, repeated minutes: left out    as pipeline/raw_input.py does
∪ requests, as one chunk of whole rooms               → the kernel that made the samples' room state
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from features import storage
from features.spark.asof_merge import AT, DAY, KIND, ORDER, QUERY, Chunk
from features.spark.event_time import MICROS, MINUTE_MICROS

# The name is shared as it is: to change it there would make every table stale (pipeline/context.py, COMPUTING).
from features.spark.room_state import MINUTES, ROOM_ROWS, STARTED, RoomKernel, _field_column
from features.spec import DType, Entity, Feature, Ids, RoomField, RoomLast, RoomSum
from pipeline.business_time import day_of_number, local_days, number_of_day
from pipeline.config import TimeConf, day_range
from pipeline.sources.raw_layout import DAY_COLUMN, READY_MARKER, day_folder

Int64s = NDArray[np.int64]
UTC_MICROS = pa.timestamp("us", tz="UTC")
ONE_DAY = datetime.timedelta(days=1)
UNKNOWN_ANCHOR = -1
ROOM_ANCHOR = Feature(
    name="room_anchor",
    entity=Entity.ROOM,
    op=RoomField(column="anchor_id"),
    dtype=DType.BIGINT,
    encoding=Ids(vocabulary="anchor"),
    default=UNKNOWN_ANCHOR,
    doc="Whose room it is: found as any other field of a room.",
)
"""No feature of the catalog: samples have the anchor of the impression."""

ARROW_TYPES = {
    DType.BIGINT: pa.int64(),
    DType.DOUBLE: pa.float64(),
    DType.STRING: pa.string(),
    DType.VECTOR: pa.list_(pa.float32()),
}


@dataclass(frozen=True, kw_only=True)
class RoomLogs:
    """What the raw logs say of some rooms.

    Attributes:
        rooms: [r] int64, the rooms that may be asked for, ascending.
        minutes, rows: events of the two kinds, in the order of a merge by room; `segment` numbers their rooms.
        missing: days in reach that are not ready, as "raw/<table> <day>": what happened then is not known.
    """

    features: tuple[Feature, ...]
    time: TimeConf
    rooms: Int64s
    minutes: pa.Table
    rows: pa.Table
    missing: tuple[str, ...]

    @classmethod
    def read(
        cls, warehouse: str, features: Iterable[Feature], time: TimeConf, *, rooms: Int64s, days: Sequence[int]
    ) -> RoomLogs:
        """The logs that requests of some business days for some rooms may see.

        Args:
            features: room features of the catalog; ROOM_ANCHOR is added.
            rooms: distinct.
            days: the first and the last business day of the requests, as numbers.
        """
        all_features = (*features, ROOM_ANCHOR)
        asked, first, last = np.sort(rooms), *(day_of_number(day) for day in days)
        first_row = None if time.max_room_age_days is None else first - ONE_DAY * time.max_room_age_days
        first_minute = first - ONE_DAY * (1 + time.max_lateness_days)  # the first copy of a minute counts
        fields = [f for f in all_features if isinstance(f.op, RoomField)]
        counted = dict.fromkeys(f.op.column for f in all_features if isinstance(f.op, RoomLast | RoomSum))
        found, late = _read(warehouse, "rooms", _ROOM_COLUMNS | _columns_of(fields), asked, first_row, last)
        heat, missing = pa.table({}), tuple(late)
        if counted:
            columns = {"room_id": pa.int64(), "minute": UTC_MICROS} | dict.fromkeys(counted, pa.int64())
            heat, late = _read(warehouse, "room_stats", columns, asked, first_minute, last)
            missing += tuple(late)
        return cls(
            features=all_features,
            time=time,
            rooms=asked,
            minutes=_minute_events(heat, asked, tuple(counted), time),
            rows=_room_events(found, asked, fields, time),
            missing=missing,
        )

    @property
    def anchors(self) -> Int64s:
        """Distinct anchors that any row names."""
        found: Int64s = np.unique(self.rows[_field_column(ROOM_ANCHOR)].drop_null().to_numpy())
        return found

    def state(self, rooms: Int64s, at: Int64s) -> pa.Table:
        """[n] rooms, [n] instants of requests → [n] rows of room features and `room_anchor`, in the requests' order.

        The features have their defaults, and the anchor is −1, where nothing of the room may be known yet.
        """
        lag = self.time.event_lag_seconds * MICROS
        queries = pa.table(
            {
                "segment": np.searchsorted(self.rooms, rooms),
                KIND: np.full(len(rooms), QUERY, dtype=np.int64),
                AT: at - lag,
                DAY: local_days(at, self.time.zone),
                "impression_id": np.arange(len(rooms)),
            }
        )
        events = [_of_segments(events, queries["segment"]) for events in (self.minutes, self.rows)]
        table = pa.concat_tables([queries, *events], promote_options="default").combine_chunks()
        segment, kind = (np.asarray(table[name].to_numpy(), dtype=np.int64) for name in ("segment", KIND))
        kernel = RoomKernel(features=self.features, lag=lag, max_room_age_days=self.time.max_room_age_days)
        (batch,) = kernel(Chunk(table=table, segment=segment, kind=kind))
        return pa.Table.from_batches([batch]).drop_columns(["impression_id"])


_ROOM_COLUMNS = {"room_id": pa.int64(), "started_at": UTC_MICROS, "ended_at": UTC_MICROS}


def _columns_of(fields: Iterable[Feature]) -> dict[str, pa.DataType]:
    return {f.op.column: ARROW_TYPES[f.dtype] for f in fields if isinstance(f.op, RoomField)}


def _read(
    warehouse: str,
    table: str,
    columns: dict[str, pa.DataType],
    rooms: Int64s,
    first: datetime.date | None,
    last: datetime.date,
) -> tuple[pa.Table, list[str]]:
    """Rows of some rooms that arrived from `first` to `last`, with `dt` as a day number; and days that are not ready.

    A warehouse's history may begin after `first`; None for all of it.
    """
    folder = storage.absolute(day_folder(warehouse, table, last)).rpartition("/")[0]
    known = [_day_of(name) for name in storage.list_folders(folder)]
    history = [day for day in known if day is not None]
    begin = max(first or datetime.date.min, min(history, default=last))
    parts, missing = [], []
    schema = pa.schema([*columns.items(), (DAY_COLUMN, pa.int64())])
    for day in day_range(begin, last):
        files = storage.list_files(f"{folder}/{DAY_COLUMN}={day.isoformat()}")
        if READY_MARKER not in {file.name for file in files}:
            missing.append(f"raw/{table} {day.isoformat()}")
            continue
        urls = [file.url for file in files if file.name[0] not in "_."]
        if not urls:
            continue
        paths = [storage.resolve(url)[1] for url in urls]
        rows = ds.dataset(paths, filesystem=storage.resolve(folder)[0], format="parquet").to_table(
            columns=list(columns), filter=ds.field("room_id").isin(pa.array(rooms))
        )
        dt = pa.array(np.full(len(rows), number_of_day(day)))
        parts.append(rows.append_column(DAY_COLUMN, dt).cast(schema))
    return pa.concat_tables([schema.empty_table(), *parts]).combine_chunks(), missing


def _day_of(folder: str) -> datetime.date | None:
    try:
        return datetime.date.fromisoformat(folder.removeprefix(f"{DAY_COLUMN}="))
    except ValueError:
        return None


def _of_segments(events: pa.Table, segments: pa.ChunkedArray) -> pa.Table:
    return events.filter(pc.is_in(events["segment"], value_set=pc.unique(segments)))


def _micros(column: pa.ChunkedArray) -> Int64s:
    values: Int64s = column.combine_chunks().cast(pa.int64()).to_numpy(zero_copy_only=False)
    return values


def _in_time(rows: pa.Table, happened: Int64s, time: TimeConf) -> NDArray[np.bool_]:
    """Which rows did not arrive too late to count."""
    arrived = rows[DAY_COLUMN].to_numpy()
    return np.asarray(arrived - local_days(happened, time.zone) <= time.max_lateness_days)


def _minute_events(rows: pa.Table, rooms: Int64s, counted: tuple[str, ...], time: TimeConf) -> pa.Table:
    """Of the copies of a minute the first to arrive; ascending in (room, minute)."""
    if not counted:
        rows = pa.table({name: pa.array([], pa.int64()) for name in ("room_id", "minute", DAY_COLUMN)})
    minute = _micros(rows["minute"])
    kept = np.flatnonzero(_in_time(rows, minute, time))
    rows, minute = rows.take(pa.array(kept)), minute[kept]
    segment = np.searchsorted(rooms, rows["room_id"].to_numpy())
    order = np.lexsort((rows[DAY_COLUMN].to_numpy(), minute, segment))
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = (np.diff(segment[order]) != 0) | (np.diff(minute[order]) != 0)
    order = order[is_first]
    rows, dt = rows.take(pa.array(order)), rows[DAY_COLUMN].to_numpy()[order]
    return pa.table(
        {
            "segment": segment[order],
            KIND: np.full(len(order), MINUTES, dtype=np.int64),
            AT: minute[order] + MINUTE_MICROS,
            DAY: dt,
            ORDER: dt,
            **{name: pc.fill_null(rows[name], 0) for name in counted},
        }
    )


def _room_events(rows: pa.Table, rooms: Int64s, fields: Sequence[Feature], time: TimeConf) -> pa.Table:
    """Ascending in (room, happened, arrival), and then in the values, null lowest: as Spark sorts the merge."""
    started = _micros(rows["started_at"])
    happened = np.maximum(started, _micros(pc.fill_null(rows["ended_at"].cast(pa.int64()), 0)))
    kept = np.flatnonzero(_in_time(rows, happened, time))
    rows, started, happened = rows.take(pa.array(kept)), started[kept], happened[kept]
    segment, dt = np.searchsorted(rooms, rows["room_id"].to_numpy()), rows[DAY_COLUMN].to_numpy()
    values = {_field_column(f): rows[f.op.column] for f in fields if isinstance(f.op, RoomField)}
    ties = zip(*(column.to_pylist() for column in values.values()), strict=True)
    keys = list(zip(segment, happened, dt, started, (tuple(map(_null_lowest, row)) for row in ties), strict=True))
    order = pa.array(np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64))
    events = pa.table(
        {
            "segment": segment,
            KIND: np.full(len(keys), ROOM_ROWS, dtype=np.int64),
            AT: happened,
            DAY: dt,
            ORDER: dt,
            STARTED: started,
            **values,
        }
    )
    return events.take(order)


def _null_lowest(value: object) -> tuple[object, ...]:
    return () if value is None else (value,)
