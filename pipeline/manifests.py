"""What a partition says of itself: the manifest that a commit creates, and what goes into it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

UNKNOWN = "unknown"


class DataFile(BaseModel):
    """A data file; `path` is relative to the table's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    rows: int
    bytes: int


class PartitionManifest(BaseModel):
    """One generation of one partition: its files, its content digest and what it was computed from.

    `inputs` maps "table/partition" to the content digest (raw: listing digest) that was read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    table: str
    partition: str
    generation: int = Field(ge=1)
    attempt: str
    files: tuple[DataFile, ...]
    rows: int
    digest: str
    schema_: tuple[tuple[str, str], ...] = Field(alias="schema", serialization_alias="schema")
    inputs: Mapping[str, str] = Field(default_factory=dict)
    code: str = UNKNOWN
    conf: str = UNKNOWN
    counts: Mapping[str, int] = Field(default_factory=dict)
    created_at: datetime.datetime


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What goes into the manifest beside the data.

    `inputs` is asked once per day: the input partitions of that day with their digests.
    """

    inputs: Mapping[datetime.date, Mapping[str, str]]
    code: str = UNKNOWN
    conf: str = UNKNOWN


def day_partition(day: datetime.date) -> str:
    """Name of a day's partition."""
    return f"dt={day.isoformat()}"
