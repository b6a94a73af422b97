"""The oracle: the features of some impressions, from raw rows by SQL alone, as of their own cutoffs or later ones.

1. raw rows of the impressions' users, anchors and rooms       temporary tables, see `oracle_raw.py`
2. cutoffs of each impression                                  asked: keys, us, day, horizon, cut
3. room state, whose category is a key of profiles             now_room; asked gets `category`
4. windows, snapshots, sequences, the impression, labels       now_<part>
5. joined by their keys                                        now: impression_id and every column that was computed
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from features.schema import KEY_COLUMNS, label_name, mask_name, sequence_name
from features.spark.snapshots import SNAPSHOT_TABLES
from features.spec import TILED_ENTITIES, DType, Entity, Feature, RoomField, SnapshotOp, WindowOp
from pipeline.audit import oracle_events, oracle_windows
from pipeline.audit.duck import Connection, fetch, quoted
from pipeline.audit.oracle_labels import make_labels
from pipeline.audit.oracle_raw import MICROS, business_days, load_raw
from pipeline.context import ONE_DAY, Context

COVERED: tuple[type, ...] = (*oracle_windows.COVERED, *oracle_events.COVERED)
"""Operations that the oracle has SQL for."""
_THEIRS = "user_id IN (SELECT user_id FROM chosen) OR anchor_id IN (SELECT anchor_id FROM chosen)"


class Oracle:
    """Computes the impressions in the table `stored` (impression_id, dt) of a connection."""

    def __init__(self, connection: Connection, context: Context) -> None:
        self._connection = connection
        self._context = context
        self.features = tuple(f for f in context.catalog.features if type(f.op) in COVERED)
        self.lag_micros = context.conf.time.event_lag_seconds * MICROS
        self.uncovered = tuple(f for f in context.catalog.features if type(f.op) not in COVERED)

    def load(self) -> list[int]:
        """Reads the raw rows that are needed; returns impressions of `stored` that raw does not hold."""
        connection, context = self._connection, self._context
        days = [row[0] for row in fetch(connection, "SELECT DISTINCT dt FROM stored ORDER BY 1")]
        first, last = min(days), max(days)
        back = context.catalog.max_days()
        mature = last + ONE_DAY * context.conf.time.label_delay_days
        business_days(connection, context.conf.time.zone, [first - ONE_DAY * back, mature])
        known = "impression_id IN (SELECT impression_id FROM stored)"
        load_raw(connection, context, "impressions", self._days("impressions", first, mature), only=known)
        connection.execute("""
            CREATE OR REPLACE TEMP TABLE chosen AS
            SELECT impression_id, user_id, anchor_id, room_id, us, e AS day FROM impressions""")
        for table in ("impressions", "actions"):
            load_raw(connection, context, table, self._days(table, first - ONE_DAY * back, mature), only=_THEIRS)
        rooms_from = context.first_room_day(first - ONE_DAY * back)
        load_raw(connection, context, "rooms", self._days("rooms", rooms_from, mature))
        theirs = "room_id IN (SELECT room_id FROM chosen)"
        load_raw(connection, context, "room_stats", self._days("room_stats", first - ONE_DAY, last), only=theirs)
        for entity in self._snapshotted():
            self._load_snapshots(entity, days)
        oracle_windows.make_log(connection, context.conf.time.max_room_age_days)
        absent = "SELECT impression_id FROM stored ANTI JOIN chosen USING (impression_id) ORDER BY 1"
        return [row[0] for row in fetch(connection, absent)]

    def _days(self, table: str, first: datetime.date, last: datetime.date) -> list[datetime.date]:
        return self._context.raw_days(table, first, last)

    def _snapshotted(self) -> list[Entity]:
        has = {f.entity for f in self.features if isinstance(f.op, SnapshotOp)}
        return [entity for entity in SNAPSHOT_TABLES if entity in has]

    def _load_snapshots(self, entity: Entity, days: list[datetime.date]) -> None:
        """The partitions that some day sees (one day later too), and `ready_<table>`: the days that are there."""
        connection, table = self._connection, SNAPSHOT_TABLES[entity]
        partitions = self._context.raw.listing.partitions[table]
        ready = sorted(day for day, partition in partitions.items() if partition.ready)
        connection.execute(f"CREATE OR REPLACE TEMP TABLE ready_{table} (day DATE)")
        if ready:
            connection.executemany(f"INSERT INTO ready_{table} VALUES (?)", [[day] for day in ready])
        cutoffs = {cutoff for day in days for cutoff in (day, day + ONE_DAY)}
        seen = {max(before) for cutoff in cutoffs if (before := [day for day in ready if day < cutoff])}
        key = entity.keys[0]
        load_raw(connection, self._context, table, seen, only=f"{key} IN (SELECT {key} FROM chosen)")

    def compute(self, *, later_days: int = 0, later_micros: int = 0, only: str = "true") -> dict[str, DType | None]:
        """Makes `now`; returns its columns but the key, None for an array.

        Args:
            later_days, later_micros: how much later than allowed the cutoffs of as-of and event-time features are.
            only: SQL condition on the impressions to compute.
        """
        connection, lag = self._connection, self.lag_micros
        connection.execute(f"""
            CREATE OR REPLACE TEMP TABLE asked AS
            SELECT *, day + {later_days} AS horizon, us - {lag} + {later_micros} AS cut FROM chosen WHERE {only}""")
        catalog, time = self._context.catalog, self._context.conf.time
        parts: dict[str, tuple[str, ...]] = {}
        room = [feature for feature in self.features if feature.entity is Entity.ROOM]
        parts[oracle_events.make_room_state(connection, room, time.max_room_age_days)] = ("impression_id",)
        self._add_category(room)
        for entity in TILED_ENTITIES:
            windows = [f for f in self.features if f.entity is entity and isinstance(f.op, WindowOp)]
            if windows:
                parts[oracle_windows.make_windows(connection, entity, windows)] = ("day", *entity.keys)
        for entity in self._snapshotted():
            snapshot = [f for f in self.features if f.entity is entity and isinstance(f.op, SnapshotOp)]
            parts[oracle_windows.make_snapshots(connection, entity, snapshot)] = ("day", *entity.keys)
        shown = [f for f in self.features if f.entity is Entity.IMPRESSION and f.name not in KEY_COLUMNS]
        parts[oracle_events.make_shown(connection, shown, time.zone)] = ("impression_id",)
        for name in oracle_events.make_sequences(connection, catalog.sequences, time.max_room_age_days):
            parts[name] = ("impression_id",)
        parts[make_labels(connection, catalog.labels, time)] = ("impression_id",)
        self._join(parts)
        return self.columns()

    def _join(self, parts: Mapping[str, tuple[str, ...]]) -> None:
        """Part → its keys: all parts side by side as `now`, each by its keys in `asked`."""
        joins, values = [], []
        for name, keys in parts.items():
            same = " AND ".join(f"{name}.{quoted(key)} = asked.{quoted(key)}" for key in keys)
            joins.append(f"LEFT JOIN {name} ON {same}")
            described = self._connection.execute(f"SELECT * FROM {name} LIMIT 0").description or ()
            values += [f"{name}.{quoted(column[0])}" for column in described if column[0] not in keys]
        own = "asked.impression_id, asked.user_id, asked.anchor_id, asked.room_id, asked.day"
        self._connection.execute(f"""
            CREATE OR REPLACE TEMP TABLE now AS
            SELECT {", ".join((own, *values))} FROM asked {" ".join(joins)}""")

    def columns(self) -> dict[str, DType | None]:
        """What `now` holds besides keys: column of the samples → type, None for a sequence's array."""
        scalar: dict[str, DType | None] = {f.name: f.dtype for f in self.features if f.name not in KEY_COLUMNS}
        fields = [(s.name, f.name) for s in self._context.catalog.sequences for f in s.fields]
        return scalar | {sequence_name(*field): None for field in fields} | dict.fromkeys(self.labels(), DType.BIGINT)

    def labels(self) -> tuple[str, ...]:
        """The columns of every task."""
        return tuple(f(label.name) for label in self._context.catalog.labels for f in (label_name, mask_name))

    def _add_category(self, room: list[Feature]) -> None:
        """The room's category as it was known to the impression is a key of the profiles of (user, category)."""
        named = next((f.name for f in room if f.op == RoomField(column="category")), None)
        value = "NULL::VARCHAR" if named is None else f"r.{quoted(named)}"
        self._connection.execute(f"""
            CREATE OR REPLACE TEMP TABLE asked AS
            SELECT q.*, {value} AS category FROM asked q LEFT JOIN now_room r USING (impression_id)""")
