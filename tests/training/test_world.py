"""A world is a rank of a size; without Horovod it is one rank alone."""

from __future__ import annotations

import sys

import pytest

from features.errors import ConfError
from training.world import World


def test_without_horovod_there_is_one_rank() -> None:
    assert World.current() == World(rank=0, size=1, local_rank=0)
    assert World.current().is_first


def test_horovod_imported_but_not_initialised_is_one_rank() -> None:
    import horovod.torch  # noqa: F401 - for its effect on sys.modules

    assert "horovod.torch" in sys.modules
    assert World.current() == World()


@pytest.mark.parametrize(("rank", "size", "local_rank"), [(2, 2, 0), (-1, 2, 0), (0, 0, 0), (0, 2, 1)])
def test_ranks_outside_the_world_are_refused(rank: int, size: int, local_rank: int) -> None:
    with pytest.raises(ConfError, match="no such rank"):
        World(rank=rank, size=size, local_rank=local_rank)
