"""Decisions of the trigger, committed before anything is done about them, each under a key made of what it rests on.

    decisions/manifests/key=<mature day>-<hash>/manifest.<n>     n = 1: decided; each further one: a later state
    decisions/leases/retrain/…                                   who decides, and retrains

An open decision is closed before another one is committed, so there is at most one; it is looked for among the newest
LOOK_BACK.
"""

from __future__ import annotations

import datetime
import hashlib

from features.storage import list_folders
from pipeline.decision import Decision, Record, State
from pipeline.leases import Lease
from pipeline.manifests import PartitionManifest
from pipeline.stages.names import DECISIONS
from pipeline.tables import Warehouse

LEASE = "retrain"
LOOK_BACK = 50


class Ledger:
    """The decisions of one warehouse.

    It remembers which generation of a decision it has seen last: what another run did since then fences it out.
    """

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._seen: dict[str, int] = {}

    def lease(self, holder: str) -> Lease:
        """Held from before a decision until its retrain has ended.

        Raises:
            HeldError: on entering, when another live run holds it.
        """
        return self._warehouse.lease(DECISIONS, [LEASE], holder)

    def of_key(self, key: str) -> Record | None:
        """What became of a decision; None when it was never made."""
        manifest = self._warehouse.manifest(DECISIONS, _partition(key))
        if manifest is None:
            return None
        self._seen[key] = manifest.generation
        return manifest.decision

    def open(self) -> Record | None:
        """The decision whose retrain is still to come, or to be gone on with."""
        names = list_folders(f"{self._warehouse.table_url(DECISIONS)}/manifests")[-LOOK_BACK:]
        found = (self.of_key(name.removeprefix("key=")) for name in reversed(names))
        return next((record for record in found if record is not None and record.is_open), None)

    def commit(self, decision: Decision, date: datetime.date) -> Record:
        """Write a decision down; one to do nothing is finished by that.

        Raises:
            HeldError: when another run has decided the same meanwhile.
        """
        state: State = "finished" if decision.action == "nothing" else "decided"
        return self._commit(Record(decision=decision, date=date, state=state), generation=1)

    def move(self, record: Record, state: State, *, attempt: int | None = None, why: str = "") -> Record:
        """The same decision in a later state.

        Raises:
            HeldError: when another run has moved it meanwhile.
        """
        changes = {"state": state, "why": why, "attempt": record.attempt if attempt is None else attempt}
        return self._commit(record.model_copy(update=changes), generation=self._seen[record.decision.key] + 1)

    def _commit(self, record: Record, generation: int) -> Record:
        content = record.model_dump_json()
        manifest = PartitionManifest(
            table=DECISIONS,
            partition=_partition(record.decision.key),
            generation=generation,
            attempt=LEASE,
            files=(),
            rows=0,
            digest=hashlib.sha256(content.encode()).hexdigest()[:32],
            schema=(),
            counts={"attempts": record.attempt},
            decision=record,
            created_at=datetime.datetime.now(datetime.UTC),
        )
        self._warehouse.commit([manifest])
        self._seen[record.decision.key] = generation
        return record


def _partition(key: str) -> str:
    return f"key={key}"
