"""Runs the checks that were asked for, in order, and puts what they found together."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence

from pipeline.audit.conf import AuditConf
from pipeline.audit.cutoffs import foreign_cutoffs, own_cutoffs
from pipeline.audit.fitted import fitted_artefacts
from pipeline.audit.mutation import mutation_trial
from pipeline.audit.probe import probe
from pipeline.audit.recompute import recompute
from pipeline.audit.report import CHECKS, AuditReport, CheckName, CheckRun, Finding, Verdict
from pipeline.audit.sample_set import SampleSet

Report = Callable[[str], None]


def audit(
    samples: SampleSet,
    conf: AuditConf,
    checks: Sequence[CheckName] = CHECKS,
    *,
    report: Report = lambda _: None,
    done: Callable[[CheckRun], None] = lambda _: None,
    scratch: str | None = None,
) -> AuditReport:
    """Audits one sample set.

    Args:
        report: told in a few words what is being looked at.
        done: told of each check as it ends.
        scratch: where the mutation trial may write; a temporary folder by default.

    Raises:
        DataError: a label is neither 0 nor 1 nor null.
        NotReadyError: samples or raw days that a check needs are not there.
    """
    runs = []
    for name in checks:
        started = time.monotonic()
        findings = _run(name, samples, conf, report, scratch)
        runs.append(CheckRun(name=name, seconds=time.monotonic() - started, findings=tuple(findings)))
        done(runs[-1])
    own = samples.own
    return AuditReport(
        sample_set=samples.name,
        rows=samples.rows,
        days=tuple(day.isoformat() for day in own.days) if own else (),
        trainset=own.trainset[0].name if own and own.trainset else None,
        checks=tuple(runs),
        made_at=datetime.datetime.now(datetime.UTC),
    )


def _run(name: CheckName, samples: SampleSet, conf: AuditConf, report: Report, scratch: str | None) -> list[Finding]:
    own = samples.own
    if name == "probe":
        return probe(samples, conf, report)
    if own is None:
        return foreign_cutoffs(samples) if name == "cutoffs" else [_no_lineage(name)]
    if name == "cutoffs":
        return own_cutoffs(samples, own, conf, report)
    if name == "fitted":
        return fitted_artefacts(own, conf, report)
    if name == "recompute":
        return recompute(samples, own, conf, report)
    return mutation_trial(own, conf, report, scratch=scratch)


def _no_lineage(name: CheckName) -> Finding:
    reasons = {
        "fitted": "no train set comes with the rows: nothing says which days its artefacts have seen",
        "recompute": "no raw tables come with the rows, and nothing says how a feature is made of them",
        "mutation": "no stages come with the rows that could compute them again",
    }
    return Finding(check=name, subject="all features", verdict=Verdict.NOT_CHECKABLE, what=reasons[name])
