"""What the data is like, measured on the data itself: churn, new pairs, the hottest keys."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import duckdb

from benchmarks.raw_days import Size

BEFORE_DAYS = 30


def stated(peer: duckdb.DuckDBPyConnection, warehouse: Path, size: Size) -> dict[str, float]:
    """Shares of the last raw day.

    Returns:
        active_users of the last day; user_churn: share of them without a row the day before; new_pair_share: of the
        day's (user, anchor) pairs, those without a row in the 30 days before; hottest_anchor_share,
        hottest_user_events over those 30 days.
    """
    day = size.day_list[-1]
    eve = day - dt.timedelta(days=1)
    now, before = _pairs(warehouse, day, day), _pairs(warehouse, eve, eve)
    window = _pairs(warehouse, day - dt.timedelta(days=BEFORE_DAYS), eve)
    (active, churn) = _row(
        peer,
        f"""WITH now AS (SELECT DISTINCT user_id FROM ({now})), before AS (SELECT DISTINCT user_id FROM ({before}))
        SELECT count(*), avg(CAST(before.user_id IS NULL AS INTEGER)) FROM now LEFT JOIN before USING (user_id)""",
    )
    (new_pairs,) = _row(
        peer,
        f"""WITH now AS (SELECT DISTINCT user_id, anchor_id FROM ({now})),
            before AS (SELECT DISTINCT user_id, anchor_id, true AS known FROM ({window}))
        SELECT avg(CAST(known IS NULL AS INTEGER)) FROM now LEFT JOIN before USING (user_id, anchor_id)""",
    )
    (hot_anchor,) = _row(
        peer,
        f"""SELECT max(n) / sum(n) FROM (SELECT count(*) AS n FROM ({window}) GROUP BY anchor_id)""",
    )
    (hot_user,) = _row(peer, f"SELECT max(n) FROM (SELECT count(*) AS n FROM ({window}) GROUP BY user_id)")
    return {
        "active_users": active,
        "user_churn": round(churn, 4),
        "new_pair_share": round(new_pairs, 4),
        "hottest_anchor_share": round(hot_anchor, 4),
        "hottest_user_events": hot_user,
    }


def _pairs(warehouse: Path, first: dt.date, last: dt.date) -> str:
    days = [first + dt.timedelta(days=offset) for offset in range((last - first).days + 1)]
    folders = [warehouse / "raw" / "actions" / f"dt={day.isoformat()}" for day in days]
    files = ", ".join(f"'{folder}/*.parquet'" for folder in folders if folder.exists())
    return f"SELECT user_id, anchor_id FROM read_parquet([{files}])"


def _row(peer: duckdb.DuckDBPyConnection, query: str) -> tuple[float, ...]:
    found = peer.execute(query).fetchone()
    assert found is not None
    return tuple(found)
