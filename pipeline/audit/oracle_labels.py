"""Labels in SQL, straight from raw rows: what a user did after an impression, by the rules of docs/time.md.

An action counts for an impression of day D when it happened in [ts, ts + attribution_hours) and arrived by
D + label_delay_days; without an impression_id, when no later impression of the same user and room lies between. A watch
counts with its part within the window. Amounts are thousandths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from features.schema import label_name, mask_name
from features.spec import Label
from pipeline.audit.duck import Connection, literal
from pipeline.audit.oracle_raw import MICROS, room_counts
from pipeline.config import TimeConf

ENTER, WATCH = "enter", "watch"


def make_labels(connection: Connection, labels: Sequence[Label], time: TimeConf) -> str:
    """Makes `now_labels`: impression_id, label_* and mask_* of every task; returns its name."""
    window = time.attribution_hours * 3_600 * MICROS
    wanted = ", ".join(literal(action) for action in dict.fromkeys([ENTER, *(label.action for label in labels)]))
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE done AS
        WITH shown AS (
            SELECT impression_id, user_id, room_id, us, us + {window} AS closes, day + {time.label_delay_days} AS last
            FROM asked
        ), act AS (
            SELECT action_id, impression_id, user_id, room_id, action, a, us,
                CAST(round(coalesce(value, 0) * 1000) AS BIGINT) AS amount
            FROM actions WHERE action IN ({wanted})
        ), named AS (
            SELECT s.impression_id, s.room_id, s.closes, s.last, c.action, c.us, c.amount FROM shown s
            JOIN act c ON c.impression_id = s.impression_id AND c.a <= s.last AND c.us >= s.us
        ), orphans AS (
            SELECT s.impression_id, s.room_id, s.closes, s.last, c.action, c.us, c.amount FROM shown s
            JOIN act c ON c.impression_id IS NULL AND c.user_id = s.user_id AND c.room_id = s.room_id
                AND c.a <= s.last AND c.us >= s.us AND c.us < s.closes
            WHERE NOT EXISTS (
                SELECT 1 FROM impressions o WHERE o.user_id = s.user_id AND o.room_id = s.room_id AND o.a <= s.last
                AND o.us <= c.us AND (o.us > s.us OR (o.us = s.us AND o.impression_id > s.impression_id)))
        ), both_kinds AS (SELECT * FROM named UNION ALL SELECT * FROM orphans), ends AS (
            SELECT s.impression_id, epoch_us(r.ended_at) - {MICROS} AS ends FROM shown s
            JOIN rooms r ON r.room_id = s.room_id AND {room_counts("s.last", time.max_room_age_days)}
            QUALIFY row_number() OVER (PARTITION BY s.impression_id
                ORDER BY (r.ended_at IS NOT NULL) DESC, r.a DESC, r.us DESC, r.ended_at DESC NULLS LAST) = 1
        )
        SELECT b.impression_id, b.action,
            CASE WHEN b.action = '{WATCH}' THEN least(b.amount, (b.closes - (b.us - b.amount * 1000)) // 1000)
                ELSE b.amount END AS amount,
            b.action = '{WATCH}' AND (b.us >= b.closes OR coalesce(b.us >= e.ends, false)) AS is_cut
        FROM both_kinds b LEFT JOIN ends e USING (impression_id)
        WHERE b.us < b.closes OR (b.action = '{WATCH}' AND b.us - b.amount * 1000 < b.closes)""")
    conversions = dict.fromkeys(label.action for label in labels if label.space == "entered")
    converted = _did(*conversions)
    entered = f"({_did(ENTER)} OR {converted})" if time.conversions_imply_enter else _did(ENTER)
    values = ", ".join(column for label in labels for column in _columns(label, label.action in conversions))
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE now_labels AS
        WITH grouped AS (
            SELECT q.impression_id, {entered} AS entered,
                {", ".join(_aggregates(label) for label in labels)}
            FROM asked q LEFT JOIN done d USING (impression_id) GROUP BY q.impression_id)
        SELECT impression_id, {values} FROM grouped""")
    return "now_labels"


def _did(*actions: str) -> str:
    named = ", ".join(literal(action) for action in actions)
    return f"coalesce(bool_or(d.action IN ({named})), false)"


def _aggregates(label: Label) -> str:
    action, name = literal(label.action), label.name
    return (
        f"{_did(label.action)} AS did_{name}, "
        f"coalesce(sum(d.amount) FILTER (d.action = {action}), 0) AS amount_{name}, "
        f"coalesce(bool_or(d.is_cut) FILTER (d.action = {action}), false) AS cut_{name}"
    )


def _columns(label: Label, is_conversion: bool) -> Iterator[str]:
    """label_* and mask_* over the columns of `grouped`."""
    name = label.name
    judged = "entered" if label.space == "entered" else "true"
    if label.positive_from is None:
        happened = "entered" if label.action == ENTER else f"did_{name}"
        positive = f"({happened} AND entered)" if is_conversion else happened
        masked = f"NOT {judged}"
    else:
        positive = f"amount_{name} >= {round(label.positive_from * 1000)}"
        negative = "true" if label.negative_to is None else f"amount_{name} <= {round(label.negative_to * 1000)}"
        missing = f"(entered AND NOT did_{name})" if label.action == WATCH else "false"
        unclear = f"(NOT {positive} AND (cut_{name} OR NOT {negative}))"
        masked = f"(NOT {judged} OR {missing} OR {unclear})"
    yield f"CAST({positive} AND NOT {masked} AS INTEGER) AS {label_name(name)}"
    yield f"CAST(NOT {masked} AS INTEGER) AS {mask_name(name)}"
