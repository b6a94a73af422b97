"""Whose turn it is to retrain a warehouse: one lease, held by a retrain, or kept by a scheduled run between its tasks.

A scheduler runs a retrain as many processes, one after the other. Each takes the lease under the name of the run and
keeps it for those that follow (`Lease.keep`), so that nobody retrains between two of them; the last one gives it back.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from jobs.settings import Settings
from pipeline.leases import Lease
from pipeline.stages.names import RETRAINS
from pipeline.tables import Warehouse

THE_WAREHOUSE = "of-this-warehouse"


def turn(warehouse: Warehouse, holder: str | None = None) -> Lease:
    """Held by a retrain: two of one warehouse would publish over each other.

    Args:
        holder: name of a scheduled run; None is a name of one's own.
    """
    return warehouse.lease(RETRAINS, [THE_WAREHOUSE], holder or uuid.uuid4().hex[:12])


@contextmanager
def turn_of_run(warehouse: str, holder: str | None, place: str, overrides: Sequence[str]) -> Iterator[None]:
    """A step of a scheduled run, which has the turn also after it; without a holder nothing is taken.

    Raises:
        HeldError: when another run has the turn.
        ConfError: on any bad value.
    """
    if holder is None:
        yield
        return
    keep = datetime.timedelta(hours=Settings.load(place, overrides).scheduler.keep_hours)
    with turn(Warehouse(warehouse), holder) as lease:
        lease.keep(keep)
        yield
        lease.check()
