"""Epochs over a train set: steps, evaluation on the validation day, early stopping, checkpoints, a clean end.

Every decision (stop, best epoch, checkpoint) follows from values that all ranks have alike, so that no rank
waits for one that went another way.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType

import torch
from torch import Tensor

from features.errors import ConfError
from training import checkpoint
from training.config import TrainConf
from training.divergence import DivergenceWatch
from training.evaluation import Figures
from training.exchange import Exchange
from training.feed import Feed
from training.judgement import Progress, Record, judged, monitored, on_plateau, rates_after
from training.step import Learner, StepLosses

STOP_CHECK_EVERY = 8  # steps: asking whether any rank was told to stop waits for the device


@dataclass(kw_only=True)
class LossSums:
    """Loss and weights of an epoch's steps so far: own sums [T], global weights [T], on the device."""

    sums: Tensor
    weights: Tensor

    def add(self, losses: StepLosses) -> None:
        """Count a step in."""
        self.sums += losses.sums.double()
        self.weights += losses.weights.double()


class StopRequest:
    """Set by SIGTERM: the loop saves a checkpoint and ends at the next step that all ranks agree on."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        self.requested = True

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGTERM over inside the block. Only a main thread may: elsewhere signals stay as they are."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the loop calls: all ranks evaluate; the others are called on every rank, and may look which it is.

    Attributes:
        evaluate: figures of the validation split by the model as it is now.
        improved: the epoch's number, when its figures are the best so far.
        epoch_done: the epoch's record.
        step_done: rows of the step over all ranks.
        gives_up: whether the training is to end after the epoch of this record, the same answer on every rank.
    """

    evaluate: Callable[[], Figures]
    improved: Callable[[int], None]
    epoch_done: Callable[[Record], None]
    step_done: Callable[[int], None]
    gives_up: Callable[[Record], bool] = lambda _record: False


class Loop:
    """One training, from wherever its progress stands to its end or a request to stop."""

    def __init__(
        self, learner: Learner, feed: Feed, conf: TrainConf, hooks: Hooks, checkpoints_url: str, stop: StopRequest
    ) -> None:
        self.learner, self.feed, self.conf, self.hooks, self.stop = learner, feed, conf, hooks, stop
        self.progress = Progress()
        self.given_up = False
        self._url = checkpoints_url
        self._exchange: Exchange = learner.exchange
        self._metric = monitored("early_stopping", conf.early_stopping, learner.model.tasks)
        self._plateau = None if conf.plateau is None else monitored("plateau", conf.plateau, learner.model.tasks)
        self._divergence = DivergenceWatch(learner, STOP_CHECK_EVERY, checkpoints_url)
        self._losses = self._no_losses()
        self._seconds, self._steps_taken = 0.0, 0

    @property
    def rows_per_second(self) -> float | None:
        """Rows of all ranks per second of this process's steps, evaluation aside; None before the first step."""
        return self._steps_taken * self.conf.batch_size / self._seconds if self._seconds else None

    def run(self) -> Progress:
        """Run the epochs that are left.

        Returns:
            The progress; `finished` is false if a request to stop ended it, and a checkpoint was saved, or if it was
            given up.

        Raises:
            DataError: a loss or a weight is no number; nothing was saved after it.
        """
        self.learner.model.train()
        while not self.progress.finished and not self.given_up:
            epoch = self.feed.position.epoch
            started, before = time.monotonic(), self.progress.steps
            complete = self._steps(epoch)
            self._seconds += time.monotonic() - started
            self._steps_taken += self.progress.steps - before
            if not complete:
                self._divergence.require_finite()
                self.save()
                return self.progress
            self._end_epoch(epoch)
        return self.progress

    def _steps(self, epoch: int) -> bool:
        """Steps of an epoch from the feed's position on; false if a request to stop cut it off."""
        every, dtype = self.conf.checkpoint.every_steps, getattr(torch, self.conf.precision)
        device = self.learner.model.table.weight.device
        first = self.feed.position.step
        for step, batch in enumerate(self.feed.epoch(epoch, first), start=first):
            losses = self.learner.step(batch.to(device, dtype), flag=self.stop.requested)
            self._losses.add(losses)
            self._divergence.taken(epoch, step, batch.row_id, losses)
            self.progress = replace(self.progress, steps=self.progress.steps + 1)
            self.hooks.step_done(self.conf.batch_size)
            inside = self.feed.position.epoch == epoch
            if inside and self.progress.steps % STOP_CHECK_EVERY == 0 and self._told_to_stop(losses):
                return False
            if inside and every is not None and self.progress.steps % every == 0:
                self._divergence.require_finite()
                self.save()
        return True

    def _told_to_stop(self, losses: StepLosses) -> bool:
        """Whether any rank was; waits for the device."""
        flag, diverged = torch.stack([losses.flag, losses.diverged]).tolist()
        if diverged:
            self._divergence.stop()
        return bool(flag)

    def _end_epoch(self, epoch: int) -> None:
        self._divergence.require_finite()
        figures = self.hooks.evaluate()
        record: Record = {
            "epoch": epoch,
            "rows_per_second": self.rows_per_second,
            "learning_rate": self.learner.optimiser.rates._asdict(),
            "train_loss": self._mean_losses(),
            "valid": {task: metrics.as_dict() for task, metrics in figures.items()},
        }
        self._losses = self._no_losses()
        self.progress = judged(self.progress, record, self._metric, self.conf)
        if self.conf.plateau is not None and self._plateau is not None:
            self.progress = on_plateau(self.progress, record, self._plateau, self.conf.plateau)
            self._set_rates()
        if self.progress.best_epoch == epoch:
            self.hooks.improved(epoch)
        self.hooks.epoch_done(record)
        self.given_up = self.hooks.gives_up(record) and not self.progress.finished
        if not self.given_up:
            self.save()

    def _set_rates(self) -> None:
        self.learner.optimiser.rates = rates_after(self.progress.reductions, self.conf.optim, self.conf.plateau)

    def _mean_losses(self) -> dict[str, float | None]:
        """Train loss of the epoch per target, over all ranks; None where no row was judged."""
        sums, weights = self._exchange.sum_(self._losses.sums).tolist(), self._losses.weights.tolist()
        tasks = self.learner.model.tasks
        return {task: s / w if w else None for task, s, w in zip(tasks, sums, weights, strict=True)}

    def _no_losses(self) -> LossSums:
        zeros = torch.zeros(len(self.learner.model.tasks), dtype=torch.float64)
        zeros = zeros.to(self.learner.model.table.weight.device)
        return LossSums(sums=zeros, weights=zeros.clone())

    def save(self) -> None:
        """Write a checkpoint; a collective call, written by rank 0."""
        random_states = self._exchange.gather_objects(checkpoint.RandomState.capture())
        losses = self._exchange.gather_rows(torch.stack([self._losses.sums, self._losses.weights]).unsqueeze(0))
        if self._exchange.world.is_first:
            progress = {key: value for key, value in vars(self.progress).items() if key != "curves"}
            saved = checkpoint.Checkpoint(
                step=self.progress.steps,
                model=self.learner.model.state_dict(),
                optimiser=self.learner.optimiser.state_dict(),
                feed=self.feed.state_dict(),
                random_states=random_states,
                history=self.progress.curves,
                extra={"progress": progress, "losses": losses.tolist()},
            )
            checkpoint.save(self._url, saved, keep=self.conf.checkpoint.keep)
        self._divergence.saved_at = self.progress.steps
        self._exchange.barrier()

    def resume(self, saved: checkpoint.Checkpoint) -> None:
        """Stand where a checkpoint was saved.

        Of another number of ranks: the rows left of the epoch are read once (see `Feed.load_state_dict`), and random
        numbers are drawn anew by (seed, step, rank).

        Raises:
            ConfError: if it is of another order of rows, or other layers.
        """
        world = self._exchange.world
        try:
            self.learner.model.load_state_dict(dict(saved.model))
            self.learner.optimiser.load_state_dict(saved.optimiser)
        except (RuntimeError, KeyError) as error:
            raise ConfError(f"the checkpoint is of another model or optimiser than the conf: {error}") from error
        self.feed.load_state_dict(saved.feed)
        same_ranks = len(saved.random_states) == world.size
        if same_ranks:
            saved.random_states[world.rank].restore()
        else:
            torch.manual_seed((self.conf.seed * 1_000_003 + world.rank) * 1_000_003 + saved.step)
        self.progress = Progress(curves=tuple(map(dict, saved.history)), **saved.extra["progress"])
        self._divergence.saved_at = saved.step
        self._set_rates()
        losses = torch.tensor(saved.extra["losses"], dtype=torch.float64, device=self._losses.sums.device)
        own = losses[world.rank, 0] if same_ranks else losses[:, 0].sum(dim=0) * world.is_first
        self._losses = LossSums(sums=own, weights=losses[0, 1])
