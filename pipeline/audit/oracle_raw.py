"""Raw rows as the oracle sees them: every raw table in DuckDB, with only the rows that count.

    day_begins   day date, begins bigint                              when each business day begins, micros since 1970
    asked        impressions: keys, us (ts, micros), day (D), horizon (D), cut (micros)
    <table>      the contract's columns, us (when the row was complete, micros), e (day it happened), a (day it arrived)

Rows count by docs/time.md: in time (a − e ≤ max_lateness_days), the first of repeated keys. `horizon` and `cut`
are the cutoffs: as-of features see rows with e and a before `horizon`; event-time ones rows complete before `cut` with
a ≤ D. They are columns, so that a later cutoff can be tried to explain a value.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from zoneinfo import ZoneInfo

import pyarrow as pa

from pipeline.audit.duck import Connection, make_table, make_view, quoted
from pipeline.config import day_range
from pipeline.context import ONE_DAY, Context
from pipeline.sources.raw_layout import RAW_TABLES, SAMPLED_NEGATIVE

MICROS = 1_000_000
MINUTE = 60 * MICROS
DAY_MICROS = 86_400 * MICROS

_SQL_TYPES = {
    "bigint": "BIGINT",
    "int": "INTEGER",
    "double": "DOUBLE",
    "string": "VARCHAR",
    "date": "DATE",
    "timestamp": "TIMESTAMPTZ",
    "array<string>": "VARCHAR[]",
    "array<float>": "FLOAT[]",
}
_COMPLETE: Mapping[str, str] = {
    "impressions": "epoch_us(ts)",
    "actions": "epoch_us(ts)",
    "rooms": "greatest(epoch_us(started_at), coalesce(epoch_us(ended_at), epoch_us(started_at)))",
    "room_stats": f"epoch_us(minute) + {MINUTE}",
}
"""When a row is complete, in micros."""
_HAPPENED = {**_COMPLETE, "room_stats": "epoch_us(minute)"}


def business_days(connection: Connection, zone: str, days: Iterable[datetime.date]) -> None:
    """Makes `day_begins`, through every day that a row may lie on."""
    known = sorted(days)
    every = day_range(known[0] - 40 * ONE_DAY, known[-1] + 40 * ONE_DAY)
    midnights = [datetime.datetime.combine(day, datetime.time(), ZoneInfo(zone)) for day in every]
    begins = [int(midnight.timestamp()) * MICROS for midnight in midnights]
    table = pa.table({"day": pa.array(every, pa.date32()), "begins": pa.array(begins, pa.int64())})
    make_table(connection, "day_begins", table)


def make_raw_view(
    connection: Connection, name: str, context: Context, table: str, days: Iterable[datetime.date]
) -> None:
    """The files of some raw days, with `dt` as text; without files an empty view of the contract's columns."""
    partitions = context.raw.listing.partitions[table]
    urls = [url for day in sorted(set(days)) if day in partitions for url in partitions[day].file_urls()]
    if urls:
        make_view(connection, name, urls, ["dt"])
        return
    contract = [(field.name, _SQL_TYPES[field.dataType.simpleString()]) for field in RAW_TABLES[table].columns.fields]
    columns = ", ".join(f"NULL::{kind} AS {quoted(column)}" for column, kind in [*contract, ("dt", "VARCHAR")])
    connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT {columns} WHERE false")


def load_raw(
    connection: Connection,
    context: Context,
    table: str,
    days: Iterable[datetime.date],
    *,
    only: str = "true",
    columns: str | None = None,
) -> None:
    """Makes a temporary table of one raw table's rows that count.

    Args:
        only: SQL condition over the contract's columns that rows must meet.
        columns: SQL of the columns to keep; the contract's by default.
    """
    spec = RAW_TABLES[table]
    make_raw_view(connection, "raw_rows", context, table, days)
    kept = columns or ", ".join(quoted(name) for name in spec.column_names())
    if table == "impressions":
        drawn = f"coalesce({SAMPLED_NEGATIVE}, false)" if _has(connection, SAMPLED_NEGATIVE) else "false"
        kept += f", {drawn} AS is_drawn"
    if table in _COMPLETE:
        lateness = context.conf.time.max_lateness_days
        key = ", ".join(quoted(name) for name in spec.key)
        first = f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY a, us) = 1" if spec.kind != "updates" else ""
        sql = f"""
            SELECT r.* EXCLUDE (happened_us), d.day AS e
            FROM (SELECT {kept}, {_COMPLETE[table]} AS us, {_HAPPENED[table]} AS happened_us, CAST(dt AS DATE) AS a
                  FROM raw_rows WHERE {only}) r
            ASOF JOIN day_begins d ON r.happened_us >= d.begins
            WHERE a - e <= {lateness} {first}"""
    else:
        key = ", ".join(quoted(name) for name in spec.key)
        first = f"QUALIFY row_number() OVER (PARTITION BY a, {key}) = 1"
        sql = f"SELECT {kept}, CAST(dt AS DATE) AS a FROM raw_rows WHERE {only} {first}"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {sql}")


def _has(connection: Connection, column: str) -> bool:
    described = connection.execute("SELECT * FROM raw_rows LIMIT 0").description or ()
    return column in [name for name, *_ in described]


def room_counts(cutoff: str, max_room_age_days: int | None) -> str:
    """SQL: whether a row `r` of rooms counts for a cutoff day: it arrived by then, and not too long before."""
    known = f"r.a <= {cutoff}"
    return known if max_room_age_days is None else f"{known} AND r.a >= {cutoff} - {max_room_age_days}"
