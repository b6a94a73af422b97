"""Raw features in files → scores in a file, whole or not at all. Neither torch nor Spark is imported.

Steps, `rows_at_once` rows at a time, so that memory does not grow with the file:
  1. read     Parquet by row batches, JSON lines by lines (training.raw_rows)
  2. check    columns that are missing, of another type, or no number where one is needed, all at once
  3. score    training.scorer
  4. write    row ids and probabilities, beside the place of the output, which is renamed to when whole
"""

from __future__ import annotations

import datetime
import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.encoding import flat_array
from features.errors import ConfError, DataError, Problem
from training.raw_rows import JSON_ENDINGS, PARQUET_ENDING, Rows, typed
from training.sample_rows import type_of
from training.scorer import Scorer

ROW_NUMBER = "row"  # of the output, where the rows have no id: counted from 0
DAY_COLUMN = "dt"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a model reads of a row.

    Attributes:
        needed: columns that must be there, with their types.
        numbers: those of them that must be finite in every row.
        optional: columns that are used when they are there: the row's id, its day, the group of GAUC.
    """

    needed: dict[str, pa.DataType]
    numbers: tuple[str, ...]
    optional: dict[str, pa.DataType]

    @classmethod
    def of(cls, scorer: Scorer) -> Wanted:
        """From the train set and schema.json of a published folder."""
        trainset = scorer.trainset
        features = {f.name for f in trainset.categorical} | (
            set(trainset.leaves.features) if trainset.leaves else set()
        )
        aside = {trainset.row_id_from: pa.int64(), trainset.group_from: pa.int64(), DAY_COLUMN: pa.date32()}
        needed = [name for name in scorer.encoder.columns() if name not in aside or name in features]
        numbers = [f.name for f in trainset.dense] + list(trainset.leaves.features if trainset.leaves else ())
        return cls(
            needed={name: type_of(scorer.schema[name]) for name in needed},
            numbers=tuple(dict.fromkeys(numbers)),
            optional={name: kind for name, kind in aside.items() if name not in needed},
        )

    @property
    def types(self) -> dict[str, pa.DataType]:
        """All of them."""
        return self.needed | self.optional

    def checked(self, rows: pa.Table, first: int) -> pa.Table:
        """The rows, their columns in the types that the model reads.

        Args:
            first: number of the first row, from 0, for messages.

        Raises:
            DataError: every column that is missing, holds another type, or no number where one is needed.
        """
        problems = []
        missing = [name for name in self.needed if name not in rows.column_names]
        if missing:
            what = f"columns that the model reads are missing (rows {first:,} to {first + len(rows) - 1:,})"
            remedy = "Write them; null stands for what is not known, but in numbers"
            problems.append(Problem(table="rows", what=what, count=len(missing), examples=missing, remedy=remedy))
        rows, wrong = typed(rows, self.types)
        problems += wrong or list(self._no_numbers(rows, first))
        if problems:
            raise DataError(problems)
        return rows

    def _no_numbers(self, rows: pa.Table, first: int) -> Iterator[Problem]:
        for name in self.numbers:
            if name not in rows.column_names:
                continue
            values = flat_array(rows[name]).cast(pa.float64()).to_numpy(zero_copy_only=False)
            bad = np.flatnonzero(~np.isfinite(values))
            if len(bad):
                yield Problem(
                    table="rows",
                    column=name,
                    what="null, NaN or infinite",
                    count=len(bad),
                    examples=[f"row {first + place:,}" for place in bad[:5]],
                    remedy="Give the default of the feature (docs/features.md): the model knows no missing number",
                )


@dataclass(frozen=True, kw_only=True)
class FileScorer:
    """Scores files with one published model.

    Attributes:
        day: whose admissions count (features.encoding); each row's own `dt` by default.
        told: takes a line for people.
        advance: takes the number of rows that were written.
    """

    scorer: Scorer
    rows_at_once: int = 8192
    day: datetime.date | None = None
    told: Callable[[str], None] = lambda _: None
    advance: Callable[[int], None] = lambda _: None

    def score(self, rows: Rows, out: Path) -> int:
        """Write the scores of rows; the file ends in .parquet or .jsonl.

        Returns:
            The number of rows.

        Raises:
            ConfError: another ending.
            DataError: see `Wanted.checked`; nothing is written then.
        """
        wanted = Wanted.of(self.scorer)
        has_id = self.scorer.trainset.row_id_from in rows.columns
        unknown = sorted(set(rows.columns) - set(wanted.types))
        if unknown:
            self.told(f"columns that the model does not read ({len(unknown)}), e.g. {', '.join(unknown[:5])}")
        done = 0
        with _sink(out, self._schema(has_id=has_id)) as write:
            for batch in rows.batches(self.rows_at_once, wanted.types):
                write(self._scored(wanted.checked(batch, done), done, has_id=has_id))
                done += len(batch)
                self.advance(len(batch))
        return done

    def _schema(self, *, has_id: bool) -> pa.Schema:
        ids = self.scorer.trainset.row_id_from if has_id else ROW_NUMBER
        return pa.schema([(ids, pa.int64()), *((task, pa.float64()) for task in self.scorer.tasks)])

    def _scored(self, rows: pa.Table, first: int, *, has_id: bool) -> pa.Table:
        numbers = pa.array(np.arange(first, first + len(rows)))
        ids = flat_array(rows[self.scorer.trainset.row_id_from]) if has_id else numbers
        scores = self.scorer.score(with_ids(self.scorer, rows), self.day)
        return pa.table([ids, *(pa.array(scores[task]) for task in self.scorer.tasks)], self._schema(has_id=has_id))


def with_ids(scorer: Scorer, rows: pa.Table) -> pa.Table:
    """The rows with a row id and a group, which the encoder copies and no score depends on; made up where absent."""
    for name in dict.fromkeys((scorer.trainset.row_id_from, scorer.trainset.group_from)):
        if name not in rows.column_names:
            rows = rows.append_column(name, pa.array(np.zeros(len(rows), np.int64)))
    return rows


@contextmanager
def _sink(out: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """What takes tables and writes them; the file is there when the context ends without an error."""
    draft = out.with_name(f".{out.name}.{uuid.uuid4().hex}.draft")
    if out.suffix not in (PARQUET_ENDING, *JSON_ENDINGS):
        raise ConfError(f"{out}: scores are written to a file that ends in .parquet or .jsonl")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        if out.suffix == PARQUET_ENDING:
            with pq.ParquetWriter(draft, schema) as writer:
                yield writer.write_table
        else:
            with draft.open("w", encoding="utf-8") as lines:
                yield lambda table: lines.writelines(json.dumps(row) + "\n" for row in table.to_pylist())
        os.replace(draft, out)  # noqa: PTH105 - rename over what an earlier run left
    finally:
        draft.unlink(missing_ok=True)
