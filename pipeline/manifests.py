"""What a partition says of itself: the manifest that a commit creates, and what goes into it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from features.evaluation import Evaluation
from features.paths import Name, RelativePath
from pipeline.border import BorderChecks
from pipeline.decision import Record

if TYPE_CHECKING:
    from pipeline.checks import BorderRules

UNKNOWN = "unknown"


class DataFile(BaseModel):
    """A data file.

    Attributes:
        path: relative to the table's folder.
        happened: the day on which its rows happened, in tables whose days are split by it.
        layer: 0 in a base; in the k-th delta on it, k.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: RelativePath
    rows: int
    bytes: int
    happened: datetime.date | None = None
    layer: int = Field(default=0, ge=0)


class PartitionManifest(BaseModel):
    """One generation of one partition: its files, its content digest and what it was computed from.

    `inputs` maps "table/partition" to the content digest (raw: listing digest) that was read; `checks` is None where
    none were made, and in manifests from before there were any. A carried partition (docs/commit.md) lists the files of
    another one and a delta: `carried_from` is that one's name, and `stored_rows` are the rows in all files, of which
    `rows` are what they amount to; both are None in others. `meanings` are those of `pipeline.meanings`, in the order
    of the columns; `same_rows_as` are the digests of contents that this one replaced and kept columns of: the same
    rows, and the same values where both have a column of one meaning. Both are empty in older manifests.
    Partitions of evaluations and decisions have no files: all that they say is `evaluation` or `decision`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    table: Name
    partition: Name
    generation: int = Field(ge=1)
    attempt: Name
    files: tuple[DataFile, ...]
    rows: int
    stored_rows: int | None = None
    carried_from: str | None = None
    digest: str
    schema_: tuple[tuple[str, str], ...] = Field(alias="schema", serialization_alias="schema")
    inputs: Mapping[str, str] = Field(default_factory=dict)
    code: str = UNKNOWN
    conf: str = UNKNOWN
    meanings: Mapping[str, str] = Field(default_factory=dict)
    same_rows_as: tuple[str, ...] = ()
    counts: Mapping[str, int] = Field(default_factory=dict)
    checks: BorderChecks | None = None
    evaluation: Evaluation | None = None
    decision: Record | None = None
    created_at: datetime.datetime


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What goes into the manifest beside the data.

    `inputs` and `same_rows_as` are asked once per day: the input partitions of that day with their digests, the
    contents whose columns it kept. `border` are the rules that rows are checked by while they are written; None checks
    nothing.
    """

    inputs: Mapping[datetime.date, Mapping[str, str]]
    code: str = UNKNOWN
    conf: str = UNKNOWN
    meanings: Mapping[str, str] = field(default_factory=dict)
    same_rows_as: Mapping[datetime.date, tuple[str, ...]] = field(default_factory=dict)
    border: BorderRules | None = None


def day_partition(day: datetime.date) -> str:
    """Name of a day's partition."""
    return f"dt={day.isoformat()}"
