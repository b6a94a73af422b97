"""Which raw days are behind a derived partition, by the manifests of everything between them."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from features import storage
from pipeline.manifests import PartitionManifest
from pipeline.tables import Warehouse

RAW = "raw/"
RawDay = tuple[str, datetime.date]


@dataclass(frozen=True, kw_only=True)
class Behind:
    """What something was made of, however many steps back.

    Attributes:
        raw: (raw table, arrival day) → the digest of its listing that was read.
        derived: manifests of the derived partitions on the way.
        unknown: inputs whose manifest is gone, or holds another content by now.
    """

    raw: Mapping[RawDay, str]
    derived: tuple[PartitionManifest, ...]
    unknown: frozenset[str]


def partition_day(partition: str) -> datetime.date | None:
    """The day of `dt=YYYY-MM-DD`; None for a partition of another name."""
    name, _, value = partition.partition("=")
    return datetime.date.fromisoformat(value) if name == "dt" else None


def split_input(name: str) -> tuple[str, str]:
    """Table and partition of a key of `PartitionManifest.inputs`."""
    table, _, partition = name.rpartition("/")
    return table, partition


class Lineage:
    """Manifests of one warehouse, each read once."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._known: dict[tuple[str, str], PartitionManifest | None] = {}

    def behind(self, inputs: Mapping[str, str]) -> Behind:
        """Follows inputs (`table/partition` → digest) back to raw days; each partition is followed once."""
        raw: dict[RawDay, str] = {}
        derived: list[PartitionManifest] = []
        unknown: set[str] = set()
        seen: set[str] = set()
        todo = list(inputs.items())
        while todo:
            name, digest = todo.pop()
            if name in seen:
                continue
            seen.add(name)
            table, partition = split_input(name)
            day = partition_day(partition)
            if table.startswith(RAW) and day is not None:
                raw[table.removeprefix(RAW), day] = digest
                continue
            manifest = None if table.startswith(RAW) else self.committed(name, digest)
            if manifest is None:
                unknown.add(name)
                continue
            derived.append(manifest)
            todo.extend(manifest.inputs.items())
        return Behind(raw=raw, derived=tuple(derived), unknown=frozenset(unknown))

    def committed(self, name: str, digest: str) -> PartitionManifest | None:
        """The newest generation of `table/partition` with this content; None when there is none any more."""
        if (name, digest) not in self._known:
            found = (manifest for manifest in self._generations(*split_input(name)) if manifest.digest == digest)
            self._known[name, digest] = next(found, None)
        return self._known[name, digest]

    def _generations(self, table: str, partition: str) -> Iterator[PartitionManifest]:
        """All committed manifests of a partition, newest first."""
        folder = f"{self._warehouse.table_url(table)}/manifests/{partition}"
        for generation in reversed(self._warehouse.generations(table, partition)):
            content = storage.read_bytes(f"{folder}/manifest.{generation:06d}")
            yield PartitionManifest.model_validate_json(content)
