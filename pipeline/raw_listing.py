"""What lies in a warehouse's raw tables, listed once per run: days, markers, files.

Raw partitions have no manifests, so names, sizes and modification marks stand for their content: a digest of them
enters the manifest of whatever read the partition, and a replaced raw day is seen.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from pyspark.sql import SparkSession

from features.errors import DataError, NotReadyError, Problem
from pipeline.sources.hadoop_files import FileEntry, HadoopFiles
from pipeline.sources.raw_layout import DAY_COLUMN, RAW_TABLES, READY_MARKER, day_folder, table_folder

DAY_PREFIX = f"{DAY_COLUMN}="


class DayState(Enum):
    """Four different answers to "is the day there?"."""

    READY = "ready"
    EMPTY = "empty"
    """The marker is there, and no row."""
    LATE = "late"
    """Not complete yet: no marker, and nothing says that the day was skipped."""
    MISSING = "missing"
    """No folder, although a later day has one: nobody is going to bring it by itself."""


@dataclass(frozen=True, kw_only=True)
class RawPartition:
    """One day's folder of one table.

    Attributes:
        files: data files only (no marker, nothing that starts with `_` or `.`), by name.
        digest: hex SHA-256 over the files' (name, size, modification mark) and the marker's presence.
    """

    table: str
    day: dt.date
    url: str
    ready: bool
    files: tuple[FileEntry, ...]
    digest: str

    def file_urls(self) -> list[str]:
        return [f"{self.url}/{entry.name}" for entry in self.files]


@dataclass(frozen=True, kw_only=True)
class RawListing:
    """The raw tables at one moment.

    Attributes:
        days: table -> every day that has a folder, ascending.
        partitions: table -> day -> what its folder holds, for the days that were asked for.
    """

    warehouse: str
    days: Mapping[str, tuple[dt.date, ...]]
    partitions: Mapping[str, Mapping[dt.date, RawPartition]]

    def first_day(self, table: str) -> dt.date | None:
        """Where the table's history begins; None for a table without days."""
        return self.days[table][0] if self.days[table] else None

    def since_history(self, table: str, days: Iterable[dt.date]) -> list[dt.date]:
        """`days` without those before the table's history begins (a window may reach back further)."""
        first = self.first_day(table)
        return sorted(day for day in days if first is not None and day >= first)

    def state(self, table: str, day: dt.date) -> DayState:
        """From folder and marker alone; a ready day whose files hold no row is found by `RawInput`."""
        partition = self.partitions[table].get(day)
        if partition is None:
            later = any(other > day for other in self.days[table])
            return DayState.MISSING if later else DayState.LATE
        if not partition.ready:
            return DayState.LATE
        return DayState.READY if partition.files else DayState.EMPTY

    def digests(self, table: str, days: Iterable[dt.date]) -> dict[str, str]:
        """`"<table>/dt=<day>" -> digest`, for the manifest of what reads these days."""
        return {
            f"{table}/{DAY_PREFIX}{day.isoformat()}": self.partitions[table][day].digest
            for day in sorted(days)
            if day in self.partitions[table]
        }


def list_raw(
    spark: SparkSession,
    warehouse: str,
    *,
    first_day: dt.date | None = None,
    last_day: dt.date | None = None,
    tables: Sequence[str] = tuple(RAW_TABLES),
    marker: str = READY_MARKER,
) -> RawListing:
    """Lists each table's folder once, and each day's folder within [first_day, last_day] once.

    Raises:
        DataError: a folder is named like a day and is none (`dt=2025-5-1`).
    """
    files = HadoopFiles(spark, warehouse)
    days = _list_days(files, warehouse, tables)
    partitions = {
        table: {
            day: _list_partition(files, warehouse, table, day, marker)
            for day in known
            if (first_day is None or day >= first_day) and (last_day is None or day <= last_day)
        }
        for table, known in days.items()
    }
    return RawListing(warehouse=warehouse, days=days, partitions=partitions)


def _list_days(files: HadoopFiles, warehouse: str, tables: Sequence[str]) -> dict[str, tuple[dt.date, ...]]:
    days: dict[str, tuple[dt.date, ...]] = {}
    problems: list[Problem] = []
    for table in tables:
        names = [
            entry.name
            for entry in files.entries(table_folder(warehouse, table))
            if entry.is_folder and entry.name.startswith(DAY_PREFIX)
        ]
        odd = [name for name in names if _day_of(name) is None]
        if odd:
            problems.append(
                Problem(
                    what="folder is not a day",
                    table=table,
                    count=len(odd),
                    examples=odd,
                    remedy=f"Name day folders {DAY_PREFIX}YYYY-MM-DD.",
                )
            )
        days[table] = tuple(sorted(day for name in names if (day := _day_of(name)) is not None))
    if problems:
        raise DataError(problems)
    return days


def _day_of(folder: str) -> dt.date | None:
    text = folder.removeprefix(DAY_PREFIX)
    try:
        day = dt.date.fromisoformat(text)
    except ValueError:
        return None
    return day if day.isoformat() == text else None


def _list_partition(files: HadoopFiles, warehouse: str, table: str, day: dt.date, marker: str) -> RawPartition:
    url = day_folder(warehouse, table, day)
    entries = files.entries(url)
    ready = any(entry.name == marker for entry in entries)
    data = tuple(entry for entry in entries if not entry.is_folder and entry.name[0] not in "_.")
    marks = json.dumps([ready, [(entry.name, entry.size, entry.modified_ms) for entry in data]])
    return RawPartition(
        table=table, day=day, url=url, ready=ready, files=data, digest=hashlib.sha256(marks.encode()).hexdigest()
    )


def require_ready(listing: RawListing, wanted: Mapping[str, Iterable[dt.date]]) -> None:
    """Every wanted day must be complete; an empty day is.

    Args:
        wanted: table -> days.

    Raises:
        DataError: at least one day is missing; late ones are named beside it.
        NotReadyError: some days are late and none is missing, so waiting helps.
    """
    problems = {
        (table, day): day_problem(table, day, state)
        for table, days in wanted.items()
        for day in sorted(days)
        if (state := listing.state(table, day)) in (DayState.MISSING, DayState.LATE)
    }
    if not problems:
        return
    some_missing = any(listing.state(table, day) is DayState.MISSING for table, day in problems)
    raise (DataError if some_missing else NotReadyError)(problems.values())


def day_problem(table: str, day: dt.date, state: DayState) -> Problem:
    """The message for a day that is late, missing or empty."""
    what, remedy = {
        DayState.LATE: (
            f"raw day is late: no {READY_MARKER} marker yet",
            "Wait for the job that writes it, or make the marker if the day is complete.",
        ),
        DayState.MISSING: (
            "raw day is missing: a later day exists, this one has no folder",
            "Backfill it; write an empty folder with the marker if nothing happened that day.",
        ),
        DayState.EMPTY: ("raw day is empty: the marker is there, and no row", "Check the job that writes it."),
    }[state]
    return Problem(what=what, remedy=remedy, table=table, day=day.isoformat())
