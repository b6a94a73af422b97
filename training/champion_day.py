"""A champion on one day of samples: figures per task, histograms of scores and features, OOV shares. numpy and ONNX.

Steps, for n rows that come in batches:
  1. encode   with the champion's own vocabularies and booster, then its graph       → [b, T] probabilities
  2. count    histograms of scores and dense features, OOV ids per vocabulary        → sums over batches
  3. keep     scores, labels, weights and users of the batch                         → 3·T + 1 numbers a row
  4. judge    AUC, GAUC, logloss and PCOC of every output over the whole day         → n rows at once

Only what step 3 keeps grows with the day: unencoded and encoded rows are in memory one batch at a time.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.encoding import flat_array
from features.evaluation import FEATURE_EDGES, SCORE_EDGES, Evaluation, Oov, TaskFigures
from features.manifest import OOV_ID, PADDING_ID, categorical_column, dense_column, sequence_column
from features.schema import label_name, mask_name
from features.storage import open_input
from training.bootstrap import Judged, auc, user_aucs
from training.gate_day import labels_and_weights
from training.scorer import Scorer, graph_inputs

BATCH_ROWS = 65_536
SMALLEST = 1e-7  # a probability of 0 or 1 that is wrong costs this much, not infinity; as in the gate

Array = NDArray[Any]
Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Who is evaluated on what: as in `Evaluation`."""

    model: str
    version: str
    digest: str
    day: datetime.date
    samples: str


def needed_columns(scorer: Scorer) -> tuple[str, ...]:
    """Columns of the samples that an evaluation reads."""
    labels = [
        name
        for output in scorer.contents.outputs
        for label in output.all_of
        for name in (label_name(label), mask_name(label))
    ]
    return tuple(dict.fromkeys((*scorer.encoder.columns(), *labels, scorer.trainset.group_from, "dt")))


def read_batches(urls: Iterable[str], columns: Sequence[str]) -> Iterator[pa.Table]:
    """Rows of Parquet files, BATCH_ROWS at a time."""
    for url in urls:
        with open_input(url) as source:
            for batch in pq.ParquetFile(source).iter_batches(batch_size=BATCH_ROWS, columns=list(columns)):
                yield pa.Table.from_batches([batch])


def evaluate_day(scorer: Scorer, batches: Iterable[pa.Table], subject: Subject) -> Evaluation:
    """Score a day with a published folder, and judge it.

    Args:
        batches: unencoded rows of the day, with labels and masks: the columns of `needed_columns`.

    Raises:
        DataError: when columns are missing; it names them.
    """
    seen = _Seen()
    for batch in batches:
        seen.add(scorer, batch)
    return Evaluation(
        model=subject.model,
        version=subject.version,
        digest=subject.digest,
        day=subject.day,
        samples=subject.samples,
        rows=seen.rows,
        tasks=seen.figures(scorer.tasks),
        scores={task: _counts(seen.scores.get(task), SCORE_EDGES) for task in scorer.tasks},
        features={f.name: _counts(seen.features.get(f.name), FEATURE_EDGES) for f in scorer.trainset.dense},
        oov={name: Oov(values=seen.values[name], oov=seen.oov[name]) for name in sorted(seen.values)},
    )


def histogram(values: Array, edges: Sequence[float]) -> Counts:
    """[n] numbers → [len(edges) + 2] counts; bins as in `features.evaluation`."""
    finite = np.isfinite(values)
    places = 1 + np.searchsorted(np.asarray(edges), values[finite], side="right")
    counts = np.bincount(places, minlength=len(edges) + 2).astype(np.int64)
    counts[0] = len(values) - int(finite.sum())
    return counts


def task_figures(rows: Judged) -> TaskFigures:
    """Figures of unmasked rows; None where they are undefined."""
    count, positives = len(rows.label), int((rows.label > 0).sum())
    if count == 0 or not np.isfinite(rows.score).all():  # an order of NaN means nothing
        return TaskFigures(rows=count, positives=positives, auc=None, gauc=None, logloss=None, pcoc=None)
    users, codes = np.unique(rows.group, return_inverse=True)
    per_user, weight = user_aucs(rows, codes.astype(np.int64), len(users))
    mixed = np.isfinite(per_user)
    p = np.clip(rows.score, SMALLEST, 1 - SMALLEST)
    losses = -(rows.label * np.log(p) + (1 - rows.label) * np.log1p(-p))
    observed = float((rows.weight * rows.label).sum())
    whole = auc(rows)
    return TaskFigures(
        rows=count,
        positives=positives,
        auc=whole if np.isfinite(whole) else None,
        gauc=float(np.average(per_user[mixed], weights=weight[mixed])) if mixed.any() else None,
        logloss=float(np.average(losses, weights=rows.weight)),
        pcoc=float((rows.weight * rows.score).sum() / observed) if observed > 0 else None,
    )


@dataclass(kw_only=True)
class _Seen:
    """What batches have added up to; `kept`: output → score, label and weight of every batch, [b] each."""

    rows: int = 0
    scores: dict[str, Counts] = field(default_factory=dict)
    features: dict[str, Counts] = field(default_factory=dict)
    values: Counter[str] = field(default_factory=Counter)
    oov: Counter[str] = field(default_factory=Counter)
    users: list[Array] = field(default_factory=list)
    kept: dict[str, list[tuple[Floats, Floats, Floats]]] = field(default_factory=dict)

    def add(self, scorer: Scorer, samples: pa.Table) -> None:
        encoded = scorer.encoder.encode(samples)
        _, probabilities = scorer.run(graph_inputs(encoded, scorer.trainset))
        labels, weights = labels_and_weights(samples, scorer.contents.outputs)
        self.rows += len(samples)
        self.users.append(samples[scorer.trainset.group_from].cast(pa.int64()).to_numpy())
        for place, task in enumerate(scorer.tasks):
            score = probabilities[:, place].astype(np.float64)
            self._count(self.scores, task, histogram(score, SCORE_EDGES))
            self.kept.setdefault(task, []).append((score, labels[task], weights[task]))
        for dense in scorer.trainset.dense:
            values = encoded[dense_column(dense.name)].to_numpy()
            self._count(self.features, dense.name, histogram(values, FEATURE_EDGES))
        for vocabulary, ids in _ids_of_keys(scorer, encoded):
            self.values[vocabulary] += int((ids != PADDING_ID).sum())
            self.oov[vocabulary] += int((ids == OOV_ID).sum())

    @staticmethod
    def _count(into: dict[str, Counts], name: str, counts: Counts) -> None:
        into[name] = into[name] + counts if name in into else counts

    def figures(self, tasks: Sequence[str]) -> dict[str, TaskFigures]:
        users = np.concatenate(self.users) if self.users else np.zeros(0, np.int64)
        none = [(np.zeros(0), np.zeros(0), np.zeros(0))]
        found = {}
        for task in tasks:
            score, label, weight = (np.concatenate(parts) for parts in zip(*self.kept.get(task, none), strict=True))
            found[task] = task_figures(Judged.of(score, label, weight, users))
        return found


def _ids_of_keys(scorer: Scorer, encoded: pa.Table) -> Iterator[tuple[str, Array]]:
    """Vocabulary and ids of every column and sequence field whose ids were fitted on keys."""
    trainset = scorer.trainset
    fitted = {vocabulary.name for vocabulary in trainset.vocabularies if vocabulary.path is not None}
    for column in trainset.categorical:
        if column.vocabulary in fitted:
            yield column.vocabulary, encoded[categorical_column(column.name)].to_numpy()
    for sequence in trainset.sequences:
        for part in sequence.fields:
            if part.vocabulary in fitted:
                lists = flat_array(encoded[sequence_column(sequence.name, part.name)])
                yield part.vocabulary, lists.flatten().to_numpy()


def _counts(counts: Counts | None, edges: Sequence[float]) -> tuple[int, ...]:
    """As an evaluation has them; all zeros where no batch came."""
    return (0,) * (len(edges) + 2) if counts is None else tuple(counts.tolist())
