"""Which rank of how many this process is: the one place that knows."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Self

from features.errors import ConfError


@dataclass(frozen=True, kw_only=True)
class World:
    """A rank of a world.

    Attributes:
        rank: 0 … size − 1; rank 0 writes files and speaks to the user.
        size: number of ranks.
        local_rank: rank among the ranks of the same host; picks the GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.rank < self.size or not 0 <= self.local_rank <= self.rank:
            raise ConfError(
                f"no such rank: rank={self.rank} size={self.size} local_rank={self.local_rank}. "
                "Ranks run from 0 to size − 1, and a local rank is never above its rank."
            )

    @property
    def is_first(self) -> bool:
        """Whether this rank writes files and speaks to the user."""
        return self.rank == 0

    @classmethod
    def current(cls) -> Self:
        """The world Horovod was initialised with; one rank alone where it was not.

        Horovod is not imported for the question: whoever initialised it has done so already.

        Raises:
            ConfError: a launcher started several ranks and Horovod was not initialised: each would train alone.
        """
        horovod = sys.modules.get("horovod.torch")
        if horovod is None or not horovod.is_initialized():
            launched = int(os.environ.get("HOROVOD_SIZE", "1"))
            if launched > 1:
                raise ConfError(f"one of {launched} ranks, but Horovod is not initialised: call hvd.init() first")
            return cls()
        return cls(rank=horovod.rank(), size=horovod.size(), local_rank=horovod.local_rank())
