"""Score a split, judge the scores, keep them: predictions as Parquet, figures per task.

n: this rank's rows, T: targets of the model.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from features.errors import DivergedError, Problem
from features.manifest import GROUP_COLUMN, ROW_ID_COLUMN, label_column, mask_column
from training.exchange import Exchange
from training.feed import Feed
from training.metrics import Judged, TaskMetrics, evaluate
from training.models import RankingModel
from training.storage import Folder

Figures = dict[str, TaskMetrics]


def score_column(task: str) -> str:
    """float64 probability."""
    return f"p__{task}"


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A split's rows on this rank, each row of the split on one rank.

    Attributes:
        row_id, group: [n] int64.
        scores: [n, T] float64 probabilities without display position.
        labels, weights: [n, T] float64.
    """

    row_id: Tensor
    group: Tensor
    scores: Tensor
    labels: Tensor
    weights: Tensor

    def where(self, kept: Tensor) -> Scored:
        """The rows for which `kept` [n] holds."""
        return Scored(
            row_id=self.row_id[kept],
            group=self.group[kept],
            scores=self.scores[kept],
            labels=self.labels[kept],
            weights=self.weights[kept],
        )


@torch.no_grad()
def score(
    model: RankingModel, feed: Feed, device: torch.device, dtype: torch.dtype, *, sampled: bool = False
) -> Scored:
    """Score this rank's rows; padding is left out. The model is left in training mode.

    Where negatives are a sample (`sampled`), their weights are those of the rows before sampling.
    """
    model.eval()
    batches = []
    for read in feed.evaluation():
        batch = read.without_position().to(device, dtype)
        scores = model.probabilities(model(batch).double())
        labels, weights = model.targets(batch)
        weights = weights * model.rows_before_sampling(batch) if sampled else weights
        rows = (batch.row_id, batch.group, scores, labels.double(), weights.double())
        batches.append([value[batch.row_id >= 0].cpu() for value in rows])
    model.train()
    row_id, group, scores, labels, weights = (torch.cat(values) for values in zip(*batches, strict=True))
    return Scored(row_id=row_id, group=group, scores=scores, labels=labels, weights=weights)


def judge(scored: Scored, tasks: Sequence[str], exchange: Exchange) -> Figures:
    """Figures of every task over all ranks; a collective call.

    Raises:
        DivergedError: if a score is not a number: the training has diverged.
    """
    _check_finite(scored, tasks, exchange)
    figures = {}
    for column, task in enumerate(tasks):
        values = (scored.scores[:, column], scored.labels[:, column], scored.weights[:, column])
        score_, label, weight = values
        figures[task] = evaluate(Judged(score=score_, label=label, weight=weight, group=scored.group), exchange)
    return figures


def _check_finite(scored: Scored, tasks: Sequence[str], exchange: Exchange) -> None:
    bad = exchange.sum_((~torch.isfinite(scored.scores)).sum(dim=0)).tolist()
    problems = [
        Problem(
            what="scores are not numbers: the training has diverged",
            column=task,
            count=count,
            remedy="Lower optim.*.learning_rate, set optim.clip_norm, or look for extreme dense inputs.",
        )
        for task, count in zip(tasks, bad, strict=True)
        if count
    ]
    if problems:
        raise DivergedError(problems)


def gathered(scored: Scored, exchange: Exchange) -> Scored:
    """All ranks' rows, ascending by row_id; a collective call, every rank gets them."""
    ids = exchange.gather_rows(torch.stack([scored.row_id, scored.group], dim=1))
    values = exchange.gather_rows(torch.cat([scored.scores, scored.labels, scored.weights], dim=1))
    order = ids[:, 0].argsort()
    row_id, group = ids[order].unbind(dim=1)
    scores, labels, weights = values[order].chunk(3, dim=1)
    return Scored(row_id=row_id, group=group, scores=scores, labels=labels, weights=weights)


def write_predictions(folder: Folder, name: str, scored: Scored, tasks: Sequence[str], exchange: Exchange) -> None:
    """One Parquet file of all ranks' rows, ascending by row_id; a collective call, written by rank 0.

    Columns: row_id, group; per task the probability, the label and the weight (0 = masked).
    """
    every = gathered(scored, exchange)
    if not exchange.world.is_first:
        return
    columns = {ROW_ID_COLUMN: every.row_id.numpy(), GROUP_COLUMN: every.group.numpy()}
    for named, values in ((score_column, every.scores), (label_column, every.labels), (mask_column, every.weights)):
        for place, task in enumerate(tasks):
            columns[named(task)] = np.ascontiguousarray(values[:, place].numpy())
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    folder.write(name, buffer.getvalue())
