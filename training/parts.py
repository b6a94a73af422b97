"""The parts that the wall time of a step is told by.

The loop and its learner name what they are about to do, `with part(Part.FORWARD): …`, to a function that
`Learner.part` holds. `training.clock` puts one there that adds up the seconds in the exchange, `training.profiler` one
that marks all of them in torch's trace. Nothing inside a step waits for the device in order to be timed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum


class Part(StrEnum):
    """A part of a step, and the whole. Where parts lie inside each other, time belongs to the innermost one.

    Attributes:
        STEP: from asking for a batch to asking for the next one.
        WAITING: blocked by the feed.
        COPY: of the batch to the device.
        FORWARD, BACKWARD: up to the loss, and from it to the gradients.
        EXCHANGE: where the step stands still for other ranks: handing over, waiting for them, adding up what came of
            a table row from several. What travels while the step goes on is in no part.
        UPDATE: of table and network.
        DEVICE: where the loop waits for the device, to learn of requests to stop and of bad losses.
    """

    STEP = "step"
    WAITING = "waiting"
    COPY = "copy"
    FORWARD = "forward"
    BACKWARD = "backward"
    EXCHANGE = "exchange"
    UPDATE = "update"
    DEVICE = "device"


Named = Callable[[Part], AbstractContextManager[object]]
"""Called with the part that begins; it lasts as long as the context."""

NOT_TIMED = nullcontext()


def unheard(_part: Part) -> AbstractContextManager[object]:
    """Nobody times the parts."""
    return NOT_TIMED
