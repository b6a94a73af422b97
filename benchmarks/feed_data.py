"""Train sets to be read: encoded rows of a stated shape, in the files that the trainset stage would write.

Row groups, shards, files and compression are those of `pipeline.pack` with the defaults of conf; values are drawn, as
what they mean does not matter to a feed. Ids follow a Zipf law over each field's own permuted vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features import manifest as m
from pipeline.config import ExportConf
from pipeline.pack import PackPlan, RowGroupWriter

TASK, SEQUENCE, SPLIT = "enter", "watched", "train"
ZIPF = 1.05
CHUNK_ROWS = 20_000
FIRST_ROW_ID = 10**12
USERS = 100_000
POSITIVE_SHARE = 0.2

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a row is.

    Attributes:
        ids, dense: scalar features, int32 and float32.
        lists: list<int32> columns, all of them `length` long and without padding.
        keys: ids of each field's vocabulary.

    Beside these every row has what the contract asks for: row_id, group, one label and its mask.
    """

    name: str
    rows: int
    ids: int
    dense: int = 0
    lists: int = 0
    length: int = 50
    keys: int = 25_000
    seed: int = 20250101

    @property
    def folder(self) -> str:
        """Folder of the data."""
        return f"{self.name}-{self.rows}-{self.ids}-{self.dense}-{self.lists}x{self.length}-{self.keys}"

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the id features."""
        return tuple(f"f{number:03d}" for number in range(self.ids))

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of the dense features."""
        return tuple(f"n{number:03d}" for number in range(self.dense))

    @property
    def items(self) -> tuple[str, ...]:
        """Names of the lists."""
        return tuple(f"l{number}" for number in range(self.lists))


def shapes(rows: int) -> dict[str, Shape]:
    """The two shapes of the issue, by name."""
    made = (Shape(name="lists", rows=rows, ids=40, lists=2), Shape(name="wide", rows=rows, ids=100, dense=100))
    return {shape.name: shape for shape in made}


def write_rows(shape: Shape, folder: Path, advance: Callable[[int], None]) -> Path:
    """Write the train set below `folder`, unless it is there; its root. `advance` is told the rows written."""
    root = folder / shape.folder
    if (root / m.TRAINSET_FILE).is_file():
        advance(shape.rows)
        return root
    export = ExportConf()
    size = PackPlan.of(shape.rows, export.logical_shards, export.target_row_group_rows).row_group_rows
    files, rest = [], RowGroupWriter(str(root / SPLIT / "rest.parquet"), size)
    chunks = _chunks(shape)
    for place in range(export.files):
        writer = RowGroupWriter(str(root / SPLIT / f"part-{place:05d}.parquet"), size)
        wanted = shape.rows * (place + 1) // export.files - shape.rows * place // export.files
        for table in chunks(wanted):
            writer.add(table)
            advance(len(table))
        files.append(writer.close())
        if writer.left_over is not None:
            rest.add(writer.left_over)
    rest.flush()
    files.append(rest.close())
    listed = [file.model_copy(update={"path": f"{SPLIT}/{file.path}"}) for file in files if file is not None]
    described = describe(shape, tuple(listed))
    (root / m.TRAINSET_FILE).write_text(described.model_dump_json(indent=1), encoding="utf-8")
    return root


def describe(shape: Shape, files: tuple[m.DataFile, ...]) -> m.TrainSet:
    """The manifest of these files."""
    items = tuple(m.SequenceField(name=name, vocabulary=name) for name in shape.items)
    split = m.Split(days=("2025-01-01",), files=files, rows=sum(sum(file.row_groups) for file in files))
    return m.TrainSet(
        name=shape.folder,
        source="bench-feed",
        seed=shape.seed,
        logical_shards=ExportConf().logical_shards,
        catalog_fingerprint="bench-feed",
        vocabularies=tuple(m.Vocabulary(name=name, num_ids=shape.keys) for name in (*shape.fields, *shape.items)),
        categorical=tuple(m.CategoricalField(name=name, vocabulary=name) for name in shape.fields),
        dense=tuple(m.DenseField(name=name) for name in shape.numbers),
        sequences=(m.Sequence(name=SEQUENCE, length=shape.length, fields=items),) if items else (),
        tasks=(m.Task(name=TASK, space="impressions"),),
        splits={SPLIT: split},
        seen_until="2025-01-01",
    )


def _chunks(shape: Shape) -> Callable[[int], Iterator[pa.Table]]:
    """A function that hands out the next so many rows as tables."""
    rng = np.random.default_rng(shape.seed)
    known = shape.keys - m.FIRST_KEY_ID
    draws = _Draws(rng, {name: rng.permutation(known) for name in (*shape.fields, *shape.items)})
    row_ids = itertools.count(FIRST_ROW_ID)

    def next_rows(wanted: int) -> Iterator[pa.Table]:
        for start in range(0, wanted, CHUNK_ROWS):
            rows = min(CHUNK_ROWS, wanted - start)
            yield _table(shape, draws, np.fromiter(itertools.islice(row_ids, rows), np.int64, rows))

    return next_rows


@dataclass(frozen=True)
class _Draws:
    """Random ids; `keys` is what stands at each rank of a vocabulary."""

    rng: np.random.Generator
    keys: dict[str, Array]

    def ids(self, vocabulary: str, count: int) -> Array:
        """[count] int32; P(rank k) = ∫ x^−s dx from k to k + 1, up to a factor: Zipf's law, inverted in closed form."""
        keys = self.keys[vocabulary]
        tail = (len(keys) + 1) ** (1 - ZIPF)
        ranks = (1 - self.rng.random(count) * (1 - tail)) ** (1 / (1 - ZIPF))
        places = np.minimum(ranks.astype(np.int64), len(keys)) - 1
        drawn: Array = (keys[places] + m.FIRST_KEY_ID).astype(np.int32)
        return drawn


def _table(shape: Shape, draws: _Draws, row_ids: Array) -> pa.Table:
    rows = len(row_ids)
    columns: dict[str, Any] = {m.ROW_ID_COLUMN: row_ids, m.GROUP_COLUMN: draws.rng.integers(0, USERS, rows)}
    columns |= {m.categorical_column(name): draws.ids(name, rows) for name in shape.fields}
    columns |= {m.dense_column(name): draws.rng.standard_normal(rows, np.float32) for name in shape.numbers}
    for name in shape.items:
        offsets = pa.array(np.arange(0, rows * shape.length + 1, shape.length, dtype=np.int32))
        values = pa.array(draws.ids(name, rows * shape.length))
        columns[m.sequence_column(SEQUENCE, name)] = pa.ListArray.from_arrays(offsets, values)
    columns[m.label_column(TASK)] = (draws.rng.random(rows) < POSITIVE_SHARE).astype(np.float32)
    columns[m.mask_column(TASK)] = np.ones(rows, np.float32)
    return pa.table(columns)
