"""The newest event and the newest arrival behind every group of features, against the group's own cutoff.

group               cutoff of day D                   looked up in
profiles            e < D and a < D                   manifests back to raw days; footers of raw days and of tiles;
                                                      every row against the profile of its day
snapshots           dt < D, not too old               manifests
sequences           before ts − event_lag, a ≤ D      the age of every event in every row
room state          before ts − event_lag, a ≤ D      manifests; the room's age in every row
somebody's Parquet  before the row's time             the time column that was named for the group
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.audit.conf import AuditConf
from pipeline.audit.cutoffs_lineage import (
    Sources,
    cutoff_finding,
    own_rows,
    profile_lineage,
    room_arrivals,
    snapshot_lineage,
    state_lineage,
)
from pipeline.audit.cutoffs_rows import as_profiled, later_values, named_time, room_ages, sequence_ages
from pipeline.audit.duck import connect, make_view
from pipeline.audit.report import Finding, Verdict
from pipeline.audit.sample_set import Own, SampleSet
from pipeline.stages.names import SAMPLES

Report = Callable[[str], None]


def own_cutoffs(samples: SampleSet, own: Own, conf: AuditConf, report: Report) -> list[Finding]:
    """Findings of a sample set of ours."""
    manifests = own.context.warehouse.require(SAMPLES, own.days)
    sources = Sources(context=own.context, manifests=manifests)
    report("following manifests back to raw days")
    findings = [*profile_lineage(sources), *state_lineage(sources), *snapshot_lineage(sources)]
    findings += [*room_arrivals(sources), *own_rows(sources)]
    with connect() as connection:
        make_view(connection, "every_sample", samples.urls)
        limit = "" if samples.rows <= conf.rows else f"WHERE hash(impression_id) % {samples.rows} < {conf.rows}"
        connection.execute(f"CREATE VIEW samples AS SELECT * FROM every_sample {limit}")
        report("comparing samples with the profiles of their day")
        findings += [as_profiled(connection, entity, sources) for entity in sources.profiled]
        report("looking at the age of every event")
        lag = own.context.conf.time.event_lag_seconds
        findings += [sequence_ages(connection, sequence, lag) for sequence in own.context.catalog.sequences]
        findings += room_ages(connection, own.context.catalog, lag)
    return findings


def foreign_cutoffs(samples: SampleSet) -> list[Finding]:
    """Findings of somebody's Parquet: only what a time column shows."""
    findings = []
    with connect() as connection:
        make_view(connection, "samples", samples.urls, samples.folders)
        for group in samples.groups:
            if group.happened is None:
                what = "no lineage, and no time column for the group: name one, --group name=column,column@time_column"
                findings.append(cutoff_finding(group.name, Verdict.NOT_CHECKABLE, what))
            else:
                findings.append(named_time(connection, samples, group.name, group.happened))
            findings += later_values(connection, samples, group.columns)
    return findings
