"""Event-time features in SQL, straight from raw rows: the room as it stood, the user's last actions, the impression.

A row is seen by an impression of day D when it arrived by D and was complete before `cut` (ts − event_lag).
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from zoneinfo import ZoneInfo

import pyarrow as pa

from features.schema import sequence_name
from features.spec import (
    DayOfWeek,
    DType,
    Feature,
    Field,
    HourOfDay,
    RoomAge,
    RoomField,
    RoomLast,
    RoomSum,
    SequenceFeature,
)
from pipeline.audit.duck import Connection, literal, make_table, quoted
from pipeline.audit.oracle_raw import DAY_MICROS, MICROS, MINUTE, room_counts

COVERED = (RoomLast, RoomSum, RoomField, RoomAge, Field, HourOfDay, DayOfWeek)
"""Operations that this file has SQL for."""
_SQL_TYPES = {DType.BIGINT: "BIGINT", DType.DOUBLE: "DOUBLE", DType.STRING: "VARCHAR", DType.VECTOR: "FLOAT[]"}
_FIELDS = {
    "anchor_id": "c.anchor_id",
    "category": "coalesce(c.category, '')",
    "watch_ms": "CAST(round(coalesce(c.value, 0) * 1000) AS BIGINT)",
    "coins": "CAST(round(coalesce(c.value, 0)) AS BIGINT)",
    "age_s": f"(q.us - c.us) // {MICROS}",
}


def make_room_state(connection: Connection, features: Sequence[Feature], max_room_age_days: int | None) -> str:
    """Makes `now_room`: impression_id and the room's features; returns its name."""
    of_row = [feature for feature in features if isinstance(feature.op, RoomField | RoomAge)]
    of_minutes = [feature for feature in features if isinstance(feature.op, RoomLast | RoomSum)]
    fields = [f.op.column for f in of_row if isinstance(f.op, RoomField)]
    ties = "".join(f", r.{quoted(column)} DESC NULLS LAST" for column in fields)
    from_row = "".join(f", {_of_row(f)} AS {quoted(f.name)}" for f in of_row)
    from_minutes = "".join(f", {_of_minutes(f)} AS {quoted(f.name)}" for f in of_minutes)
    names = [feature.name for feature in (*of_row, *of_minutes)]
    values = "".join(
        f", {_with_default(feature)} AS {quoted(feature.name)}" for feature in features if feature.name in names
    )
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE now_room AS
        WITH newest AS (
            SELECT q.impression_id{from_row} FROM asked q
            JOIN rooms r ON r.room_id = q.room_id AND {room_counts("q.day", max_room_age_days)} AND r.us < q.cut
            QUALIFY row_number() OVER (PARTITION BY q.impression_id
                ORDER BY r.us DESC, r.a DESC, r.started_at DESC{ties}) = 1
        ), heat AS (
            SELECT q.impression_id{from_minutes} FROM asked q
            JOIN room_stats m ON m.room_id = q.room_id AND m.a <= q.day AND m.us < q.cut GROUP BY q.impression_id
        )
        SELECT q.impression_id{values} FROM asked q LEFT JOIN newest USING (impression_id)
        LEFT JOIN heat USING (impression_id)""")
    return "now_room"


def _of_row(feature: Feature) -> str:
    if isinstance(feature.op, RoomAge):
        return f"(q.us - epoch_us(r.started_at)) // {MINUTE}"
    assert isinstance(feature.op, RoomField)
    return f"CAST(r.{quoted(feature.op.column)} AS {_SQL_TYPES[feature.dtype]})"


def _of_minutes(feature: Feature) -> str:
    op = feature.op
    assert isinstance(op, RoomLast | RoomSum)
    value, recent = f"coalesce(m.{quoted(op.column)}, 0)", f"m.us > any_value(q.cut) - {op.minutes * MINUTE}"
    recent = f"m.us > q.cut - {op.minutes * MINUTE}"
    if isinstance(op, RoomLast):
        return f"arg_max({value}, m.us) FILTER ({recent})"
    return f"CAST(sum({value}) FILTER ({recent}) AS BIGINT)"


def _with_default(feature: Feature) -> str:
    return (
        quoted(feature.name)
        if feature.default is None
        else f"coalesce({quoted(feature.name)}, {literal(feature.default)})"
    )


def make_sequences(
    connection: Connection, sequences: Sequence[SequenceFeature], max_room_age_days: int | None
) -> list[str]:
    """Makes `now_<sequence>` for each: impression_id and its fields, newest first; returns their names."""
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE categorised AS
        SELECT c.*, r.category FROM actions c
        LEFT JOIN rooms r ON r.room_id = c.room_id AND {room_counts("c.a", max_room_age_days)} AND r.us <= c.us
        QUALIFY row_number() OVER (PARTITION BY c.action_id
            ORDER BY r.us DESC NULLS LAST, r.a DESC, r.category DESC NULLS LAST) = 1""")
    for sequence in sequences:
        values = ", ".join(
            f"coalesce(list({_FIELDS[field.source]} ORDER BY c.us DESC, c.action_id DESC) "
            f"FILTER (c.action_id IS NOT NULL), []) AS {quoted(sequence_name(sequence.name, field.name))}"
            for field in sequence.fields
        )
        connection.execute(f"""
            CREATE OR REPLACE TEMP TABLE now_{sequence.name} AS
            WITH last AS (
                SELECT q.impression_id, c.action_id FROM asked q
                JOIN categorised c ON c.user_id = q.user_id AND c.action = {literal(sequence.action)}
                    AND c.a <= q.day AND c.us < q.cut AND c.us >= q.us - {sequence.max_age_days * DAY_MICROS}
                QUALIFY row_number() OVER (PARTITION BY q.impression_id ORDER BY c.us DESC, c.action_id DESC)
                    <= {sequence.length}
            )
            SELECT q.impression_id, {values} FROM asked q LEFT JOIN last USING (impression_id)
            LEFT JOIN categorised c ON c.action_id = last.action_id GROUP BY q.impression_id""")
    return [f"now_{sequence.name}" for sequence in sequences]


def make_shown(connection: Connection, features: Sequence[Feature], zone: str) -> str:
    """Makes `now_impression`: impression_id and the features of the impression itself."""
    rows = connection.execute("SELECT impression_id, us FROM asked").fetchall()
    local = [datetime.datetime.fromtimestamp(us // MICROS, ZoneInfo(zone)) for _, us in rows]
    clock = pa.table(
        {
            "impression_id": pa.array([row[0] for row in rows], pa.int64()),
            "hour": pa.array([moment.hour for moment in local], pa.int64()),
            "weekday": pa.array([moment.weekday() for moment in local], pa.int64()),
        }
    )
    make_table(connection, "clock", clock)
    values = "".join(f", {_of_shown(feature)} AS {quoted(feature.name)}" for feature in features)
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE now_impression AS
        SELECT q.impression_id{values} FROM asked q JOIN clock k USING (impression_id)
        JOIN impressions i USING (impression_id)""")
    return "now_impression"


def _of_shown(feature: Feature) -> str:
    if isinstance(feature.op, HourOfDay):
        return "k.hour"
    if isinstance(feature.op, DayOfWeek):
        return "k.weekday"
    assert isinstance(feature.op, Field)
    value = f"CAST(i.{quoted(feature.op.column)} AS {_SQL_TYPES[feature.dtype]})"
    return value if feature.default is None else f"coalesce({value}, {literal(feature.default)})"
