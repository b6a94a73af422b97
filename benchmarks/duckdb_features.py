"""The peer: the same features of one day D from the same raw Parquet, as one would write them for DuckDB.

One pass per family with conditional aggregates over the log of the window; no tiles, as one day needs none. Business
days are computed from micros by the zone's offset (Asia/Shanghai has had one since 1991), which is faster than a
time zone's calendar. Columns, types and values are those of `features.spark.profiles` and `features.spark.sequences`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from pathlib import Path

import duckdb

from features.schema import Catalog, sequence_name
from features.spec import (
    ActiveDays,
    DaysSinceLast,
    DistinctPartners,
    DType,
    Entity,
    Feature,
    Measure,
    OnAir,
    Rate,
    SequenceFeature,
    Sum,
    TopCategory,
)

ZONE_MICROS = 8 * 3600 * 1_000_000
DAY_MICROS = 86_400 * 1_000_000
THREADS = 2
TYPES = {DType.STRING: "varchar"}


def connect(memory: str, scratch: Path) -> duckdb.DuckDBPyConnection:
    """A connection with as many threads as Spark has, spilling into `scratch`."""
    connection = duckdb.connect()
    connection.execute(f"SET threads = {THREADS}")
    connection.execute(f"SET memory_limit = '{memory}'")
    connection.execute(f"SET temp_directory = '{scratch}'")
    connection.execute("SET preserve_insertion_order = false")
    # Behind CTEs it expects a few rows and would join them in nested loops: seen ten times slower.
    connection.execute("SET asof_loop_join_threshold = 0")
    return connection


def family_sql(family: str, catalog: Catalog, warehouse: Path, day: dt.date, event_lag_s: int) -> str:
    """A query for one family: an entity's profiles as of `day`, or the sequences of the day's impressions."""
    if family == "sequences":
        return _sequences(catalog, warehouse, day, event_lag_s)
    return _profiles(Entity(family), catalog, warehouse, day)


def copy(connection: duckdb.DuckDBPyConnection, query: str, target: Path) -> None:
    """Run a query into one Parquet file, compressed as Spark's is."""
    connection.execute(f"COPY ({query}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)")


def digest(connection: duckdb.DuckDBPyConnection, files: str, columns: Iterable[str]) -> str:
    """Rows, and the order-free sum of row hashes, of Parquet files."""
    names = ", ".join(columns)
    found = connection.execute(f"SELECT count(*), sum(hash({names})::HUGEINT) FROM read_parquet('{files}')").fetchone()
    assert found is not None
    return f"{found[0]}-{found[1] or 0:x}"


# --- Reading ---------------------------------------------------------------------------------------------------


def _files(warehouse: Path, table: str, first: dt.date, last: dt.date) -> str:
    """read_parquet over the days of a table that are there, with `dt`."""
    days = [first + dt.timedelta(days=offset) for offset in range((last - first).days + 1)]
    folders = [warehouse / "raw" / table / f"dt={day.isoformat()}" for day in days]
    listed = ", ".join(f"'{folder}/*.parquet'" for folder in folders if folder.exists())
    return f"read_parquet([{listed}], hive_partitioning = true)"


def _day_of(ts: str) -> str:
    """Days since 1970 of a timestamp, business time."""
    return f"CAST((epoch_us({ts}) + {ZONE_MICROS}) // {DAY_MICROS} AS INTEGER)"


def _number(day: str) -> str:
    return f"date_diff('day', DATE '1970-01-01', {day})"


def _log(warehouse: Path, day: dt.date, days: int) -> str:
    """user_id, anchor_id, room_id, arrived, age (D − day it happened), action (null: an impression), value."""
    first, last = day - dt.timedelta(days=days), day - dt.timedelta(days=1)
    age = f"{_number(_date(day))} - {_day_of('ts')}"
    columns = f"user_id, anchor_id, room_id, dt AS arrived, {age} AS age"
    return f"""
        SELECT * FROM (
            SELECT {columns}, NULL AS action, 0.0 AS value FROM {_files(warehouse, "impressions", first, last)}
            UNION ALL
            SELECT {columns}, action, value FROM {_files(warehouse, "actions", first, last)}
        ) WHERE age BETWEEN 1 AND {days}"""


def _date(day: dt.date) -> str:
    return f"DATE '{day.isoformat()}'"


def _versions(warehouse: Path, day: dt.date, columns: tuple[str, ...]) -> str:
    """Of each room, what was known by which cutoff: room_id, columns, valid_from, valid_to (`features.spark.rooms`)."""
    rooms = _files(warehouse, "rooms", _first_day(warehouse), day - dt.timedelta(days=1))
    packed = ", ".join(f"{name} := {name}" for name in columns)
    unpacked = ", ".join(f"newest.{name} AS {name}" for name in columns)
    newest = f"struct_pack(a := ended_at IS NOT NULL, b := dt, c := greatest(started_at, ended_at), {packed})"
    return f"""
        SELECT room_id, {unpacked}, valid_from, coalesce(valid_to, DATE '9999-12-31') AS valid_to FROM (
            SELECT room_id, dt AS valid_from,
                max(of_day) OVER (PARTITION BY room_id ORDER BY dt) AS newest,
                lead(dt) OVER (PARTITION BY room_id ORDER BY dt) AS valid_to
            FROM (SELECT room_id, dt, max({newest}) AS of_day FROM {rooms} GROUP BY room_id, dt)
        )"""


def _first_day(warehouse: Path) -> dt.date:
    folders = sorted(folder.name for folder in (warehouse / "raw" / "rooms").iterdir())
    return dt.date.fromisoformat(folders[0].removeprefix("dt="))


# --- Profiles --------------------------------------------------------------------------------------------------


def _profiles(entity: Entity, catalog: Catalog, warehouse: Path, day: dt.date) -> str:
    windows = catalog.windows(entity)
    longest = max(feature.days or 0 for feature in windows)
    own = [feature for feature in windows if not isinstance(feature.op, TopCategory | OnAir)]
    keys = ", ".join(entity.keys)
    aggregates = ",\n".join(f"{_aggregate(feature)} AS {feature.name}" for feature in own)
    source = _log(warehouse, day, longest)
    if "category" in entity.keys:
        source = _with_category(source, warehouse, day)
    parts = [f"WITH own AS (SELECT {keys}, {aggregates} FROM ({source}) GROUP BY {keys})"]
    tables = "own"
    if tops := [feature for feature in windows if isinstance(feature.op, TopCategory)]:
        parts.append(f"tops AS ({_tops(tops, warehouse, day)})")
        tables += " LEFT JOIN tops USING (user_id)"
    if on_air := [feature for feature in windows if isinstance(feature.op, OnAir)]:
        parts.append(f"air AS ({_on_air(on_air, warehouse, day)})")
        tables += " FULL OUTER JOIN air USING (anchor_id)"
    values = ", ".join(f"CAST({_or_default(f)} AS {TYPES.get(f.dtype, f.dtype)}) AS {f.name}" for f in windows)
    return f"{', '.join(parts)} SELECT {_date(day)} AS day, {keys}, {values} FROM {tables}"


def _or_default(feature: Feature) -> str:
    default = feature.default
    text = f"'{default}'" if isinstance(default, str) else repr(default)
    return f"coalesce({feature.name}, {text})"


def _amount(measure: Measure) -> str:
    return "1" if measure.value_scale is None else f"CAST(round(value * {measure.value_scale}) AS BIGINT)"


def _is(measure: Measure) -> str:
    return "action IS NULL" if measure.action is None else f"action = '{measure.action}'"


def _is_active(measure: Measure) -> str:
    """A row that makes the measure of its day above 0."""
    return f"{_is(measure)} AND {_amount(measure)} > 0"


def _sum(measure: Measure, days: int) -> str:
    total = f"sum({_amount(measure)}) FILTER (WHERE {_is(measure)} AND age <= {days})"
    return f"CAST(coalesce({total}, 0) AS BIGINT)"


def _aggregate(feature: Feature) -> str:
    match feature.op:
        case Sum(measure=measure, days=days):
            return _sum(measure, days)
        case Rate(numerator=above, denominator=below, days=days, prior=prior, strength=strength):
            prior_sum, weight = f"CAST({prior * strength!r} AS DOUBLE)", f"CAST({float(strength)!r} AS DOUBLE)"
            return f"({_sum(above, days)} + {prior_sum}) / ({_sum(below, days)} + {weight})"
        case ActiveDays(measure=measure, days=days):
            active = f"FILTER (WHERE {_is_active(measure)} AND age <= {days})"
            return f"bit_count(coalesce(bit_or(CAST(1 AS BIGINT) << (age - 1)) {active}, 0))"
        case DaysSinceLast(measure=measure, days=days):
            return f"coalesce(min(age) FILTER (WHERE {_is_active(measure)} AND age <= {days}), {days + 1})"
        case DistinctPartners(measure=measure, days=days):
            partner = "anchor_id" if feature.entity is Entity.USER else "user_id"
            return f"count(DISTINCT {partner}) FILTER (WHERE {_is_active(measure)} AND age <= {days})"
    raise TypeError(f"{feature.name}: {type(feature.op).__name__}")


def _with_category(log: str, warehouse: Path, day: dt.date) -> str:
    return f"""
        SELECT log.*, coalesce(category, '') AS category FROM ({log}) AS log
        LEFT JOIN ({_versions(warehouse, day, ("category",))}) AS versions
        ON log.room_id = versions.room_id AND arrived >= valid_from AND arrived < valid_to"""


def _tops(features: list[Feature], warehouse: Path, day: dt.date) -> str:
    """user_id and the category with the largest sum above 0, ties by name."""
    ops = {feature.name: feature.op for feature in features if isinstance(feature.op, TopCategory)}
    kinds = " OR ".join(_is(op.measure) for op in ops.values())
    log = f"SELECT * FROM ({_log(warehouse, day, max(op.days for op in ops.values()))}) WHERE {kinds}"
    sums = ", ".join(f"{_sum(op.measure, op.days)} AS {name}" for name, op in ops.items())
    best = ", ".join(f"arg_min(category, (-{name}, category)) FILTER (WHERE {name} > 0) AS {name}" for name in ops)
    by_category = f"SELECT user_id, category, {sums} FROM ({_with_category(log, warehouse, day)}) GROUP BY ALL"
    return f"SELECT user_id, {best} FROM ({by_category}) GROUP BY user_id"


def _on_air(features: list[Feature], warehouse: Path, day: dt.date) -> str:
    """anchor_id and milliseconds on air; only anchors that were."""
    ops = {feature.name: feature.op for feature in features if isinstance(feature.op, OnAir)}
    versions = _versions(warehouse, day, ("anchor_id", "started_at", "ended_at"))
    ends = f"{_number(_date(day))} * {DAY_MICROS // 1000} - {ZONE_MICROS // 1000}"
    sums = []
    for name, op in ops.items():
        begins = f"({ends} - {op.days * DAY_MICROS // 1000})"
        latest = f"least(epoch_ms(ended_at), epoch_ms(started_at) + {op.max_session_hours * 3_600_000}, {ends})"
        overlap = f"greatest({latest} - greatest(epoch_ms(started_at), {begins}), 0)"
        sums.append(f"sum({overlap}) AS {name}")
    known = f"WHERE valid_from < {_date(day)} AND valid_to >= {_date(day)}"
    some = " OR ".join(f"{name} > 0" for name in ops)
    return f"SELECT anchor_id, {', '.join(sums)} FROM ({versions}) {known} GROUP BY anchor_id HAVING {some}"


# --- Sequences -------------------------------------------------------------------------------------------------


def _sequences(catalog: Catalog, warehouse: Path, day: dt.date, event_lag_s: int) -> str:
    """Events are numbered per user; an impression finds its last and its first number by ASOF joins.

    1. events of the reach, with the category of the room as of the event
    2. per user and sequence: numbered by (ts, action_id)
    3. impression ASOF events before the cutoff, ASOF events not too old → numbers
    4. ⋈ events by (user, number), aggregated into one list per impression
    """
    reach = max(sequence.max_age_days for sequence in catalog.sequences)
    first = day - dt.timedelta(days=reach)
    kinds = ", ".join(f"'{action}'" for action in dict.fromkeys(s.action for s in catalog.sequences))
    rooms = _files(warehouse, "rooms", _first_day(warehouse), day)
    known = "struct_pack(a := greatest(epoch_us(started_at), epoch_us(ended_at)), b := dt, c := category)"
    parts = [
        f"rooms AS (SELECT room_id, list({known}) AS known FROM {rooms} GROUP BY room_id)",
        f"""events AS (
            SELECT user_id, action, action_id, anchor_id, value, epoch_us(ts) AS moment,
                coalesce(list_max(list_filter(known, lambda r: r.b <= arrived AND r.a <= epoch_us(ts))).c, '')
                    AS category
            FROM (SELECT *, dt AS arrived FROM {_files(warehouse, "actions", first, day)} WHERE action IN ({kinds}))
            LEFT JOIN rooms USING (room_id))""",
        f"""shown AS (
            SELECT impression_id, user_id, epoch_us(ts) AS moment, epoch_us(ts) - {event_lag_s * 1_000_000} AS cutoff
            FROM {_files(warehouse, "impressions", day, day)}
            WHERE {_day_of("ts")} = {_number(_date(day))})""",
    ]
    joins, selected = "", ["impression_id"]
    for sequence in catalog.sequences:
        parts += _sequence_parts(sequence)
        joins += f" LEFT JOIN {sequence.name}_of USING (impression_id)"
        for field in sequence.fields:
            name, kind = sequence_name(sequence.name, field.name), "VARCHAR" if field.source == "category" else "BIGINT"
            selected.append(f"coalesce({name}, CAST([] AS {kind}[])) AS {name}")
    return f"WITH {', '.join(parts)} SELECT {', '.join(selected)} FROM shown{joins}"


def _sequence_parts(sequence: SequenceFeature) -> list[str]:
    name, age = sequence.name, sequence.max_age_days * DAY_MICROS
    lists = ", ".join(
        f"list({_amount_of(field.source)} ORDER BY number DESC) AS {sequence_name(name, field.name)}"
        for field in sequence.fields
    )
    return [
        f"""{name}_events AS (SELECT *, row_number() OVER (PARTITION BY user_id ORDER BY moment, action_id) AS number
            FROM events WHERE action = '{sequence.action}')""",
        # The number of events before an instant: that of the last of equal moments is the largest.
        f"{name}_steps AS (SELECT user_id, moment, max(number) AS number FROM {name}_events GROUP BY user_id, moment)",
        f"""{name}_seen AS (
            SELECT impression_id, shown.user_id, shown.moment AS shown_at, shown.moment - {age} AS born, number AS last
            FROM shown
            ASOF JOIN {name}_steps AS steps ON shown.user_id = steps.user_id AND shown.cutoff > steps.moment)""",
        f"""{name}_numbers AS (
            SELECT impression_id, seen.user_id, shown_at,
                unnest(range(greatest(last - {sequence.length}, coalesce(old.number, 0)) + 1, last + 1)) AS number
            FROM {name}_seen AS seen
            ASOF LEFT JOIN {name}_steps AS old ON seen.user_id = old.user_id AND seen.born > old.moment)""",
        f"""{name}_of AS (
            SELECT impression_id, {lists} FROM {name}_numbers JOIN {name}_events USING (user_id, number)
            GROUP BY impression_id)""",
    ]


def _amount_of(source: str) -> str:
    amounts = {
        "watch_ms": "CAST(round(value * 1000) AS BIGINT)",
        "coins": "CAST(round(value) AS BIGINT)",
        "age_s": "(shown_at - moment) // 1000000",
    }
    return amounts.get(source, source)
