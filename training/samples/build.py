"""Somebody's samples → a train set that every model reads.

1. shapes      columns and types of every file, from footers                              all problems at once
2. scan        every value of every split, once; on train also counts and moments         all problems at once
3. fit         values by frequency → ids; mean and deviation of dense columns             train alone
4. encode      batch by batch, by the encoder that serves too                             columns of features.manifest
5. mix         rows of train in random order                                              row groups of independent rows
6. write       Parquet in equal row groups, then trainset.json, last of all
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features import manifest as m
from features import storage
from features.checksums import checksums
from features.encoding import Encoder
from features.errors import DataError, Problem
from features.schema import label_name, mask_name, sequence_name
from training.samples.files import SplitFiles, is_string, shape_problems
from training.samples.scan import Scan, judged, key_type, scan
from training.samples.schema import (
    Categorical,
    DenseNumber,
    FixedVector,
    SampleSchema,
    SequenceOf,
    TaskLabel,
)

Report = Callable[[str], None]
ROW, GROUP = "__row__", "__group__"
SHARDS = 16
GROUP_ROWS = 4096
BUCKET_ROWS = 1_000_000
GROUPS_PER_FILE = 256
NEVER_TOO_LATE = dt.date(1970, 1, 1)


def build(
    schema: SampleSchema, splits: Mapping[m.SplitName, str], out: str, *, name: str, seed: int, report: Report
) -> m.TrainSet:
    """Write a train set below `out`.

    Args:
        splits: URL of a Parquet file or a folder of them, for train, valid, and test if there is one.
        seed: of the order in which rows of train are mixed.
        report: told what is being done.

    Raises:
        DataError: everything that is wrong with the files, before anything is written.
    """
    files = {split: SplitFiles.below(split, url) for split, url in splits.items()}
    _stop_at([problem for of_split in files.values() for problem in shape_problems(of_split, schema)])
    scans: dict[m.SplitName, Scan] = {}
    for split, of_split in files.items():
        report(f"looking at every value of {split}")
        scans[split] = scan(of_split, schema, fit=split == "train")
    problems = [problem for found in scans.values() for problem in found.problems()]
    problems += [problem for split in ("train", "valid") for problem in scans[split].single_class()]
    _stop_at(problems + _too_many_values(scans["train"], schema))
    keys = {column: numbered(table, _min_frequency(schema, column)) for column, table in scans["train"].counts.items()}
    draft = _describe(schema, scans, keys, name=name, seed=seed)
    for vocabulary in draft.vocabularies:
        if vocabulary.path is not None:
            _write_table(f"{out}/{vocabulary.path}", keys[vocabulary.name])
    encoder = Encoder.load(draft, out)
    written: dict[m.SplitName, m.Split] = {}
    for split, of_split in files.items():
        report(f"encoding {split}")
        encoded = encoded_rows(of_split, schema, encoder)
        rows = mixed(encoded, scans[split].rows, seed) if split == "train" else encoded
        written[split] = _write_split(f"{out}/{split}", split, rows, scans[split])
    trainset = m.TrainSet.model_validate(draft.model_dump() | {"splits": written})
    storage.write_bytes(f"{out}/{m.TRAINSET_FILE}", trainset.model_dump_json(indent=1).encode())
    return trainset


def _stop_at(problems: list[Problem]) -> None:
    if problems:
        raise DataError(problems)


def _min_frequency(schema: SampleSchema, column: str) -> int:
    return schema.of_role(Categorical)[column].min_frequency


def _too_many_values(train: Scan, schema: SampleSchema) -> list[Problem]:
    limits = {column: role.max_values for column, role in schema.of_role(Categorical).items()}
    return [
        Problem(
            what=f"more distinct values than max_values={limits[column]:,}",
            table=train.split,
            column=column,
            count=len(table),
            remedy="Raise max_values, hash the column (hash: N), or give it another role.",
        )
        for column, table in train.counts.items()
        if len(table) > limits[column]
    ]


def numbered(counts: pa.Table, min_frequency: int) -> pa.Table:
    """Values that are frequent enough → key, id, admitted_on: ids from 2, the most frequent first, ties by value."""
    kept = counts.filter(pc.greater_equal(counts["count"], min_frequency))
    kept = kept.sort_by([("count", "descending"), ("key", "ascending")])
    ids = np.arange(m.FIRST_KEY_ID, m.FIRST_KEY_ID + len(kept), dtype=np.int32)
    days = pa.array([NEVER_TOO_LATE] * len(kept), pa.date32())
    return pa.table({"key": kept["key"], "id": pa.array(ids), "admitted_on": days})


def _describe(
    schema: SampleSchema, scans: Mapping[m.SplitName, Scan], keys: Mapping[str, pa.Table], *, name: str, seed: int
) -> m.TrainSet:
    vocabularies = []
    for column, role in schema.of_role(Categorical).items():
        if role.hash is not None:
            vocabularies.append(m.Vocabulary(name=column, num_ids=role.hash + m.FIRST_KEY_ID, hashed=True))
        else:
            count = len(keys[column]) + m.FIRST_KEY_ID
            vocabularies.append(m.Vocabulary(name=column, num_ids=count, path=f"vocabularies/{column}.parquet"))
    moments = scans["train"].moments
    sequences = schema.of_role(SequenceOf)
    return m.TrainSet(
        name=name,
        source="own samples",
        seed=seed,
        logical_shards=SHARDS,
        catalog_fingerprint=hashlib.sha256(schema.model_dump_json().encode()).hexdigest()[:16],
        vocabularies=tuple(vocabularies),
        categorical=tuple(m.CategoricalField(name=column, vocabulary=column) for column in schema.of_role(Categorical)),
        dense=tuple(
            m.DenseField(
                name=column, transform=role.transform, mean=moments[column].mean, std=moments[column].deviation
            )
            for column, role in schema.of_role(DenseNumber).items()
        ),
        vectors=tuple(m.VectorField(name=column, dim=role.dim) for column, role in schema.of_role(FixedVector).items()),
        sequences=tuple(
            m.Sequence(
                name=events,
                length=sequences[fields[0]].length,
                fields=tuple(m.SequenceField(name=column, vocabulary=sequences[column].of) for column in fields),
            )
            for events, fields in schema.events().items()
        ),
        tasks=tuple(
            m.Task(name=label, space="impressions", parent=role.given)
            for label, role in schema.of_role(TaskLabel).items()
        ),
        splits={},
        seen_until="",
        row_id_from=ROW,
        group_from=GROUP,
    )


def encoded_rows(files: SplitFiles, schema: SampleSchema, encoder: Encoder) -> Iterator[pa.Table]:
    """Batches of a split, encoded, in the order of its files."""
    first = 0
    for batch in files.batches(schema.read):
        yield encoder.encode(sample_rows(batch, schema, first))
        first += batch.num_rows


def sample_rows(batch: pa.RecordBatch, schema: SampleSchema, first_row: int) -> pa.Table:
    """Somebody's columns under the names by which an encoder reads samples."""
    columns = {name: batch.column(name) for name in schema.read}
    row = pa.array(np.arange(first_row, first_row + batch.num_rows))
    group = schema.plain("group")
    rows = {ROW: row, GROUP: row if group is None else group_numbers(columns[group])}
    rows |= {name: columns[name].cast(key_type(columns[name].type)) for name in schema.of_role(Categorical)}
    for name, dense in schema.of_role(DenseNumber).items():
        numbers = columns[name].cast(pa.float64())
        rows[name] = numbers if dense.missing is None else pc.fill_null(numbers, dense.missing)
    rows |= {name: columns[name] for name in schema.of_role(FixedVector)}
    for events, fields in schema.events().items():
        for name in fields:
            lists = newest_first(columns[name]) if schema.of_role(SequenceOf)[name].oldest_first else columns[name]
            rows[sequence_name(events, name)] = lists
    for label in schema.of_role(TaskLabel):
        weight = judged(columns, schema, label)
        is_one = pc.fill_null(pc.equal(columns[label].cast(pa.float64()), 1.0), False).to_numpy(zero_copy_only=False)
        rows[label_name(label)] = pa.array((is_one & (weight > 0)).astype(np.float32))
        rows[mask_name(label)] = pa.array(weight.astype(np.float32))
    return pa.table(rows)


def group_numbers(column: pa.Array) -> pa.Array:
    """Groups as int64; strings by 63 bits of a hash."""
    if not is_string(column.type):
        return column.cast(pa.int64())
    encoded = column.dictionary_encode()
    numbers = [
        int.from_bytes(hashlib.blake2b(str(key).encode(), digest_size=8).digest(), "big") >> 1
        for key in encoded.dictionary.to_pylist()
    ]
    return pa.array(numbers, pa.int64()).take(encoded.indices)


def newest_first(lists: pa.Array) -> pa.Array:
    """Every list the other way round."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    ends = np.cumsum(lengths)
    places = np.repeat(ends - 1, lengths) - (
        np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    )
    offsets = pa.array(np.concatenate([[0], ends]).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, pc.list_flatten(lists).take(pa.array(places)))


def mixed(rows: Iterator[pa.Table], count: int, seed: int) -> Iterator[pa.Table]:
    """All rows in random order; they are held in memory, encoded (4 bytes per id or number)."""
    whole = pa.concat_tables(rows)
    order = np.random.default_rng(seed).permutation(count)
    for first in range(0, count, BUCKET_ROWS):
        yield whole.take(pa.array(order[first : first + BUCKET_ROWS]))


def row_group_sizes(rows: int) -> list[int]:
    """Sizes that differ by one row at most; a multiple of SHARDS of them where there are enough rows."""
    groups = max(1, round(rows / GROUP_ROWS / SHARDS)) * SHARDS
    groups = min(groups, rows)
    return [rows * (number + 1) // groups - rows * number // groups for number in range(groups)]


def _write_split(root: str, folder: m.SplitName, rows: Iterator[pa.Table], found: Scan) -> m.Split:
    """Row groups of equal size, GROUPS_PER_FILE to a file."""
    sizes = row_group_sizes(found.rows)
    files = []
    pieces = resized(rows, sizes)
    for number, first in enumerate(range(0, len(sizes), GROUPS_PER_FILE)):
        own = sizes[first : first + GROUPS_PER_FILE]
        sink = pa.BufferOutputStream()
        writer: pq.ParquetWriter | None = None
        for size in own:
            piece = next(pieces)
            writer = writer or pq.ParquetWriter(sink, piece.schema, compression="zstd")
            writer.write_table(piece, row_group_size=size)
        assert writer is not None
        writer.close()
        path, written = f"part-{number:05d}.parquet", sink.getvalue()
        storage.write_bytes(f"{root}/{path}", bytes(written))
        sums = checksums(pa.BufferReader(written))
        files.append(m.DataFile(path=f"{folder}/{path}", row_groups=tuple(own), checksums=sums))
    return m.Split(
        days=(),
        files=tuple(files),
        rows=found.rows,
        positives={label: seen.positive for label, seen in found.classes.items()},
        judged={label: seen.judged for label, seen in found.classes.items()},
    )


def resized(tables: Iterator[pa.Table], sizes: list[int]) -> Iterator[pa.Table]:
    """The same rows in tables of the sizes asked for."""
    held: list[pa.Table] = []
    count = 0
    for size in sizes:
        while count < size:
            held.append(next(tables))
            count += len(held[-1])
        whole = pa.concat_tables(held)
        yield whole.slice(0, size).combine_chunks()
        held, count = [whole.slice(size)], count - size


def _write_table(url: str, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    storage.write_bytes(url, bytes(sink.getvalue()))
