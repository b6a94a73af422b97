"""`limelight score --requests`: (user, room, time) in, joined with the serving tables of their morning, scores out.

    requests, their keys alone      checked, all of them, before anything is scored
    serving tables, raw room logs   the rows of the users, anchors and rooms asked for, kept in memory
    requests, batch by batch        joined, scored, written (training.scoring)

No Spark session is started: the tables are read as the Parquet files that their manifests list.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from features.errors import DataError, Problem
from features.schema import load_catalog
from features.storage import exists
from jobs.console import errors
from jobs.evaluate import settings_of
from jobs.score import Chosen, note, score_rows
from pipeline.business_time import local_days, number_of_day
from pipeline.config import TimeConf
from pipeline.request_rows import DAY_COLUMN, Joiner, WantedParts
from pipeline.requests import NEEDED, ROW_ID, TABLE, TIME, Asked, check_columns, request_columns
from pipeline.room_logs import RoomLogs
from pipeline.served import read_served, served_day
from pipeline.sources.raw_layout import raw_folder
from pipeline.tables import Warehouse
from training.raw_rows import Rows, Types, open_rows, typed
from training.scorer import Scorer
from training.scoring import Wanted


@dataclass(frozen=True, kw_only=True)
class Served:
    """Where requests find what was known.

    Attributes:
        warehouse: path or URL: its serving tables, and its raw logs of rooms.
        date: the morning; the newest by default.
        max_age_days: how many days after it a request may be.
    """

    warehouse: str
    date: datetime.date | None
    max_age_days: int


@dataclass(frozen=True, kw_only=True)
class RequestRows:
    """Requests as rows of raw features (training.raw_rows.Rows)."""

    source: Rows
    known: Types
    joiner: Joiner
    columns: Sequence[str]

    @property
    def total(self) -> int | None:
        """As many as there are requests."""
        return self.source.total

    def batches(self, size: int, _wanted: Types) -> Iterator[pa.Table]:
        """See Rows."""
        for batch in typed_requests(self.source, self.known, size):
            yield self.joiner.rows(batch)


def typed_requests(source: Rows, known: Types, size: int) -> Iterator[pa.Table]:
    """Requests a few at a time, their columns in the types that are known; a needed one that is absent is null.

    Raises:
        DataError: columns of other types, or times that do not say in which zone they are.
    """
    for batch in source.batches(size, known):
        for name in NEEDED:
            if name not in batch.column_names:
                batch = batch.append_column(name, pa.nulls(len(batch), known[name]))
        kind = batch.schema.field(TIME).type
        if pa.types.is_timestamp(kind) and kind.tz is None:
            remedy = "Write timestamps in UTC, or with their zone: 2025-03-19T21:05:00+08:00"
            raise DataError([Problem(table=TABLE, column=TIME, what="times that name no zone", remedy=remedy)])
        rows, problems = typed(batch, known)
        if problems:
            raise DataError(problems)
        yield rows


def score_requests(
    requests: str, out: Path, chosen: Chosen, served: Served, *, day: datetime.date | None, rows_at_once: int
) -> None:
    """Join a file of requests with serving tables, and score them.

    Raises:
        NotReadyError: there are no serving tables of the day.
        DataError: requests that are not what they must be; nothing is written then.
    """
    scorer = Scorer.open(chosen.url(), examples=True)
    rows = joined_requests(open_rows(requests), scorer, served, chosen.place, rows_at_once)
    score_rows(rows, out, scorer, day=day, rows_at_once=rows_at_once)
    for what, count in rows.joiner.unknown.items():
        if count:
            note(f"{count:,} requests whose {what} no table knows: the defaults of its features stand for it")


def joined_requests(source: Rows, scorer: Scorer, served: Served, place: str, rows_at_once: int) -> RequestRows:
    """Everything that is to be known of the requests, once it is certain that they can be scored. Raises as above."""
    catalog, warehouse = load_catalog(), Warehouse(served.warehouse)
    time = settings_of(warehouse, place, ())[0].pipeline.time
    known = request_columns(catalog)
    check_columns(source.columns, known)
    reads = Wanted.of(scorer)
    wanted = WantedParts.of(catalog, tuple(reads.needed))
    date = served_day(warehouse, wanted.entities, served.date)
    asked = Asked.of(typed_requests(source, known, rows_at_once), catalog)
    asked.check(number_of_day(date), time.zone, served.max_age_days)
    rooms = _room_logs(warehouse, wanted, asked, time)
    anchors = np.unique(np.r_[asked.anchors, rooms.anchors if rooms is not None else asked.anchors])
    keys = {"user_id": pa.array(np.unique(asked.users)), "anchor_id": pa.array(anchors)}
    tables = {
        entity: read_served(
            warehouse, entity, date, wanted.columns_of(entity), {key: keys[key] for key in entity.keys if key in keys}
        )
        for entity in wanted.entities
    }
    _tell(wanted, source.columns, date, rooms)
    joiner = Joiner(wanted=wanted, catalog=catalog, time=time, tables=tables, rooms=rooms)
    ids = [ROW_ID] if ROW_ID in source.columns else []
    return RequestRows(source=source, known=known, joiner=joiner, columns=[DAY_COLUMN, *ids, *reads.needed])


def _room_logs(warehouse: Warehouse, wanted: WantedParts, asked: Asked, time: TimeConf) -> RoomLogs | None:
    """What the raw logs say of the rooms asked for; None where there are none."""
    if not exists(raw_folder(warehouse.url)):
        return None
    days = local_days(asked.at, time.zone)
    first_and_last = (int(days.min()), int(days.max()))
    return RoomLogs.read(warehouse.url, wanted.room, time, rooms=np.unique(asked.rooms), days=first_and_last)


def _tell(wanted: WantedParts, columns: Sequence[str], date: datetime.date, rooms: RoomLogs | None) -> None:
    errors.print(f"[dim]serving tables of {date.isoformat()}[/]")
    absent = [f.op.column for f in wanted.own if hasattr(f.op, "column") and f.op.column not in (*columns, "anchor_id")]
    if absent:
        note(f"the requests have no column {', '.join(absent)}: the defaults of the features stand for them")
    if rooms is None:
        note("no raw logs lie beside the serving tables: of rooms only what the requests bring is known")
    elif rooms.missing:
        note(f"what happened in rooms on these days is not known, they are not ready: {', '.join(rooms.missing)}")
