"""Joining the other ranks, and hearing of those that are gone.

| a rank | the others notice |
|---|---|
| fails | at their next collective call: its process says goodbye |
| is killed | at once: its connections break |
| is stopped, or its host is gone | after `lost_seconds` without a message (Gloo's timeout) |

A rank that lives, answers, and does not come to a collective call is only warned of (Horovod's stall check).

In each case `told_of_lost_ranks` turns what Horovod raises into one sentence, and the process ends. Horovod reads its
timeout from the environment when it is initialised: `join` puts conf's there, whatever has started the process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from features.errors import LimelightError
from training.config import RankTimeouts


class RankLostError(LimelightError):
    """Another rank has ended, or does not answer."""


def environment(timeouts: RankTimeouts) -> dict[str, str]:
    """Horovod's variables."""
    return {"HOROVOD_GLOO_TIMEOUT_SECONDS": str(timeouts.lost_seconds)}


def launched() -> bool:
    """Whether a launcher has started this process as one of Horovod's ranks."""
    return "HOROVOD_RANK" in os.environ


def join(timeouts: RankTimeouts) -> None:
    """Become one of the ranks that a launcher has started; alone, nothing happens.

    Where others do not come within `lost_seconds`, Gloo throws in a thread of Horovod's, and the process is aborted
    (exit code 134).
    """
    if not launched():
        return
    import horovod.torch as horovod  # not at the top: a single rank needs no Horovod

    os.environ.update(environment(timeouts))
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
            f"rank {os.environ['HOROVOD_RANK']} ends because another rank has ended, or has not answered for "
            f"{timeouts.lost_seconds} s (ranks.lost_seconds). If it has failed, its own message is in its output; go "
            f"on with --resume. Horovod says: {str(error).splitlines()[0]}"
        ) from error
