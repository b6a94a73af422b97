"""What was seen of a partition while it was written, as its manifest keeps it.

Older manifests have none of it. Histograms are counts per bin (`pipeline.binning`); `bins` says how the column was cut,
and only equal cuts are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["rows", "nulls", "non_finite", "range", "repeated_keys", "label_rate", "psi", "state", "touched"]
Severity = Literal["warn", "stop"]


class Closed(BaseModel):
    """Immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ColumnSeen(Closed):
    """One column of one day.

    Attributes:
        nulls: rows without a value; of an array, without an array.
        low, high: of finite numbers; None for other types and where there is none.
        psi: population-stability index against the reference days; None without a reference.
        rate: of a label: positives among judged rows.
    """

    nulls: int
    low: float | None = None
    high: float | None = None
    bins: str | None = None
    histogram: tuple[int, ...] = ()
    psi: float | None = None
    rate: float | None = None


class Finding(Closed):
    """A figure above its threshold; `examples` are keys, at most five."""

    kind: Kind
    severity: Severity
    column: str | None = None
    figure: float
    threshold: float
    what: str
    examples: tuple[str, ...] = ()


class CarriedSeen(Closed):
    """What a carried partition makes of the one below.

    Attributes:
        touched: keys whose row was computed again: something of theirs arrived, or left a window.
        born, died: of these, the keys that the one below does not have, and those that only it has.
    """

    touched: int
    born: int
    died: int


class BorderChecks(Closed):
    """Everything that was checked at the border of one partition.

    Attributes:
        one_in: histograms of values are of one row in so many, scaled up; nulls and labels are of all rows.
        distinct_keys: estimate (HyperLogLog++); None for a table whose keys are not known.
        reference: partitions that distributions were compared with, at most the conf'd days before.
        reference_rows: rows of all of them.
        carried: None for a partition that was written whole.
    """

    columns: Mapping[str, ColumnSeen] = Field(default_factory=dict)
    one_in: int = 1
    distinct_keys: int | None = None
    reference: tuple[str, ...] = ()
    reference_rows: int = 0
    carried: CarriedSeen | None = None
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PastDay:
    """A day that others are compared with."""

    partition: str
    rows: int
    columns: Mapping[str, ColumnSeen]
