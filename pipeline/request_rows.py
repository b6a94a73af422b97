"""Requests joined with the serving tables of a morning → rows of raw features, as samples have them.

    request             → day, hour, weekday; its own columns
    ⋈ rooms             → anchor, category, content, heat: what the request brings, else the raw logs
    ⋈ serving tables    → user, anchor, user × category, user × anchor, by places of keys
    sequences           → the served events that the request may see, with their ages, newest first

What no table knows has the catalog's default, and is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.errors import DataError, Problem
from features.schema import Catalog, sequence_name
from features.spark.asof_merge import take_or_default
from features.spark.event_time import DAY_MICROS, MICROS
from features.spec import (
    TILED_ENTITIES,
    DayOfWeek,
    Entity,
    Feature,
    Field,
    HourOfDay,
    SequenceFeature,
    SequenceField,
    SnapshotOp,
    WindowOp,
)
from pipeline.business_time import local_micros
from pipeline.config import TimeConf
from pipeline.requests import ANCHOR, ROOM, ROW_ID, TIME, USER
from pipeline.room_logs import ARROW_TYPES, ROOM_ANCHOR, UNKNOWN_ANCHOR, RoomLogs
from pipeline.served import ServedRows

Int64s = NDArray[np.int64]
DAY_COLUMN = "dt"
EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday, and 0 is Monday
CATEGORY = "category"


@dataclass(frozen=True, kw_only=True)
class WantedParts:
    """What a model reads, by where it comes from.

    Attributes:
        own, room: features of the impression itself, of its room.
        served: entity → features; entities of which nothing is read are not there.
        sequences: cut down to the fields that are read.
    """

    own: tuple[Feature, ...]
    room: tuple[Feature, ...]
    served: Mapping[Entity, tuple[Feature, ...]]
    sequences: tuple[SequenceFeature, ...]

    @classmethod
    def of(cls, catalog: Catalog, columns: Collection[str]) -> WantedParts:
        """From the columns that a model reads.

        Raises:
            DataError: the catalog has no declaration of some of them.
        """
        known = catalog.only(columns)
        names = {f.name for f in known.features}
        names |= {sequence_name(s.name, f.name) for s in known.sequences for f in s.fields}
        strangers = [name for name in columns if name not in names and name not in (USER, ANCHOR)]
        if strangers:
            remedy = "Join with the catalog that the model was trained with, or score whole rows"
            what = "the model reads columns that the catalog here does not declare"
            raise DataError(
                [Problem(table="catalog", what=what, count=len(strangers), examples=strangers, remedy=remedy)]
            )
        served = {
            entity: features
            for entity in TILED_ENTITIES
            if (features := tuple(f for f in known.of_entity(entity) if isinstance(f.op, WindowOp | SnapshotOp)))
        }
        room = known.of_entity(Entity.ROOM)
        keyed = {catalog.key_column(key) for entity in served for key in entity.keys}
        room += tuple(f for f in catalog.of_entity(Entity.ROOM) if f.name in keyed and f not in room)
        return cls(own=known.of_entity(Entity.IMPRESSION), room=room, served=served, sequences=known.sequences)

    @property
    def entities(self) -> tuple[Entity, ...]:
        """Whose serving tables are read."""
        return tuple(e for e in TILED_ENTITIES if e in self.served or (e is Entity.USER and self.sequences))

    def columns_of(self, entity: Entity) -> pa.Schema:
        """Keys, features and sequences to read of a serving table."""
        keys = {key: pa.string() if key == CATEGORY else pa.int64() for key in entity.keys}
        columns = keys | {f.name: ARROW_TYPES[f.dtype] for f in self.served.get(entity, ())}
        if entity is Entity.USER:
            for sequence in self.sequences:
                columns[f"{sequence.name}_at"] = pa.list_(pa.int64())
                stored = (f for f in sequence.fields if f.source != "age_s")
                columns |= {sequence_name(sequence.name, f.name): pa.list_(ARROW_TYPES[f.dtype]) for f in stored}
        return pa.schema(list(columns.items()))


@dataclass(frozen=True, kw_only=True)
class Joiner:
    """Makes rows of requests; `unknown` counts the requests whose user, anchor or room no table knows."""

    wanted: WantedParts
    catalog: Catalog
    time: TimeConf
    tables: Mapping[Entity, ServedRows]
    rooms: RoomLogs | None
    unknown: Counter[str] = field(default_factory=Counter)

    def rows(self, requests: pa.Table) -> pa.Table:
        """[n] checked requests → [n] rows: `dt`, impression_id where they have one, and what is wanted."""
        at: Int64s = requests[TIME].combine_chunks().cast(pa.int64()).to_numpy()
        clock = local_micros(at, self.time.zone)
        columns = {DAY_COLUMN: pa.array((clock // DAY_MICROS).astype(np.int32)).cast(pa.date32())}
        if ROW_ID in requests.column_names:
            columns[ROW_ID] = requests[ROW_ID].combine_chunks()
        room = self._room(requests, at)
        anchors = self._anchors(requests, room)
        columns |= {f.name: room[f.name] for f in self.wanted.room}
        columns |= {USER: requests[USER].combine_chunks(), ANCHOR: anchors}
        columns |= {f.name: _own(f, requests, clock) for f in self.wanted.own if f.name not in columns}
        for entity in self.wanted.entities:
            keys = {key: columns[self.catalog.key_column(key)] for key in entity.keys}
            places = self._places(entity, keys)
            table = self.tables[entity].rows
            for feature in self.wanted.served.get(entity, ()):
                columns[feature.name] = take_or_default(table[feature.name].combine_chunks(), places, feature.default)
            if entity is Entity.USER:
                for sequence in self.wanted.sequences:
                    columns |= dict(self._sequence(sequence, table, places, at))
        return pa.table(columns)

    def _room(self, requests: pa.Table, at: Int64s) -> Mapping[str, pa.Array]:
        """Room features: what a request brings, else what the logs say, else the default."""
        found: dict[str, pa.Array] = {}
        logged = self.rooms.state(requests[ROOM].to_numpy(), at) if self.rooms is not None else None
        if logged is not None:
            found[ROOM_ANCHOR.name] = logged[ROOM_ANCHOR.name].combine_chunks()
            is_unknown = found[ROOM_ANCHOR.name].to_numpy() == UNKNOWN_ANCHOR
            self._count("room", is_unknown)
        for feature in self.wanted.room:
            kind = ARROW_TYPES[feature.dtype]
            value = requests[feature.name].combine_chunks() if feature.name in requests.column_names else None
            if value is not None and logged is not None:
                value = pc.coalesce(value, logged[feature.name].combine_chunks())
            elif value is None:
                value = logged[feature.name].combine_chunks() if logged is not None else pa.nulls(len(at), kind)
            found[feature.name] = value if feature.default is None else value.fill_null(feature.default)
        return found

    def _anchors(self, requests: pa.Table, room: Mapping[str, pa.Array]) -> pa.Array:
        """What a request names, else whose room it is; 0 where neither is known."""
        none = pa.nulls(len(requests), pa.int64())
        brought = requests[ANCHOR].combine_chunks() if ANCHOR in requests.column_names else none
        of_room = room.get(ROOM_ANCHOR.name, none)
        of_room = pc.if_else(pc.equal(of_room, UNKNOWN_ANCHOR), pa.scalar(None, pa.int64()), of_room)
        return pc.coalesce(brought, of_room).fill_null(0)

    def _places(self, entity: Entity, keys: Mapping[str, pa.Array]) -> Int64s:
        places = self.tables[entity].places(keys)
        if len(entity.keys) == 1:
            self._count(entity.value, places < 0)
        return places

    def _count(self, what: str, is_unknown: NDArray[np.bool_]) -> None:
        self.unknown[what] += int(is_unknown.sum())

    def _sequence(
        self, sequence: SequenceFeature, table: pa.Table, places: Int64s, at: Int64s
    ) -> Iterator[tuple[str, pa.Array]]:
        """Events that were complete before ts − event_lag and are not too old."""
        rows = pa.array(places, mask=places < 0)
        events = table[f"{sequence.name}_at"].combine_chunks().take(rows)
        lengths = pc.fill_null(pc.list_value_length(events), 0).to_numpy().astype(np.int64)
        row_of, happened = np.repeat(np.arange(len(at)), lengths), _flat(events).to_numpy()
        seen = happened < at[row_of] - self.time.event_lag_seconds * MICROS
        seen &= happened >= at[row_of] - sequence.max_age_days * DAY_MICROS
        kept = np.flatnonzero(seen)
        offsets = pa.array(np.r_[0, np.cumsum(np.bincount(row_of[kept], minlength=len(at)))].astype(np.int32))
        for part in sequence.fields:
            yield (
                sequence_name(sequence.name, part.name),
                pa.ListArray.from_arrays(
                    offsets, self._values(sequence, part, table, rows, at[row_of] - happened).take(pa.array(kept))
                ),
            )

    @staticmethod
    def _values(
        sequence: SequenceFeature, part: SequenceField, table: pa.Table, rows: pa.Array, age: Int64s
    ) -> pa.Array:
        """Of every served event of the requests' users, seen or not, flat."""
        if part.source == "age_s":
            return pa.array(age // MICROS)
        return _flat(table[sequence_name(sequence.name, part.name)].combine_chunks().take(rows))


def _flat(lists: pa.ListArray) -> pa.Array:
    return lists.flatten()


def _own(feature: Feature, requests: pa.Table, clock: Int64s) -> pa.Array:
    """A feature of the impression itself."""
    match feature.op:
        case HourOfDay():
            return pa.array(clock % DAY_MICROS // (3600 * MICROS))
        case DayOfWeek():
            return pa.array((clock // DAY_MICROS + EPOCH_WEEKDAY) % 7)
        case Field(column=column) if column in requests.column_names:
            value = requests[column].combine_chunks()
            return value if feature.default is None else value.fill_null(feature.default)
    missing = pa.nulls(len(requests), ARROW_TYPES[feature.dtype])
    return missing if feature.default is None else missing.fill_null(feature.default)
