"""From a train set down to the raw partitions, by what the manifests say that they read.

Steps:
  1. start    the manifest of the train set
  2. follow   each input that is a derived partition, once, however many read it
  3. end      at inputs of raw tables, and at partitions that are no longer there

A partition may have been computed anew since it was read: then the digest that was read differs from that of now.
"""

from __future__ import annotations

import datetime
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipeline.manifests import PartitionManifest

RAW = "raw/"
Find = Callable[[str, str], PartitionManifest | None]
"""Table and partition → its manifest of now."""


@dataclass(frozen=True, kw_only=True)
class Read:
    """One partition that was read, directly or through others.

    Attributes:
        digest: as its first reader read it; of the train set, as it is.
        digest_now, rows, made_at: None when it is no longer there, and for raw partitions, which have no manifests.
    """

    table: str
    partition: str
    digest: str
    digest_now: str | None = None
    rows: int | None = None
    made_at: datetime.datetime | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_raw(self) -> bool:
        """Whether it is of a raw table."""
        return self.table.startswith(RAW)

    @property
    def state(self) -> str:
        """Whether what was read is what is there."""
        if self.is_raw:
            return "raw"
        if self.digest_now is None:
            return "no longer there"
        return "as it was read" if self.digest_now == self.digest else "computed anew since"


@dataclass(frozen=True)
class Lineage:
    """Partitions by table, readers before what they read."""

    tables: Mapping[str, tuple[Read, ...]] = field(default_factory=dict)

    def made_from(self, table: str) -> tuple[str, ...]:
        """The tables that a table's partitions read."""
        names = (name.rpartition("/")[0] for read in self.tables[table] for name in read.inputs)
        return tuple(dict.fromkeys(names))


def trace(table: str, partition: str, find: Find) -> Lineage:
    """All that a partition rests on; empty when it is not there."""
    start = find(table, partition)
    if start is None:
        return Lineage()
    found: dict[str, Read] = {}
    waiting = deque([(f"{table}/{partition}", start.digest)])
    while waiting:
        name, digest = waiting.popleft()
        if name in found:
            continue
        found[name] = _read(name, digest, find)
        waiting.extend(sorted(found[name].inputs.items()))
    tables: dict[str, list[Read]] = {}
    for read in found.values():
        tables.setdefault(read.table, []).append(read)
    ordered = sorted(tables, key=lambda name: name.startswith(RAW))  # stable: raw tables last
    return Lineage({name: tuple(sorted(tables[name], key=lambda read: read.partition)) for name in ordered})


def _read(name: str, digest: str, find: Find) -> Read:
    table, _, partition = name.rpartition("/")
    manifest = None if table.startswith(RAW) else find(table, partition)
    if manifest is None:
        return Read(table=table, partition=partition, digest=digest)
    return Read(
        table=table,
        partition=partition,
        digest=digest,
        digest_now=manifest.digest,
        rows=manifest.rows,
        made_at=manifest.created_at,
        inputs=manifest.inputs,
    )
