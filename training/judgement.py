"""After each epoch: is it the best, is it the last, and shall the learning rates fall?

Everything here is a pure function of figures that all ranks have alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from features.errors import ConfError
from training.config import Plateau, TrainConf, Watched
from training.optim import OptimConf, Rates

Record = dict[str, Any]
Metric = tuple[str, str]
"""A task, and the name of one of its figures."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a training stands; saved in every checkpoint.

    Attributes:
        steps: taken, over all epochs.
        curves: one record per finished epoch.
        best_epoch, best_value: of the validation metric.
        epochs_without_gain: in a row, up to now.
        finished: no epoch is left to run.
        plateau_best, plateau_without_gain: of the metric that learning rates follow; epochs since its last gain or
            the last reduction.
        reductions: of the learning rates so far.
    """

    steps: int = 0
    curves: Sequence[Record] = ()
    best_epoch: int | None = None
    best_value: float | None = None
    epochs_without_gain: int = 0
    finished: bool = False
    plateau_best: float | None = None
    plateau_without_gain: int = 0
    reductions: int = 0


def monitored(key: str, conf: Watched, tasks: Sequence[str]) -> Metric:
    """The metric that a setting named `key` is about.

    Raises:
        ConfError: the model does not predict its task.
    """
    task = conf.task or tasks[0]
    if task not in tasks:
        raise ConfError(f"{key}.task={task!r} is not predicted; the model predicts {', '.join(tasks)}.")
    return task, conf.metric


def judged(progress: Progress, record: Record, metric: Metric, conf: TrainConf) -> Progress:
    """Progress after an epoch: is it the best, and is it the last?

    An undefined metric (one class on the validation day) is never a gain, but the first epoch is the best
    until another one is. Without a validation day (incremental training) every epoch is run and the last is kept.
    """
    epoch = record["epoch"]
    if not record["valid"]:
        curves = (*progress.curves, record)
        return replace(progress, curves=curves, best_epoch=epoch, finished=epoch + 1 >= conf.epochs)
    value = _value(record, metric)
    best = progress.best_value
    gain = _is_gain(value, best, conf.early_stopping)
    without = 0 if gain else progress.epochs_without_gain + 1
    first = progress.best_epoch is None
    return replace(
        progress,
        curves=(*progress.curves, record),
        best_epoch=epoch if gain or first else progress.best_epoch,
        best_value=value if gain else best,
        epochs_without_gain=without,
        finished=without >= conf.early_stopping.patience or epoch + 1 >= conf.epochs,
    )


def on_plateau(progress: Progress, record: Record, metric: Metric, conf: Plateau) -> Progress:
    """Progress after an epoch: one reduction more after `patience` epochs in a row without a gain.

    Counting begins anew after a reduction. Without a validation day the rates stay.
    """
    if not record["valid"]:
        return progress
    value = _value(record, metric)
    if _is_gain(value, progress.plateau_best, conf):
        return replace(progress, plateau_best=value, plateau_without_gain=0)
    without = progress.plateau_without_gain + 1
    if without < conf.patience:
        return replace(progress, plateau_without_gain=without)
    return replace(progress, plateau_without_gain=0, reductions=progress.reductions + 1)


def rates_after(reductions: int, optim: OptimConf, conf: Plateau | None) -> Rates:
    """Each rate times factor per reduction, not below the smallest one; one that was below it from the start stays."""

    def reduced(rate: float) -> float:
        return rate if conf is None else max(rate * conf.factor**reductions, min(rate, conf.min_learning_rate))

    return Rates(reduced(optim.embedding.learning_rate), reduced(optim.dense.learning_rate))


def _value(record: Record, metric: Metric) -> float | None:
    task, name = metric
    value: float | None = record["valid"][task][name]
    return value


def _is_gain(value: float | None, best: float | None, conf: Watched) -> bool:
    sign = -1 if conf.metric == "logloss" else 1
    return value is not None and (best is None or sign * (value - best) > conf.min_gain)
