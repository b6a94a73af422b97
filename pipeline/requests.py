"""Requests for scores, (user, room, time): which columns they may have, and what must hold before any is scored.

A request is scored with what was known on the morning of its business day. Tables of a later morning know its future;
those of an earlier one are stale, and serve only where that was asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.errors import DataError, Problem
from features.schema import Catalog
from features.spec import DType, Entity, Feature, Field
from pipeline.business_time import local_days, shown
from pipeline.room_logs import ARROW_TYPES, UTC_MICROS

Int64s = NDArray[np.int64]
USER, ANCHOR, ROOM, TIME, ROW_ID = "user_id", "anchor_id", "room_id", "ts", "impression_id"
NEEDED = (USER, ROOM, TIME)
TABLE = "requests"


def request_columns(catalog: Catalog) -> dict[str, pa.DataType]:
    """Columns that requests may have; NEEDED must be there.

    An id and the anchor, columns of the impression that features are, and what the platform knows of the room.
    """
    brought = {name: ARROW_TYPES[feature.dtype] for name, feature in brought_features(catalog).items()}
    return brought | {USER: pa.int64(), ANCHOR: pa.int64(), ROOM: pa.int64(), TIME: UTC_MICROS, ROW_ID: pa.int64()}


def brought_features(catalog: Catalog) -> dict[str, Feature]:
    """Column of requests → the feature that it holds: of the impression by its raw column, of the room by name."""
    own = {f.op.column: f for f in catalog.of_entity(Entity.IMPRESSION) if isinstance(f.op, Field)}
    of_room = {feature.name: feature for feature in catalog.of_entity(Entity.ROOM)}
    return {name: f for name, f in {**own, **of_room}.items() if name not in (USER, ANCHOR)}


def check_columns(columns: Sequence[str], known: Collection[str]) -> None:
    """Raises DataError: columns that must be there are missing, or some mean nothing here."""
    problems = []
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        remedy = f"Write {', '.join(NEEDED)}: who is shown which room, and when"
        problems.append(
            Problem(table=TABLE, what="columns are missing", count=len(missing), examples=missing, remedy=remedy)
        )
    unknown = sorted(set(columns) - set(known))
    if unknown:
        remedy = f"A request may have {', '.join(sorted(known))}; leave others out, or score whole rows instead"
        problems.append(
            Problem(table=TABLE, what="unknown columns", count=len(unknown), examples=unknown, remedy=remedy)
        )
    if problems:
        raise DataError(problems)


def check_values(requests: pa.Table, catalog: Catalog, first: int) -> None:
    """What each row must hold; columns are in their types.

    Args:
        first: number of the first row, from 0, for messages.

    Raises:
        DataError: nulls where a key must be, numbers that are NaN or infinite.
    """
    problems = [
        _of_rows(name, "null", np.asarray(requests[name].is_null()), first, "Give every row one")
        for name in (*NEEDED, ROW_ID)
        if name in requests.column_names and requests[name].null_count
    ]
    for name, feature in brought_features(catalog).items():
        if name in requests.column_names and feature.dtype is DType.DOUBLE:
            bad = np.asarray(pc.fill_null(pc.invert(pc.is_finite(requests[name])), False))
            if bad.any():
                problems.append(_of_rows(name, "NaN or infinite", bad, first, "Write null for what is not known"))
    if problems:
        raise DataError(problems)


def _of_rows(column: str, what: str, bad: NDArray[np.bool_], first: int, remedy: str) -> Problem:
    rows = np.flatnonzero(bad)
    examples = [f"row {first + row:,}" for row in rows[:5]]
    return Problem(table=TABLE, column=column, what=what, count=len(rows), examples=examples, remedy=remedy)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The keys of all requests: [n] int64 each; `at` in micros since 1970 UTC.

    Attributes:
        ids: the requests' own ids; None where they have none.
        anchors: distinct ones that requests name; others are those of their rooms.
    """

    users: Int64s
    rooms: Int64s
    at: Int64s
    ids: Int64s | None
    anchors: Int64s

    @classmethod
    def of(cls, batches: Iterable[pa.Table], catalog: Catalog) -> Asked:
        """One pass over the requests. Raises as `check_values`, and DataError when there is no row."""
        parts: dict[str, list[Int64s]] = {name: [] for name in (USER, ROOM, TIME, ROW_ID, ANCHOR)}
        first = 0
        for batch in batches:
            check_values(batch, catalog, first)
            first += len(batch)
            for name in parts:
                if name in batch.column_names:
                    parts[name].append(_ints(batch[name]))
        if not first:
            raise DataError([Problem(table=TABLE, what="there is no row", remedy="Write one request a row")])
        joined = {name: np.concatenate(arrays) if arrays else None for name, arrays in parts.items()}
        users, rooms, at, ids, anchors = joined.values()
        assert users is not None
        assert rooms is not None
        assert at is not None
        return cls(
            users=users, rooms=rooms, at=at, ids=ids, anchors=np.unique(anchors if anchors is not None else users[:0])
        )

    def check(self, day: int, zone: str, max_age_days: int) -> None:
        """All requests against the tables of one morning, and against each other.

        Args:
            day: number of the day that the serving tables are as of.
            max_age_days: how many days after it a request may be; 0: only that day.

        Raises:
            DataError: requests from before that day, or too long after it; the same request twice.
        """
        problems = [*self._of_other_days(day, zone, max_age_days), *self._repeated()]
        if problems:
            raise DataError(problems)

    def _of_other_days(self, day: int, zone: str, max_age_days: int) -> Iterator[Problem]:
        age = local_days(self.at, zone) - day
        before = "of before the day of the serving tables, which know what came of it"
        after = f"of more than {max_age_days} days after the serving tables" if max_age_days else (
            "of after the day of the serving tables"
        )  # fmt: skip
        mornings = (
            "Score each day with the tables of its own morning: --date DAY, made by `limelight serving --date DAY`"
        )
        for what, bad, remedy in (
            (before, age < 0, mornings),
            (after, age > max_age_days, f"{mornings}; or let older tables serve: --max-age-days N"),
        ):
            rows = np.flatnonzero(bad)
            if len(rows):
                examples = [f"row {row:,} at {shown(int(self.at[row]), zone)}" for row in rows[:5]]
                yield Problem(table=TABLE, column=TIME, what=what, count=len(rows), examples=examples, remedy=remedy)

    def _repeated(self) -> Iterator[Problem]:
        """By their ids where they have some: one room may be shown twice in an instant."""
        columns = (self.users, self.rooms, self.at) if self.ids is None else (self.ids,)
        order = np.lexsort(columns)
        same = np.all([np.diff(column[order]) == 0 for column in columns], axis=0)
        again = np.sort(order[1:][same])
        if len(again):
            name = ", ".join(NEEDED) if self.ids is None else ROW_ID
            examples = [f"row {row:,}" for row in again[:5]]
            remedy = "Give each request once; with an impression_id, a room may be shown twice at the same time"
            yield Problem(
                table=TABLE, column=name, what="repeated requests", count=len(again), examples=examples, remedy=remedy
            )


def _ints(column: pa.ChunkedArray) -> Int64s:
    """Values that are there, as int64."""
    values: Int64s = column.drop_null().combine_chunks().cast(pa.int64()).to_numpy(zero_copy_only=False)
    return values
