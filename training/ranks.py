"""Joining the other ranks, and hearing of those that are gone.

| a rank | the others notice |
|---|---|
| fails | at their next collective call: its process says goodbye |
| is killed | at once: its connections break |
| is stopped, or its host is gone | after `lost_seconds` without a message (Gloo's timeout) |
| lives, and does not come to a collective call | after `stalled_seconds` (Horovod's stall check) |

In each case `told_of_lost_ranks` turns what Horovod raises into one sentence, and the process ends. Horovod reads its
timeouts from the environment when it is initialised: `join` puts conf's there, whatever has started the process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from features.errors import LimelightError
from training.config import RankTimeouts

STALL_CHECK_S = 60  # Horovod's own default: how often it looks, and after how long it warns


class RankLostError(LimelightError):
    """Another rank has ended, or does not answer."""


def environment(timeouts: RankTimeouts) -> dict[str, str]:
    """Horovod's variables. It looks for stalled ranks now and then: four times within the timeout, at least."""
    return {
        "HOROVOD_GLOO_TIMEOUT_SECONDS": str(timeouts.lost_seconds),
        "HOROVOD_STALL_CHECK_TIME_SECONDS": str(min(STALL_CHECK_S, max(1, timeouts.stalled_seconds // 4))),
        "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": str(timeouts.stalled_seconds),
    }


def launched() -> bool:
    """Whether a launcher has started this process as one of Horovod's ranks."""
    return "HOROVOD_RANK" in os.environ


def join(timeouts: RankTimeouts) -> None:
    """Become one of the ranks that a launcher has started; alone, nothing happens.

    Raises:
        RankLostError: others do not come within `lost_seconds`.
    """
    if not launched():
        return
    import horovod.torch as horovod  # not at the top: a single rank needs no Horovod

    os.environ.update(environment(timeouts))
    with told_of_lost_ranks(timeouts):
        horovod.init()


@contextmanager
def told_of_lost_ranks(timeouts: RankTimeouts) -> Iterator[None]:
    """Say what it means that a collective call has failed.

    Raises:
        RankLostError: instead of Horovod's error.
    """
    if not launched():
        yield
        return
    from horovod.common.exceptions import HorovodInternalError

    try:
        yield
    except HorovodInternalError as error:
        raise RankLostError(
            f"rank {os.environ['HOROVOD_RANK']} ends because another rank has ended, has not answered for "
            f"{timeouts.lost_seconds} s (ranks.lost_seconds) or was waited for {timeouts.stalled_seconds} s "
            f"(ranks.stalled_seconds). If it has failed, its own message is in its output; go on with --resume. "
            f"Horovod says: {str(error).splitlines()[0]}"
        ) from error
