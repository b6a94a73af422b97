"""Score unencoded sample rows with a published folder: features.encoding, then ONNX Runtime.

Neither torch nor Spark is imported. n: rows, F: categorical fields, K: dense numbers, L: sequence length.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
from numpy.typing import NDArray

from features.encoding import Encoder, flat_array
from features.errors import DataError, Problem
from features.manifest import (
    TRAINSET_FILE,
    TrainSet,
    categorical_column,
    dense_column,
    sequence_column,
    vector_column,
)
from training.published import EXAMPLES_FILE, GRAPH_FILE, SCHEMA_FILE, Contents, local_copy, verify
from training.sample_rows import to_table

ROWS_AT_ONCE = 4096
IDS, DENSE = "ids", "dense"
LOGITS, PROBABILITIES = "logits", "probabilities"
MAX_EXAMPLE_DIFFERENCE = 1e-5

Array = NDArray[Any]


def graph_inputs(encoded: pa.Table, trainset: TrainSet) -> dict[str, Array]:
    """Encoded columns → the inputs of the exported graph, by name.

    Returns:
        ids [n, F] int64, dense [n, K] float32 if there are dense numbers, each vector [n, dim] float32,
        each sequence field [n, L] int64; the latter under their column names in features.manifest.
    """
    inputs: dict[str, Array] = {
        IDS: _stacked(encoded, [categorical_column(f.name) for f in trainset.categorical], np.int64)
    }
    if trainset.dense:
        inputs[DENSE] = _stacked(encoded, [dense_column(f.name) for f in trainset.dense], np.float32)
    for vector in trainset.vectors:
        name = vector_column(vector.name)
        inputs[name] = _lists(encoded[name], vector.dim).astype(np.float32)
    for sequence in trainset.sequences:
        for field in sequence.fields:
            name = sequence_column(sequence.name, field.name)
            inputs[name] = _lists(encoded[name], sequence.length).astype(np.int64)
    return inputs


def _stacked(encoded: pa.Table, names: list[str], kind: type[np.generic]) -> Array:
    matrix = np.empty((len(encoded), len(names)), dtype=kind)
    for place, name in enumerate(names):
        matrix[:, place] = encoded[name].to_numpy()
    return matrix


def _lists(column: pa.ChunkedArray, width: int) -> Array:
    values: Array = flat_array(column).flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), width)


def row_slices(inputs: Mapping[str, Array], size: int) -> Iterator[dict[str, Array]]:
    """The same inputs, `size` rows at a time."""
    for start in range(0, len(inputs[IDS]), size):
        yield {name: value[start : start + size] for name, value in inputs.items()}


class Scorer:
    """A published model, ready to score.

    Attributes:
        contents: what the folder holds.
        trainset: how rows are encoded.
        encoder: does it.
        schema: column → type of the rows that it scores, spelled as in training.sample_rows.
    """

    def __init__(
        self,
        contents: Contents,
        trainset: TrainSet,
        encoder: Encoder,
        schema: Mapping[str, str],
        session: onnxruntime.InferenceSession,
    ) -> None:
        self.contents, self.trainset, self.encoder, self.schema = contents, trainset, encoder, schema
        self._session = session

    @classmethod
    def open(cls, folder_url: str, *, threads: int = 1, examples: bool = False) -> Scorer:
        """Verify and load a published folder.

        Args:
            folder_url: local path or URL.
            threads: of ONNX Runtime, within an operator.
            examples: score the folder's examples, too: they must get what PyTorch gave them.

        Raises:
            DataError: if a file is missing or changed, or an example gets another score.
        """
        with local_copy(folder_url) as folder:
            contents = verify(folder)
            trainset = TrainSet.model_validate_json((folder / TRAINSET_FILE).read_text())
            encoder = Encoder.load(trainset, str(folder))
            schema = json.loads((folder / SCHEMA_FILE).read_text())
            scorer = cls(contents, trainset, encoder, schema, open_graph(folder, threads=threads))
            if examples:
                scorer.check(folder)
            return scorer

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the scores, in the graph's order."""
        return tuple(output.name for output in self.contents.outputs)

    def score(self, samples: pa.Table, day: datetime.date | None = None) -> dict[str, NDArray[np.float64]]:
        """Unencoded rows → task → probability of each row, [n] float64.

        Args:
            samples: the columns that `encoder.columns()` names; others are ignored.
            day: as for Encoder.encode; by default each row's own `dt`.

        Raises:
            DataError: naming every column that is missing.
        """
        _, probabilities = self.run(graph_inputs(self.encoder.encode(samples, day), self.trainset))
        return {task: probabilities[:, place].astype(np.float64) for place, task in enumerate(self.tasks)}

    def check(self, folder: Path) -> float:
        """The largest difference between the scores that the folder's examples get and those that they must get.

        Raises:
            DataError: it is above 1e-5, or a score is no number.
        """
        rows, expected = read_examples(folder)
        scores = self.score(rows)
        difference = max(float(np.abs(scores[task] - expected[task]).max()) for task in self.tasks)
        if not difference <= MAX_EXAMPLE_DIFFERENCE:
            what = f"examples in {folder} get scores that differ by {difference:.3g} from those that they must get"
            remedy = "Do not score with it here: compare the versions of onnxruntime and xgboost with those of training"
            raise DataError([Problem(what=what, count=len(rows), remedy=remedy)])
        return difference

    def run(self, inputs: Mapping[str, Array], rows_at_once: int = ROWS_AT_ONCE) -> tuple[Array, Array]:
        """Graph inputs → logits and probabilities, both [n, T] float32."""
        return run_graph(self._session, inputs, rows_at_once, width=len(self.tasks))


def open_graph(folder: Path, *, threads: int) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the folder's graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; shape hints of the exporter are no news
    return onnxruntime.InferenceSession(str(folder / GRAPH_FILE), options, providers=["CPUExecutionProvider"])


def run_graph(
    session: onnxruntime.InferenceSession, inputs: Mapping[str, Array], rows_at_once: int, *, width: int
) -> tuple[Array, Array]:
    """Graph inputs → logits and probabilities, both [n, width] float32, `rows_at_once` rows per call."""
    wanted = {item.name for item in session.get_inputs()}
    empty = np.zeros((0, width), dtype=np.float32)
    logits, probabilities = [empty], [empty]
    for part in row_slices(inputs, rows_at_once):
        fed = {name: value for name, value in part.items() if name in wanted}
        one, other = session.run([LOGITS, PROBABILITIES], fed)
        logits.append(one)
        probabilities.append(other)
    return np.concatenate(logits), np.concatenate(probabilities)


def read_examples(folder: Path) -> tuple[pa.Table, dict[str, Array]]:
    """The example rows of a published folder, and the scores they must get."""
    lines = [json.loads(line) for line in (folder / EXAMPLES_FILE).read_text().splitlines()]
    schema = json.loads((folder / SCHEMA_FILE).read_text())
    tasks = lines[0]["expected"]
    expected = {task: np.array([line["expected"][task] for line in lines]) for task in tasks}
    return to_table((line["row"] for line in lines), schema), expected
