"""A loss that is no number ends a training: before anything is saved, on all ranks at once, naming the batch.

A step never waits for its loss. What a step's loss came to stays on the device: whether it was a number travels with
the next steps' counts (`training.step`), and is read where the loop waits for the device anyway. Until then the last
steps are remembered, so that the first bad one can be named.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from features.errors import MAX_EXAMPLES, DivergedError, Problem
from features.manifest import ROW_ID_COLUMN
from training.step import Learner, StepLosses


@dataclass(frozen=True, kw_only=True)
class _Taken:
    """A step: its epoch, its number in the epoch, its rows [n] on CPU, and its losses."""

    epoch: int
    step: int
    row_id: Tensor
    losses: StepLosses


class DivergenceWatch:
    """The steps since the loop last looked.

    Args:
        learner: whose steps.
        every: steps between two looks.
        url: of the checkpoints, to name it.
    """

    def __init__(self, learner: Learner, every: int, url: str) -> None:
        self._learner, self._url = learner, url
        self._taken: deque[_Taken] = deque(maxlen=every + 1)  # the last look did not see its own step
        self.saved_at: int | None = None
        """Steps of the newest checkpoint; None before the first."""

    def taken(self, epoch: int, step: int, row_id: Tensor, losses: StepLosses) -> None:
        """Remember a step."""
        self._taken.append(_Taken(epoch=epoch, step=step, row_id=row_id, losses=losses))

    def require_finite(self) -> None:
        """Before a model is judged or saved: every loss, and every weight, is a number. A collective call.

        Raises:
            DivergedError: one is not.
        """
        kept = [value for value in self._learner.model.state_dict().values() if value.is_floating_point()]
        bad = torch.stack([~torch.isfinite(value).all() for value in kept]).sum() + self._learner.diverged
        if float(self._learner.exchange.sum_(bad)):
            self.stop()

    def stop(self) -> None:
        """End the training; a collective call.

        Raises:
            DivergedError: always.
        """
        exchange = self._learner.exchange
        own = torch.stack([(~one.losses.finite).double() for one in self._taken])
        bad = exchange.sum_(own).tolist()
        place = next((place for place, ranks in enumerate(bad) if ranks), len(bad) - 1)
        first = self._taken[place]
        what = "the loss" if bad[place] else "a weight after it"
        rows = _bad_rows(first, all_of_them=not bad[place])
        count = int(exchange.sum_scalars({"rows": len(rows)})["rows"])
        examples = exchange.gather_rows(rows[:MAX_EXAMPLES]).tolist()
        kept = "There is no checkpoint yet"
        if self.saved_at is not None:
            kept = f"The checkpoint of step {self.saved_at}, before it, is kept in {self._url}"
        problem = Problem(
            what=f"epoch {first.epoch}, step {first.step}: {what} is not a number, the training has diverged",
            column=ROW_ID_COLUMN,
            count=count,
            examples=examples,
            remedy=f"{kept}. Lower optim.*.learning_rate, set optim.clip_norm, or look for extreme inputs in these "
            "rows.",
        )
        raise DivergedError([problem])


def _bad_rows(step: _Taken, *, all_of_them: bool) -> Tensor:
    """[k] ids of this rank's rows whose logits are no numbers; all of a bad batch where none is to blame alone."""
    bad, row_id = ~step.losses.finite_rows.cpu(), step.row_id.cpu()
    if all_of_them or (not bool(step.losses.finite) and not bad.any()):
        return row_id
    return row_id[bad]
