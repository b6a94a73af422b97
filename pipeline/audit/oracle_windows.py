"""Window and snapshot features in SQL, straight from raw rows: no tiles, no states, no Spark.

Every entity has one query: its distinct (day, keys) among `asked`, joined with the log of those keys, grouped. A row of
the log counts for day D when e < horizon, a < horizon and e ≥ D − N; `horizon` is D.
"""

from __future__ import annotations

from collections.abc import Sequence

from features.spark.snapshots import SNAPSHOT_TABLES
from features.spec import (
    ActiveDays,
    DaysSinceLast,
    DistinctPartners,
    Entity,
    Feature,
    Measure,
    OnAir,
    Rate,
    Snapshot,
    SnapshotAge,
    Sum,
    TopCategory,
)
from pipeline.audit.duck import Connection, literal, quoted
from pipeline.audit.oracle_raw import room_counts

COVERED = (Sum, Rate, ActiveDays, DaysSinceLast, DistinctPartners, TopCategory, OnAir, Snapshot, SnapshotAge)
"""Operations that this file has SQL for."""

NEWEST_ROOM = """(r.ended_at IS NOT NULL) DESC, r.a DESC, r.us DESC"""
"""Of the rows of a room that arrived by a cutoff, the one that counts as of a day comes first."""


def make_log(connection: Connection, max_room_age_days: int | None) -> None:
    """`log`: impressions and actions as one table, with the category that their room had by the day they arrived."""
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE log AS
        WITH rows AS (
            SELECT user_id, anchor_id, room_id, e, a, NULL::VARCHAR AS action, 0.0::DOUBLE AS value
            FROM impressions WHERE NOT is_drawn
            UNION ALL SELECT user_id, anchor_id, room_id, e, a, action, value FROM actions
        ), categories AS (
            SELECT w.room_id, w.a, r.category FROM (SELECT DISTINCT room_id, a FROM rows) w
            JOIN rooms r ON r.room_id = w.room_id AND {room_counts("w.a", max_room_age_days)}
            QUALIFY row_number() OVER (PARTITION BY w.room_id, w.a ORDER BY (r.ended_at IS NOT NULL) DESC, r.a DESC,
                                       r.us DESC, r.category DESC NULLS LAST) = 1
        )
        SELECT rows.*, coalesce(c.category, '') AS category FROM rows LEFT JOIN categories c USING (room_id, a)""")


def make_windows(connection: Connection, entity: Entity, features: Sequence[Feature]) -> str:
    """Makes `now_<entity>`: day, keys, features, for every (day, keys) among `asked`; returns its name.

    Args:
        features: window features of the entity.
    """
    name = f"now_{entity}"
    keys = ", ".join(quoted(key) for key in entity.keys)
    parts = [_from_log(entity, [f for f in features if not isinstance(f.op, TopCategory | OnAir)])]
    parts += [_top_category(f) for f in features if isinstance(f.op, TopCategory)]
    parts += [_on_air(f) for f in features if isinstance(f.op, OnAir)]
    joins = " ".join(f"LEFT JOIN ({sql}) p{number} USING (day, {keys})" for number, sql in enumerate(parts))
    values = ", ".join(f"coalesce({quoted(f.name)}, {literal(f.default)}) AS {quoted(f.name)}" for f in features)
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE {name} AS
        WITH targets AS (SELECT DISTINCT day, horizon, {keys} FROM asked)
        SELECT day, {keys}, {values} FROM targets {joins}""")
    return name


def _from_log(entity: Entity, features: Sequence[Feature]) -> str:
    keys = ", ".join(f"t.{quoted(key)}" for key in entity.keys)
    same = " AND ".join(f"l.{quoted(key)} = t.{quoted(key)}" for key in entity.keys)
    longest = max((feature.days or 0 for feature in features), default=1)
    values = "".join(f", {_value(entity, feature)} AS {quoted(feature.name)}" for feature in features)
    return f"""
        SELECT t.day, {keys}{values} FROM targets t
        JOIN log l ON {same} AND l.e < t.horizon AND l.a < t.horizon AND l.e >= t.day - {longest}
        GROUP BY t.day, {keys}"""


def _value(entity: Entity, feature: Feature) -> str:
    """A feature as an aggregate over the joined rows `t`, `l`."""
    op = feature.op
    if isinstance(op, Sum):
        return _sum(op.measure, op.days)
    if isinstance(op, Rate):
        top = f"{_sum(op.numerator, op.days)} + {literal(op.prior * op.strength)}"
        return f"({top}) / ({_sum(op.denominator, op.days)} + {literal(float(op.strength))})"
    if isinstance(op, ActiveDays):
        return f"count(DISTINCT CASE WHEN {_active(op.measure, op.days)} THEN l.e END)"
    if isinstance(op, DaysSinceLast):
        return f"coalesce(t.day - max(CASE WHEN {_active(op.measure, op.days)} THEN l.e END), {op.days + 1})"
    assert isinstance(op, DistinctPartners)
    partner = "anchor_id" if entity is Entity.USER else "user_id"
    return f"count(DISTINCT CASE WHEN {_active(op.measure, op.days)} THEN l.{partner} END)"


def _amount(measure: Measure) -> str:
    if measure.action is None:
        return "CASE WHEN l.action IS NULL THEN 1 ELSE 0 END"
    each = "1" if measure.value_scale is None else f"CAST(round(l.value * {measure.value_scale}) AS BIGINT)"
    return f"CASE WHEN l.action = {literal(measure.action)} THEN {each} ELSE 0 END"


def _sum(measure: Measure, days: int) -> str:
    return f"CAST(coalesce(sum({_amount(measure)}) FILTER (l.e >= t.day - {days}), 0) AS BIGINT)"


def _active(measure: Measure, days: int) -> str:
    return f"l.e >= t.day - {days} AND {_amount(measure)} > 0"


def _top_category(feature: Feature) -> str:
    op = feature.op
    assert isinstance(op, TopCategory)
    return f"""
        SELECT day, user_id, category AS {quoted(feature.name)} FROM (
            SELECT t.day, t.user_id, l.category, sum({_amount(op.measure)}) AS total FROM targets t
            JOIN log l ON l.user_id = t.user_id AND l.e < t.horizon AND l.a < t.horizon AND l.e >= t.day - {op.days}
            GROUP BY ALL HAVING total > 0
        ) QUALIFY row_number() OVER (PARTITION BY day, user_id ORDER BY total DESC, category) = 1"""


def _on_air(feature: Feature) -> str:
    """Of each room the row that counted before D; its session clipped at its window, at 24 h and at D."""
    op = feature.op
    assert isinstance(op, OnAir)
    longest = op.max_session_hours * 3_600_000
    return f"""
        SELECT day, anchor_id, CAST(sum(greatest(0, until - greatest(started, begins))) AS BIGINT)
            AS {quoted(feature.name)} FROM (
            SELECT v.day, v.anchor_id, v.started_at, v.started, b.begins // 1000 AS begins,
                least(coalesce(v.ended, t.begins // 1000), v.started + {longest}, t.begins // 1000) AS until FROM (
                SELECT d.day, d.horizon, r.anchor_id, r.started_at, epoch_us(r.started_at) // 1000 AS started,
                    epoch_us(r.ended_at) // 1000 AS ended
                FROM (SELECT DISTINCT day, horizon FROM targets) d JOIN rooms r ON r.a < d.horizon
                QUALIFY row_number() OVER (PARTITION BY d.day, r.room_id ORDER BY {NEWEST_ROOM}, r.anchor_id DESC,
                    r.started_at DESC, r.ended_at DESC NULLS LAST) = 1) v
            JOIN day_begins b ON b.day = v.day - {op.days} JOIN day_begins t ON t.day = v.horizon
        ) GROUP BY day, anchor_id"""


def make_snapshots(connection: Connection, entity: Entity, features: Sequence[Feature]) -> str:
    """Makes `snapshot_<entity>`: day, keys, snapshot features as of the newest partition before each day."""
    name, table = f"snapshot_{entity}", SNAPSHOT_TABLES[entity]
    keys = ", ".join(quoted(key) for key in entity.keys)
    same = " AND ".join(f"s.{quoted(key)} = t.{quoted(key)}" for key in entity.keys)
    values = ", ".join(f"{_snapshot_value(feature)} AS {quoted(feature.name)}" for feature in features)
    of_target = ", ".join(f"t.{quoted(key)}" for key in entity.keys)
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE {name} AS
        WITH targets AS (
            SELECT DISTINCT day, {keys}, (SELECT max(p.day) FROM ready_{table} p WHERE p.day < asked.horizon) AS newest
            FROM asked)
        SELECT t.day, {of_target}, {values} FROM targets t LEFT JOIN {table} s ON s.a = t.newest AND {same}""")
    return name


def _snapshot_value(feature: Feature) -> str:
    op = feature.op
    if isinstance(op, SnapshotAge):
        age = f"t.day - s.{quoted(op.column)}"
        return f"coalesce(CASE WHEN {age} >= 0 THEN {age} END, {literal(feature.default)})"
    assert isinstance(op, Snapshot)
    return f"coalesce(s.{quoted(op.column)}, {literal(feature.default)})"
