"""The launcher of the other tests says what happened when ranks fail; test_exchange shows it succeed."""

from __future__ import annotations

import os

import pytest

from tests.training.launch import LaunchError, run_ranks

pytestmark = pytest.mark.horovod


def _fail_on_rank_1() -> None:
    if os.environ["HOROVOD_RANK"] == "1":
        raise RuntimeError("rank 1 gives up")


def test_a_failing_rank_fails_the_launch_with_its_output() -> None:
    with pytest.raises(LaunchError, match="rank 1 gives up"):
        run_ranks(_fail_on_rank_1, ranks=2)


def test_ranks_that_do_not_end_are_stopped() -> None:
    with pytest.raises(LaunchError, match="did not end in"):
        run_ranks(_fail_on_rank_1, ranks=2, timeout_s=0.1)
