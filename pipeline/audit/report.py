"""What an audit says: one verdict per subject and check, with the figures it rests on."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

from features.errors import MAX_EXAMPLES

FORMAT_VERSION: Literal[1] = 1
REPORT_FILE = "audit.json"

CheckName = Literal["cutoffs", "probe", "fitted", "recompute", "mutation"]
CHECKS: tuple[CheckName, ...] = ("cutoffs", "probe", "fitted", "recompute", "mutation")

Figure = int | float | str


class Verdict(StrEnum):
    """`suspect` is all that a statistic can say; `not checkable` is never counted as a pass."""

    PASS = "pass"
    LEAK = "leak"
    SUSPECT = "suspect"
    NOT_CHECKABLE = "not checkable"


class Finding(BaseModel):
    """One verdict.

    Attributes:
        subject: the feature, group of features or artefact.
        what: the verdict's reason in one sentence.
        count: rows (or keys, ids, days) concerned.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    check: CheckName
    subject: str
    verdict: Verdict
    what: str
    count: int | None = None
    examples: tuple[str, ...] = ()
    figures: Mapping[str, Figure] = {}


class CheckRun(BaseModel):
    """One check that has run."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: CheckName
    seconds: float
    findings: tuple[Finding, ...]

    def count(self, verdict: Verdict) -> int:
        """Findings with a verdict."""
        return sum(finding.verdict is verdict for finding in self.findings)


class AuditReport(BaseModel):
    """`audit.json`: the sample set, and every finding of every check that was asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format_version: Literal[1] = FORMAT_VERSION
    sample_set: str
    rows: int
    days: tuple[str, ...]
    trainset: str | None
    checks: tuple[CheckRun, ...]
    made_at: datetime.datetime

    def of(self, *verdicts: Verdict) -> list[Finding]:
        """Findings with one of these verdicts, in the order of the checks."""
        return [finding for check in self.checks for finding in check.findings if finding.verdict in verdicts]

    @property
    def alarmed(self) -> bool:
        """Whether anything leaks or is suspected to."""
        return bool(self.of(Verdict.LEAK, Verdict.SUSPECT))


def shown(examples: Iterable[object]) -> tuple[str, ...]:
    """At most five examples, as text."""
    return tuple(str(example) for example in list(examples)[:MAX_EXAMPLES])
