"""Batches of a train set in the order of `training.feed_plan`, read by Petastorm (`training.block_reader`).

Slices of blocks are taken as the plan says, whichever thread was faster, and made into batches in the background
(`training.prefetch`). Held in memory, and no more:

- row groups: those that the streams of the rank have begun (S/W), and what was read ahead; together at most
  `row_groups`;
- batches: `prefetch`, the one that is being made among them, and the caller's.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch

from features.errors import ConfError
from features.manifest import SplitName, TrainSet
from training.batch import Batch
from training.block_reader import BlockSource, open_blocks
from training.blocks import assemble, parts_of
from training.dealing import Dealt, dealt_until
from training.feed_plan import (
    EpochPlan,
    EvaluationPlan,
    Plan,
    list_row_groups,
    plan_epoch,
    plan_evaluation,
)
from training.prefetch import prefetched, staging_for
from training.storage import Folder
from training.world import World


@dataclass(frozen=True, kw_only=True)
class FeedPosition:
    """The next batch: step `step` of epoch `epoch`."""

    epoch: int = 0
    step: int = 0


class Feed:
    """One split of a train set, as one rank reads it.

    Args:
        trainset: the manifest.
        root: URL or path of the folder that the manifest's paths are relative to.
        split: which split.
        batch_size: rows of a step over all ranks.
        world: this rank.
        seed: with the epoch, decides the order of training.
        threads: threads that read; two keep one rank of a ranking model busy.
        row_groups: the most row groups in memory at once; None: as many as are begun at once, and four per thread.
        prefetch: batches made ahead of the caller, by a thread; 0: in the caller's own.
        device: where batches are given out. To a GPU they are copied from pinned memory while it computes.

    Raises:
        ConfError: the batch cannot be shared by the ranks, `row_groups` are too few for them (raised by `epoch` and
            `evaluation`), or the train set has no such split.
        DataError: the split cannot fill one step on every rank (raised by `epoch` and `steps_per_epoch`).
    """

    def __init__(
        self,
        trainset: TrainSet,
        root: str,
        *,
        split: SplitName,
        batch_size: int,
        world: World,
        seed: int,
        threads: int = 2,
        row_groups: int | None = None,
        prefetch: int = 2,
        device: torch.device | None = None,
    ) -> None:
        if split not in trainset.splits:
            raise ConfError(f"train set {trainset.name} has no split {split!r}; it has {', '.join(trainset.splits)}.")
        if threads < 1:
            raise ConfError(f"feed.threads={threads} must be at least 1.")
        if prefetch < 0:
            raise ConfError(f"feed.prefetch={prefetch} must be at least 0.")
        self.position = FeedPosition()
        self._trainset = trainset
        self._root = Folder(root)
        self._groups = list_row_groups(trainset.splits[split].files)
        self._batch_size = batch_size
        self._world = world
        self._seed = seed
        self._threads = threads
        self._row_groups = row_groups
        self._prefetch = prefetch
        self._device = device or torch.device("cpu")
        self._dealt: tuple[int, Dealt] = (0, ())  # an epoch, and what other numbers of streams have read of it

    @property
    def rows(self) -> int:
        """Rows of the split, over all ranks."""
        return sum(group.rows for group in self._groups)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch: the same on every rank, in every epoch."""
        return self._plan(epoch=0).steps

    @property
    def dropped_per_epoch(self) -> int:
        """Rows behind the last full batch, over all ranks; other rows in every epoch."""
        return self._plan(epoch=0).dropped

    def epoch(self, epoch: int, start_step: int = 0) -> Generator[Batch, None, None]:
        """The batches of an epoch from `start_step` on, shuffled. `position` is moved before each is given out.

        Raises:
            ConfError: the epoch has no such step.
            DataError: a file is missing, damaged, or not what the manifest says.
        """
        plan = self._plan(epoch, self._dealt_of(epoch)).from_step(start_step)
        with closing(self._read(plan, with_position=True)) as batches:
            for step, batch in enumerate(batches, start=start_step + 1):
                last = step == plan.steps
                self.position = FeedPosition(epoch=epoch + 1) if last else FeedPosition(epoch=epoch, step=step)
                yield batch

    def evaluation(self) -> Generator[Batch, None, None]:
        """Every row of the split once over all ranks, unshuffled and without display positions.

        All ranks get the same number of batches of the same size; padding has row_id −1 and label_mask 0.

        Raises:
            DataError: as in `epoch`.
        """
        plan = plan_evaluation(self._groups, batch_size=self._batch_size, world=self._world)
        with closing(self._read(plan, with_position=False)) as batches:
            yield from batches

    def state_dict(self) -> dict[str, Any]:
        """The position, and what the order depends on; plain values."""
        dealt = [list(deal) for deal in self._dealt_of(self.position.epoch)]
        return {
            **vars(self.position),
            **self._order_key(),
            "streams": len(self._plan(epoch=0).streams),
            "dealt": dealt,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take a saved position over, from any number of ranks.

        Where this number of ranks has other streams (see `training.feed_plan`), the rows that are left of the epoch
        are dealt out anew.

        Raises:
            ConfError: the saved position counts steps of another order.
        """
        changed = {key: (state[key], value) for key, value in self._order_key().items() if state[key] != value}
        if changed:
            listed = ", ".join(f"{key} was {was}, is {now}" for key, (was, now) in changed.items())
            raise ConfError(f"cannot resume in another order of rows: {listed}. Use the saved values, or start anew.")
        epoch, step = state["epoch"], state["step"]
        dealt = tuple((streams, until) for streams, until in state.get("dealt", ()))  # absent from older checkpoints
        same = state["streams"] == len(self._plan(epoch=0).streams)
        self._dealt = (epoch, dealt if same else dealt_until(dealt, state["streams"], step))
        self.position = FeedPosition(epoch=epoch, step=step)

    def _order_key(self) -> dict[str, int]:
        return {"seed": self._seed, "batch_size": self._batch_size, "rows": self.rows}

    def _dealt_of(self, epoch: int) -> Dealt:
        return self._dealt[1] if self._dealt[0] == epoch else ()

    def _plan(self, epoch: int, dealt: Dealt = ()) -> EpochPlan:
        return plan_epoch(
            self._groups,
            logical_shards=self._trainset.logical_shards,
            batch_size=self._batch_size,
            world=self._world,
            seed=self._seed,
            epoch=epoch,
            dealt=dealt,
        )

    def _read(self, plan: Plan, *, with_position: bool) -> Generator[Batch, None, None]:
        staging = staging_for(self._device)
        made = self._made(plan, with_position=with_position, pinned=staging.pinned)
        return prefetched(made, depth=self._prefetch, staging=staging)

    def _made(self, plan: Plan, *, with_position: bool, pinned: bool) -> Generator[Batch, None, None]:
        parts = parts_of(self._trainset, with_position=with_position)
        source = BlockSource(
            root=self._root, groups=self._groups, parts=parts, threads=self._threads, held=self._row_groups
        )
        with open_blocks(source, plan) as blocks:
            for step in range(plan.first_step, plan.steps):
                slices = plan.slices(step)
                rows = plan.batch_size if isinstance(plan, EvaluationPlan) else sum(part.rows for part in slices)
                pieces = (blocks.take(part, of=self._groups[part.row_group]) for part in slices)
                yield assemble(pieces, parts, rows=rows, pinned=pinned)
