"""Unencoded sample rows → the numbers a model reads. One implementation for export and for serving.

Pure pyarrow and numpy: Spark calls it inside mapInArrow, the scorer without Spark, and both get equal ids.

Steps, for n rows:
  1. ids       value → position in the sorted keys of its vocabulary → id; OOV unless admitted, and not evicted, by
               the row's day
  2. buckets   number → 2 + number of boundaries ≤ value
  3. dense     (transform(x) − mean) / std, in float64, stored as float32
  4. vectors   list<float> → [n, dim], zeros when absent or of another length
  5. sequences ragged lists → flat ids (steps 1, 2 with the row's day repeated) → [n, L], newest first, 0-padded
  6. leaves    [n, features] float32 → booster → leaf node per tree [n, T] → 2 + node
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features import manifest as names
from features.errors import DataError, Problem
from features.manifest import EVICTED_ON, FIRST_KEY_ID, OOV_ID, PADDING_ID, TrainSet
from features.schema import label_name, mask_name, sequence_name
from features.storage import open_input

IntArray = npt.NDArray[np.int32]
DayArray = npt.NDArray[np.int32]
ColumnEncoder = Callable[[pa.Array, DayArray], IntArray]
EPOCH = datetime.date(1970, 1, 1)
NEVER = np.iinfo(np.int32).max
ALWAYS = NEVER - 1
"""A day by which everything was admitted and evicted that ever is."""


def flat_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """One contiguous array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


@dataclass(frozen=True, kw_only=True)
class VocabularyIndex:
    """Look-up of one vocabulary: keys sorted, with the id and the days of each. A row of day d has the id of its key if
    admitted_on ≤ d < evicted_on.

    Attributes:
        keys: [k] int64 or string, ascending.
        ids: [k] int32.
        admitted_on: [k] int32, days since 1970-01-01.
        evicted_on: [k] int32, likewise; NEVER where it is not evicted.
    """

    keys: pa.Array
    ids: IntArray
    admitted_on: DayArray
    evicted_on: DayArray

    @classmethod
    def from_table(cls, table: pa.Table) -> VocabularyIndex:
        """From columns key, id, admitted_on, evicted_on (null: not evicted; without the column none is)."""
        ordered = table.sort_by("key")
        evicted_on = np.full(len(ordered), NEVER, dtype=np.int32)
        if EVICTED_ON in ordered.column_names:
            evicted_on = _days_since_epoch(pc.fill_null(ordered[EVICTED_ON].cast(pa.int32()), NEVER))
        return cls(
            keys=flat_array(ordered["key"]),
            ids=ordered["id"].to_numpy().astype(np.int32),
            admitted_on=_days_since_epoch(ordered["admitted_on"].cast(pa.int32())),
            evicted_on=evicted_on,
        )

    def encode(self, values: pa.Array, days: DayArray) -> IntArray:
        """[n] values, [n] day of each row → [n] ids; OOV where unknown, null, not admitted by that day, or evicted."""
        if len(self.keys) == 0:
            return np.full(len(values), OOV_ID, dtype=np.int32)
        found = pc.index_in(values.cast(self.keys.type), value_set=self.keys)
        at = pc.fill_null(found, 0).to_numpy()
        known = np.asarray(pc.is_valid(found)) & (self.admitted_on[at] <= days) & (days < self.evicted_on[at])
        return np.where(known, self.ids[at], OOV_ID).astype(np.int32)


def _days_since_epoch(column: pa.ChunkedArray) -> DayArray:
    days: DayArray = flat_array(column).to_numpy().astype(np.int32)
    return days


@dataclass(frozen=True, kw_only=True)
class HashedIndex:
    """Ids by a hash of the value's text: 2 + BLAKE2b(text) mod `buckets`; null is OOV."""

    buckets: int

    def encode(self, values: pa.Array, _days: DayArray) -> IntArray:
        """[n] values → [n] ids, the same on every machine."""
        distinct = values.dictionary_encode()
        texts = (str(value).encode() for value in distinct.dictionary.to_pylist())
        hashes = (int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") for text in texts)
        ids = np.array([FIRST_KEY_ID + found % self.buckets for found in hashes], dtype=np.int32)
        places = pc.fill_null(distinct.indices, -1).to_numpy(zero_copy_only=False)
        encoded: IntArray = np.append(ids, np.int32(OOV_ID))[places]
        return encoded


def bucketize(values: pa.Array, boundaries: tuple[float, ...]) -> IntArray:
    """[n] numbers → [n] ids, 2 + number of boundaries ≤ value; null → OOV."""
    numbers = pc.fill_null(values.cast(pa.float64()), 0.0).to_numpy()
    ids = FIRST_KEY_ID + np.searchsorted(np.asarray(boundaries), numbers, side="right")
    return np.where(np.asarray(pc.is_valid(values)), ids, OOV_ID).astype(np.int32)


def _lengths(lists: pa.Array) -> npt.NDArray[np.int64]:
    lengths: npt.NDArray[np.int64] = pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64)
    return lengths


def pad_sequences(flat: IntArray, lengths: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int32]:
    """Concatenated ids and the number of each row → [n, length], kept from the front, padded at the end."""
    n = len(lengths)
    out = np.full((n, length), PADDING_ID, dtype=np.int32)
    rows = np.repeat(np.arange(n), lengths)
    starts = np.cumsum(lengths) - lengths
    places = np.arange(len(flat)) - np.repeat(starts, lengths)
    kept = places < length
    out[rows[kept], places[kept]] = flat[kept]
    return out


def fixed_lists(matrix: npt.NDArray[Any]) -> pa.ListArray:
    """[n, L] → list array of n lists of L (petastorm drops FixedSizeList; see stack.md, trap 2)."""
    n, length = matrix.shape
    offsets = pa.array(np.arange(0, (n + 1) * length, length, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(matrix.reshape(-1)))


class Encoder:
    """Encodes sample rows by the artefacts of one train set.

    Raises:
        DataError: names every column that the samples lack.
    """

    def __init__(self, trainset: TrainSet, vocabularies: Mapping[str, VocabularyIndex], booster: Any = None) -> None:
        self.trainset = trainset
        hashed = {v.name: HashedIndex(buckets=v.num_ids - FIRST_KEY_ID) for v in trainset.vocabularies if v.hashed}
        self._vocabularies: Mapping[str, VocabularyIndex | HashedIndex] = {**vocabularies, **hashed}
        self._booster = booster

    @classmethod
    def load(cls, trainset: TrainSet, root: str) -> Encoder:
        """`root`: URL or path of the folder that `trainset`'s paths are relative to."""
        indexes = {}
        for vocabulary in trainset.vocabularies:
            if vocabulary.path is not None:
                with open_input(f"{root}/{vocabulary.path}") as source:
                    indexes[vocabulary.name] = VocabularyIndex.from_table(pq.read_table(source))
        booster = None
        if trainset.leaves is not None:
            with open_input(f"{root}/{trainset.leaves.path}") as source:
                booster = load_booster(source.read())
        return cls(trainset, indexes, booster)

    def columns(self) -> tuple[str, ...]:
        """Sample columns that encoding needs; labels, masks and position are used when present."""
        trainset = self.trainset
        needed = [f.name for f in trainset.categorical if f.kind != "leaf"]
        needed += [f.name for f in trainset.dense] + [f.name for f in trainset.vectors]
        needed += [sequence_name(s.name, f.name) for s in trainset.sequences for f in s.fields]
        needed += list(trainset.leaves.features) if trainset.leaves else []
        return tuple(dict.fromkeys((*needed, trainset.row_id_from, trainset.group_from)))

    def encode(self, samples: pa.Table | pa.RecordBatch, day: datetime.date | None = None) -> pa.Table:
        """n sample rows → n encoded rows, columns as named in `features.manifest`, in the manifest's order.

        Args:
            day: the day whose admissions and evictions count for every row; default the row's own `dt`, and without
                a `dt` column everything that the vocabulary holds: what is evicted is out.
        """
        table = pa.Table.from_batches([samples]) if isinstance(samples, pa.RecordBatch) else samples
        self._check_columns(table)
        days = self._days(table, day)
        encoded: dict[str, pa.Array] = {
            names.ROW_ID_COLUMN: flat_array(table[self.trainset.row_id_from]).cast(pa.int64()),
            names.GROUP_COLUMN: flat_array(table[self.trainset.group_from]).cast(pa.int64()),
        }
        encoded |= self._categorical(table, days)
        encoded |= self._dense(table)
        encoded |= self._sequences(table, days)
        encoded |= self._supervision(table)
        return pa.table(encoded)

    def _check_columns(self, table: pa.Table) -> None:
        missing = [name for name in self.columns() if name not in table.column_names]
        if missing:
            raise DataError(
                [
                    Problem(
                        table="samples",
                        what="columns that the train set was encoded from are missing",
                        count=len(missing),
                        examples=missing,
                        remedy="Rebuild the samples with the catalog that this model was trained with",
                    )
                ]
            )

    @staticmethod
    def _days(table: pa.Table, day: datetime.date | None) -> DayArray:
        if day is not None:
            return np.full(len(table), (day - EPOCH).days, dtype=np.int32)
        if "dt" in table.column_names:
            days: DayArray = flat_array(table["dt"]).cast(pa.date32()).cast(pa.int32()).to_numpy().astype(np.int32)
            return days
        return np.full(len(table), ALWAYS, dtype=np.int32)

    def _values(
        self, vocabulary: str, boundaries: tuple[float, ...] | None
    ) -> Callable[[pa.Array, DayArray], IntArray]:
        if boundaries is not None:
            return lambda values, _days: bucketize(values, boundaries)
        return self._vocabularies[vocabulary].encode

    def _categorical(self, table: pa.Table, days: DayArray) -> dict[str, pa.Array]:
        leaves = iter(self.leaf_ids(table).T) if self.trainset.leaves else iter(())
        out: dict[str, pa.Array] = {}
        for field in self.trainset.categorical:
            if field.kind == "leaf":
                ids = next(leaves)
            else:
                ids = self._values(field.vocabulary, field.boundaries)(flat_array(table[field.name]), days)
            out[names.categorical_column(field.name)] = pa.array(ids, type=pa.int32())
        return out

    def ids(self, table: pa.Table, name: str) -> IntArray:
        """[n] ids of one categorical field of n sample rows, as of each row's day; no leaf field."""
        field = next(field for field in self.trainset.categorical if field.name == name)
        return self._values(field.vocabulary, field.boundaries)(flat_array(table[name]), self._days(table, None))

    def leaf_ids(self, table: pa.Table) -> npt.NDArray[np.int32]:
        """[n, T] ids of the leaf that each tree puts a row in: 2 + node number."""
        import xgboost

        leaves = self.trainset.leaves
        assert leaves is not None
        assert self._booster is not None
        if len(table) == 0:
            return np.zeros((0, leaves.trees), dtype=np.int32)
        rows = xgboost.DMatrix(booster_matrix(table, leaves.features), feature_names=list(leaves.features))
        nodes = self._booster.predict(rows, pred_leaf=True)
        ids: npt.NDArray[np.int32] = (nodes.reshape(len(table), leaves.trees) + FIRST_KEY_ID).astype(np.int32)
        return ids

    def _dense(self, table: pa.Table) -> dict[str, pa.Array]:
        out: dict[str, pa.Array] = {}
        for field in self.trainset.dense:
            numbers = flat_array(table[field.name]).cast(pa.float64()).to_numpy(zero_copy_only=False)
            raw = np.log1p(np.maximum(numbers, 0.0)) if field.transform == "log1p" else numbers
            out[names.dense_column(field.name)] = pa.array(((raw - field.mean) / field.std).astype(np.float32))
        for vector in self.trainset.vectors:
            out[names.vector_column(vector.name)] = fixed_lists(self._vector(table[vector.name], vector.dim))
        return out

    @staticmethod
    def _vector(column: pa.ChunkedArray, dim: int) -> npt.NDArray[np.float32]:
        lists = flat_array(column)
        matrix = np.zeros((len(lists), dim), dtype=np.float32)
        whole = _lengths(lists) == dim
        if whole.any():
            values = lists.filter(pa.array(whole)).flatten().cast(pa.float32())
            matrix[whole] = np.nan_to_num(pc.fill_null(values, 0.0).to_numpy()).reshape(-1, dim)
        return matrix

    def _sequences(self, table: pa.Table, days: DayArray) -> dict[str, pa.Array]:
        out: dict[str, pa.Array] = {}
        for sequence in self.trainset.sequences:
            for field in sequence.fields:
                lists = flat_array(table[sequence_name(sequence.name, field.name)])
                lengths = _lengths(lists)
                encode = self._values(field.vocabulary, field.boundaries)
                flat = encode(lists.flatten(), np.repeat(days, lengths))
                padded = pad_sequences(flat, lengths, sequence.length)
                out[names.sequence_column(sequence.name, field.name)] = fixed_lists(padded)
        return out

    def _supervision(self, table: pa.Table) -> dict[str, pa.Array]:
        out: dict[str, pa.Array] = {}
        present = set(table.column_names)
        if self.trainset.positions is not None and "position" in present:
            last = self.trainset.positions - 1
            position = pc.fill_null(flat_array(table["position"]), 0).to_numpy(zero_copy_only=False)
            out[names.POSITION_COLUMN] = pa.array(np.clip(position, 0, last).astype(np.int32))
        for task in self.trainset.tasks:
            if label_name(task.name) in present:
                mask = flat_array(table[mask_name(task.name)]).cast(pa.float32())
                label = flat_array(table[label_name(task.name)]).cast(pa.float32())
                out[names.label_column(task.name)] = label
                out[names.mask_column(task.name)] = mask
        return out


def booster_matrix(table: pa.Table, features: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """[n, features] float32, columns in the booster's order; untransformed values."""
    columns = [flat_array(table[name]).cast(pa.float64()).to_numpy(zero_copy_only=False) for name in features]
    matrix: npt.NDArray[np.float32] = np.stack(columns, axis=1).astype(np.float32)
    return matrix


def load_booster(blob: bytes) -> Any:
    """An xgboost Booster from its serialised form, on one thread: leaf look-up is a tree walk."""
    import xgboost

    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(blob))
    return booster
