"""Raw rows of some users, three times: as they are, and with what may not be seen deleted, changed and added.

    side 0   as it is
    side 1   nothing that happened or arrived on D or later is as it was             as-of features of D must not move
    side 2   nothing complete at or after a cutoff, or that arrived after D, is      event-time features must not move

All three lie in one scratch warehouse under ids that are moved apart, so that one run of the stages computes them all.
On side 2 every user and every room has one cutoff, that of one of its impressions of D, chosen by hash; what is shown
earlier to the same user (in the same room) must not move either. The category of a user's earlier actions may hang on a
row of another room, so a room's own rows change only from the last action on that a cutoff lets anybody see.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from features import storage
from features.spark.snapshots import SNAPSHOT_TABLES
from pipeline.audit.duck import Connection, fetch
from pipeline.audit.oracle_raw import DAY_MICROS, MICROS, MINUTE, business_days, make_raw_view
from pipeline.context import ONE_DAY, Context
from pipeline.sources.raw_layout import RAW_TABLES, READY_MARKER, day_folder

IDS = ("impression_id", "action_id", "user_id", "anchor_id", "room_id")
TIMES = {"impressions": ("ts",), "actions": ("ts",), "rooms": ("started_at", "ended_at"), "room_stats": ("minute",)}
SIDES = (0, 1, 2)
AS_OF, EVENT = 1, 2
RECENT_DAYS = 3
"""Copies are made of rows of so many days before D."""
LOUD = 1_000
"""Added to amounts and counts that change."""
OWN_LOG = "user_id IN (SELECT user_id FROM picked_users)"
THEIR_ROOMS = "room_id IN (SELECT room_id FROM trial_impressions UNION SELECT room_id FROM trial_actions)"
THEIR_ANCHORS = "anchor_id IN (SELECT anchor_id FROM trial_impressions UNION SELECT anchor_id FROM trial_actions)"


@dataclass(frozen=True, kw_only=True)
class Scratch:
    """A written scratch warehouse.

    Attributes:
        stride: ids of side k are those of side 0 plus k × stride; side 0 has the `numbers_<id>` of raw ids.
        mutated: side → table → rows deleted, changed or added.
    """

    url: str
    day: datetime.date
    stride: int
    users: int
    lag_micros: int
    mutated: Mapping[int, Mapping[str, int]]


def write_scratch(connection: Connection, context: Context, day: datetime.date, users: int, url: str) -> Scratch:
    """Writes the raw tables of three sides; leaves `cuts_user`, `cuts_room` in the connection.

    Args:
        day: D, whose samples are going to be computed.
        users: how many of those with an impression on D are copied, chosen by hash.
        url: folder of the scratch warehouse.
    """
    time = context.conf.time
    mature = day + ONE_DAY * time.label_delay_days
    first = day - ONE_DAY * context.catalog.max_days()
    business_days(connection, time.zone, [first, mature])
    begins = fetch(connection, f"SELECT begins FROM day_begins WHERE day = DATE '{day}'")[0][0]
    spans = {"rooms": context.first_raw_day("rooms") or first, "room_stats": day - ONE_DAY}
    spans |= dict.fromkeys(SNAPSHOT_TABLES.values(), day - ONE_DAY * (time.max_snapshot_age_days + 1))
    days = {table: context.raw_days(table, spans.get(table, first), mature) for table in RAW_TABLES}
    on_day = [at for at in days["impressions"] if at >= day]
    make_raw_view(connection, "shown", context, "impressions", on_day)
    connection.execute(f"""
        CREATE TEMP TABLE picked_users AS SELECT user_id FROM shown
        WHERE epoch_us(ts) >= {begins} AND epoch_us(ts) < {begins + DAY_MICROS} GROUP BY user_id
        ORDER BY hash(user_id), user_id LIMIT {users}""")
    for table, only in (
        ("impressions", OWN_LOG),
        ("actions", OWN_LOG),
        ("rooms", THEIR_ROOMS),
        ("room_stats", THEIR_ROOMS),
        ("users", OWN_LOG),
        ("anchors", THEIR_ANCHORS),
    ):
        _load(connection, context, table, days[table], only)
    _number_ids(connection)
    trial = _Trial(connection, day=day, begins=int(begins), lateness=time.max_lateness_days)
    lag = time.event_lag_seconds * MICROS
    trial.choose_cutoffs(lag)
    stride = _stride(connection)
    mutated: dict[int, dict[str, int]] = {AS_OF: {}, EVENT: {}}
    for table in RAW_TABLES:
        sides = {
            0: f"SELECT * FROM trial_{table}",
            AS_OF: trial.as_of(table, stride // 4),
            EVENT: trial.event(table, stride // 4),
        }
        for side in (AS_OF, EVENT):
            mutated[side][table] = _moved_rows(connection, sides[0], sides[side])
        rows = " UNION ALL BY NAME ".join(f"({_shifted(table, sql, side * stride)})" for side, sql in sides.items())
        _write(connection, f"SELECT * FROM ({rows}) ORDER BY dt", url, table, days[table])
    found = int(fetch(connection, "SELECT count(*) FROM picked_users")[0][0])
    return Scratch(url=url, day=day, stride=stride, users=found, lag_micros=lag, mutated=mutated)


def _load(connection: Connection, context: Context, table: str, days: list[datetime.date], only: str) -> None:
    """`trial_<table>`: every column, times as micros, dt, e (the day it happened), us (when it was complete)."""
    times = TIMES.get(table, ())
    make_raw_view(connection, "raw_rows", context, table, days)
    replaced = "".join(f", epoch_us({name}) AS {name}" for name in times)
    micros = f"SELECT * REPLACE (CAST(dt AS DATE) AS dt{replaced}) FROM raw_rows WHERE {only}"
    if times:
        complete = f"greatest({', '.join(f'coalesce({name}, {times[0]})' for name in times)})"
        after = MINUTE if table == "room_stats" else 0
        micros = f"""
            SELECT r.*, d.day AS e, {complete} + {after} AS us FROM ({micros}) r
            ASOF JOIN day_begins d ON {complete} >= d.begins"""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE trial_{table} AS {micros}")


def _number_ids(connection: Connection) -> None:
    """Ids become 1, 2, ... in their order, as ids of 64 bits leave no room for other sides; see `numbers_<id>`."""
    for name in IDS:
        having = [table for table, spec in RAW_TABLES.items() if name in spec.column_names()]
        every = " UNION ".join(f"SELECT {name} AS id FROM trial_{table}" for table in having)
        connection.execute(f"""
            CREATE OR REPLACE TEMP TABLE numbers_{name} AS
            SELECT id, row_number() OVER (ORDER BY id) AS number FROM ({every}) WHERE id IS NOT NULL""")
    for table, spec in RAW_TABLES.items():
        names = [name for name in IDS if name in spec.column_names()]
        numbers = ", ".join(f"{name}_of.number AS {name}" for name in names)
        joins = " ".join(f"LEFT JOIN numbers_{name} {name}_of ON {name}_of.id = t.{name}" for name in names)
        numbered = f"SELECT t.* REPLACE ({numbers}) FROM trial_{table} t {joins}"
        connection.execute(f"CREATE OR REPLACE TEMP TABLE trial_{table} AS {numbered}")


def _stride(connection: Connection) -> int:
    """A power of ten well above every number of an id, so that they keep their last digits on every side."""
    counts = ", ".join(f"(SELECT count(*) FROM numbers_{name})" for name in IDS)
    largest = max(fetch(connection, f"SELECT {counts}")[0])
    stride: int = 10 ** len(str(8 * largest))
    return stride


def _shifted(table: str, sql: str, by: int) -> str:
    ids = [name for name in IDS if name in RAW_TABLES[table].column_names()]
    return f"SELECT * REPLACE ({', '.join(f'{name} + {by} AS {name}' for name in ids)}) FROM ({sql})"


def _moved_rows(connection: Connection, base: str, side: str) -> int:
    gone = f"SELECT count(*) FROM ({base} EXCEPT ALL {side})"
    new = f"SELECT count(*) FROM ({side} EXCEPT ALL {base})"
    return int(fetch(connection, f"SELECT ({gone}) + ({new})")[0][0])


def _write(connection: Connection, sql: str, url: str, table: str, days: list[datetime.date]) -> None:
    """Every day of the span gets its folder and marker, also when it has no row."""
    rows = connection.sql(sql).to_arrow_table()
    rows = rows.drop_columns([name for name in ("e", "us") if name in rows.column_names])
    for name in TIMES.get(table, ()):
        place = rows.column_names.index(name)
        rows = rows.set_column(place, name, rows[name].cast(pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC")))
    written = rows["dt"].to_pylist()
    for day in days:
        folder = day_folder(url, table, day)
        of_day = rows.filter(pa.array([at == day for at in written])).drop_columns(["dt"])
        if len(of_day):
            sink = io.BytesIO()
            pq.write_table(of_day, sink)
            storage.write_bytes(f"{folder}/part-0.parquet", sink.getvalue())
        storage.write_bytes(f"{folder}/{READY_MARKER}", b"")


class _Trial:
    """SQL of the mutated sides over `trial_<table>`; new rows get ids of their own, a quarter stride apart."""

    def __init__(self, connection: Connection, *, day: datetime.date, begins: int, lateness: int) -> None:
        self._connection = connection
        self._day, self._next = f"DATE '{day}'", f"DATE '{day + ONE_DAY}'"
        self._begins = begins
        self._recent = min(RECENT_DAYS, max(1, lateness))

    def choose_cutoffs(self, lag: int) -> None:
        """`cuts_user`, `cuts_room` (key, cut): of one impression of D each; rooms also when their own rows change."""
        of_day = f"SELECT *, us - {lag} AS cut FROM trial_impressions WHERE e = {self._day} AND dt <= {self._day}"
        for key in ("user", "room"):
            self._connection.execute(f"""
                CREATE TEMP TABLE cuts_{key} AS
                SELECT {key}_id, arg_min(cut, hash(impression_id)) AS cut FROM ({of_day}) GROUP BY {key}_id""")
        self._connection.execute(f"""
            CREATE TEMP TABLE cuts_room_row AS
            SELECT room_id, greatest(c.cut, coalesce(max(a.us) + 1, c.cut)) AS cut FROM cuts_room c
            LEFT JOIN (SELECT a.room_id, a.us FROM trial_actions a JOIN cuts_user u USING (user_id)
                       WHERE a.us < u.cut AND a.dt <= {self._day}) a USING (room_id)
            GROUP BY room_id, c.cut""")

    def as_of(self, table: str, quarter: int) -> str:
        """Side 1: rows with e ≥ D or a ≥ D."""
        hidden = f"(dt >= {self._day})"
        match table:
            case "impressions":
                spared = f"e >= {self._day} OR NOT {hidden} OR hash(impression_id) % 3 > 0"
                kept = f"SELECT * FROM trial_impressions WHERE {spared}"
                return self._with_copies(kept, "impressions", "impression_id", quarter, change="")
            case "actions":
                kept = f"""SELECT * REPLACE (CASE WHEN {hidden} AND hash(action_id) % 3 = 1 THEN value + {LOUD}
                    ELSE value END AS value) FROM trial_actions WHERE NOT {hidden} OR hash(action_id) % 3 > 0"""
                return self._with_copies(kept, "actions", "action_id", quarter, change=f", value + {LOUD} AS value")
            case "rooms":
                last = self._begins + DAY_MICROS - 1
                ended = f"greatest(started_at, {last})"
                return f"""SELECT * FROM trial_rooms UNION ALL BY NAME SELECT * REPLACE ({ended} AS ended_at,
                    {self._day} AS dt) FROM trial_rooms WHERE dt < {self._day} AND ended_at IS NULL"""
            case "users" | "anchors":
                return f"SELECT * REPLACE ({self._other_person(table, hidden)}) FROM trial_{table}"
        return f"SELECT * FROM trial_{table}"

    def _with_copies(self, kept: str, table: str, key: str, quarter: int, *, change: str) -> str:
        """Copies of recent visible rows: one that happens on D, one that only arrives on D."""
        recent = f"FROM trial_{table} WHERE dt < {self._day} AND e >= {self._day} - {self._recent}"
        orphan = ", NULL AS impression_id" if table == "actions" else ""
        moved = f"{self._begins} + us % {DAY_MICROS}"
        return f"""{kept} UNION ALL BY NAME SELECT * REPLACE ({key} + {quarter} AS {key}, {moved} AS ts{change}{orphan},
            {self._day} AS dt) {recent} UNION ALL BY NAME
            SELECT * REPLACE ({key} + {2 * quarter} AS {key}{change}{orphan}, {self._day} AS dt) {recent}"""

    def _other_person(self, table: str, hidden: str) -> str:
        columns = {"gender": "'mutated'", "city": "'mutated'", "age": "coalesce(age, 0) + 1"}
        if table == "anchors":
            columns |= {"level": "coalesce(level, 0) + 1", "category": "'mutated'"}
        return ", ".join(f"CASE WHEN {hidden} THEN {new} ELSE {name} END AS {name}" for name, new in columns.items())

    def event(self, table: str, quarter: int) -> str:
        """Side 2: rows complete at or after their user's (room's) cutoff, or that arrived after D."""
        match table:
            case "actions":
                return self._later_actions(quarter)
            case "room_stats":
                return self._later_minutes()
            case "rooms":
                return self._later_room_rows()
            case "users" | "anchors":
                return f"SELECT * REPLACE ({self._other_person(table, f'(dt >= {self._day})')}) FROM trial_{table}"
        return f"SELECT * FROM trial_{table}"

    def _later_actions(self, quarter: int) -> str:
        hidden = f"(a.us >= c.cut OR a.dt > {self._day})"
        joined = "FROM trial_actions a JOIN cuts_user c USING (user_id)"
        seen = f"{joined} WHERE NOT {hidden} AND a.e > {self._day} - {self._recent}"
        columns = (
            f"SELECT a.* REPLACE (a.action_id + {{}} AS action_id, NULL AS impression_id, a.value + {LOUD} AS value"
        )
        at_cut = f"{columns.format(quarter)}, c.cut AS ts, {self._day} AS dt) {seen} AND c.cut >= {self._begins}"
        late = f"{columns.format(2 * quarter)}, {self._next} AS dt) {seen}"
        return f"""SELECT a.* REPLACE (CASE WHEN {hidden} AND hash(a.action_id) % 3 = 1 THEN a.value + {LOUD}
            ELSE a.value END AS value) {joined} WHERE NOT {hidden} OR hash(a.action_id) % 3 > 0
            UNION ALL BY NAME {at_cut} UNION ALL BY NAME {late}"""

    def _later_minutes(self) -> str:
        """Minutes that change or vanish; new ones that are complete exactly at the cutoff, or arrive a day late."""
        hidden = f"(m.us >= c.cut OR m.dt > {self._day})"
        joined = "FROM trial_room_stats m LEFT JOIN cuts_room c USING (room_id)"
        counts = [name for name in RAW_TABLES["room_stats"].column_names() if name not in ("room_id", "minute")]
        louder = ", ".join(f"CASE WHEN {hidden} THEN m.{n} + {LOUD} ELSE m.{n} END AS {n}" for n in counts)
        loud = ", ".join(f"{LOUD} AS {name}" for name in counts)
        of_room = f"""SELECT m.* REPLACE ({{minute}} AS minute, {{dt}} AS dt, {loud}) FROM
            (SELECT * FROM trial_room_stats QUALIFY row_number() OVER (PARTITION BY room_id ORDER BY minute) = 1) m
            JOIN cuts_room c USING (room_id) WHERE c.cut - {2 * MINUTE + 7} >= {self._begins} AND NOT EXISTS
            (SELECT 1 FROM trial_room_stats o WHERE o.room_id = m.room_id AND o.minute = {{minute}})"""
        return f"""SELECT m.* REPLACE ({louder}) {joined} WHERE NOT coalesce({hidden}, false)
                OR hash(m.room_id, m.minute) % 3 > 0
            UNION ALL BY NAME {of_room.format(minute=f"c.cut - {MINUTE}", dt=self._day)}
            UNION ALL BY NAME {of_room.format(minute=f"c.cut - {2 * MINUTE + 7}", dt=self._next)}"""

    def _later_room_rows(self) -> str:
        """Other categories from the cutoff on; a new end exactly at the cutoff, and one that arrives a day late."""
        hidden = f"coalesce(r.us >= c.cut OR r.dt > {self._day}, false)"
        joined = "FROM trial_rooms r LEFT JOIN cuts_room_row c USING (room_id)"
        ends = f"""SELECT r.* REPLACE (c.cut AS ended_at, 'mutated' AS category, {{dt}} AS dt)
            FROM trial_rooms r JOIN cuts_room_row c USING (room_id) WHERE NOT {hidden} AND c.cut >= {self._begins}
            AND c.cut < {self._begins + DAY_MICROS}"""
        return f"""SELECT r.* REPLACE (CASE WHEN {hidden} THEN 'mutated' ELSE r.category END AS category) {joined}
            UNION ALL BY NAME {ends.format(dt=self._day)} UNION ALL BY NAME {ends.format(dt=self._next)}"""
