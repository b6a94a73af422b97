"""The committed serving tables without Spark: of which morning they are, and the rows of the keys asked for.

manifests of serving_<entity>      → the newest day that all wanted tables have
files of that day, filtered        → rows of the keys asked for; row groups that can hold none are not read
keys of n requests                 → [n] place of each one's row, −1 where the table has none
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from features import storage
from features.errors import DataError, NotReadyError, Problem
from features.spec import Entity
from pipeline.manifests import PartitionManifest
from pipeline.stages.names import serving_table
from pipeline.tables import Warehouse

Int64s = NDArray[np.int64]
ABSENT = -1
DAY_PREFIX = "dt="


def served_day(warehouse: Warehouse, entities: Iterable[Entity], day: datetime.date | None) -> datetime.date:
    """The day whose tables serve: the one asked for, or the newest that every table has.

    Raises:
        NotReadyError: names every table that lacks the day, or has no day in common with the others.
    """
    days = {serving_table(entity): _days(warehouse, serving_table(entity)) for entity in entities}
    common = set.intersection(*days.values())
    if day is None and common:
        return max(common)
    if day is not None and day in common:
        return day
    asked = day.isoformat() if day is not None else "DAY"
    remedy = f"Run `limelight serving -w {warehouse.url} --date {asked}`"
    raise NotReadyError(
        Problem(
            table=table,
            day=day.isoformat() if day is not None else None,
            what=f"there is no serving table of {'that' if day is not None else 'any common'} day",
            examples=[f"it has {found.isoformat()}" for found in sorted(has, reverse=True)],
            remedy=remedy,
        )
        for table, has in days.items()
        if day is None or day not in has
    )


def _days(warehouse: Warehouse, table: str) -> set[datetime.date]:
    names = (name for name in warehouse.partitions(table) if name.startswith(DAY_PREFIX))
    return {datetime.date.fromisoformat(name.removeprefix(DAY_PREFIX)) for name in names}


@dataclass(frozen=True, kw_only=True)
class ServedRows:
    """Rows of one serving table, one per key; `keys` are its key columns."""

    keys: tuple[str, ...]
    rows: pa.Table

    def places(self, asked: Mapping[str, pa.Array]) -> Int64s:
        """[n] keys, column by column → [n] number of the row of each, −1 where there is none."""
        codes = self._codes(asked)
        table, order = self._sorted
        if not len(table):
            return np.full(len(codes), ABSENT, dtype=np.int64)
        found = np.minimum(np.searchsorted(table, codes), len(table) - 1)
        return np.where((codes >= 0) & (table[found] == codes), order[found], ABSENT)

    @cached_property
    def _distinct(self) -> dict[str, pa.Array]:
        return {key: pc.unique(self.rows[key]) for key in self.keys}

    @cached_property
    def _sorted(self) -> tuple[Int64s, Int64s]:
        codes = self._codes({key: self.rows[key].combine_chunks() for key in self.keys})
        order = np.argsort(codes, kind="stable")
        return codes[order], order

    def _codes(self, keys: Mapping[str, pa.Array]) -> Int64s:
        """[n] one number per key of this table, −1 for what is none of its keys."""
        codes, known = np.zeros(len(keys[self.keys[0]]), dtype=np.int64), True
        for key in self.keys:
            distinct = self._distinct[key]
            part = pc.fill_null(pc.index_in(keys[key], value_set=distinct), ABSENT)
            part = part.to_numpy(zero_copy_only=False).astype(np.int64)
            codes, known = codes * max(1, len(distinct)) + part, known & (part >= 0)
        return np.where(known, codes, ABSENT)


def read_served(
    warehouse: Warehouse,
    entity: Entity,
    day: datetime.date,
    columns: pa.Schema,
    asked: Mapping[str, pa.Array],
) -> ServedRows:
    """The rows of the keys asked for, in the columns asked for.

    Args:
        columns: names and types, the entity's keys among them.
        asked: key column → values; only rows that have one of them are kept. Other keys are not looked at.

    Raises:
        NotReadyError: the day was not computed.
        DataError: the table lacks a column.
    """
    table = serving_table(entity)
    manifest = warehouse.require(table, [day])[day]
    _check_columns(manifest, columns.names)
    if not manifest.files:
        return ServedRows(keys=entity.keys, rows=columns.empty_table())
    filesystem, _ = storage.resolve(warehouse.url)
    paths = [storage.resolve(url)[1] for url in warehouse.file_urls(manifest)]
    found = ds.dataset(paths, filesystem=filesystem, format="parquet")
    return ServedRows(keys=entity.keys, rows=found.to_table(columns=columns.names, filter=_holds(asked)).cast(columns))


def _holds(asked: Mapping[str, pa.Array]) -> ds.Expression:
    """Rows with one of the values in each column; the ranges are what lets row groups be left out."""
    wanted = pc.scalar(True)
    for name, values in asked.items():
        ends = pc.min_max(values)
        in_range = (ds.field(name) >= ends["min"]) & (ds.field(name) <= ends["max"])
        wanted = wanted & in_range & ds.field(name).isin(values)
    return wanted


def _check_columns(manifest: PartitionManifest, wanted: Collection[str]) -> None:
    known = {name for name, _ in manifest.schema_}
    missing = [name for name in wanted if name not in known]
    if missing:
        raise DataError(
            [
                Problem(
                    table=manifest.table,
                    day=manifest.partition.removeprefix(DAY_PREFIX),
                    what="columns that the model reads are missing: the table was made by another catalog",
                    count=len(missing),
                    examples=missing,
                    remedy="Run `limelight serving` for the day again, or score with the catalog of the model",
                )
            ]
        )
