"""What `limelight status` says of border checks: the worst findings of each table, or every figure of every column."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence

from rich.markup import escape
from rich.table import Table

from features.errors import NotReadyError, Problem
from pipeline.border import BorderChecks, ColumnSeen, Finding
from pipeline.manifests import PartitionManifest, day_partition
from pipeline.tables import Warehouse

WORST = 3
MARKS = {"warn": "[yellow]warn[/]", "stop": "[red]stop[/]"}


def shown_manifests(
    warehouse: Warehouse, table: str | None = None, day: datetime.date | None = None
) -> Iterator[PartitionManifest]:
    """The newest partition of every table, or that of `day`.

    Raises:
        NotReadyError: when the table was never computed, or no table of that day.
    """
    tables = warehouse.tables()
    chosen = [name for name in tables if table in (None, name)]
    found = False
    for name in chosen:
        partition = max(warehouse.partitions(name)) if day is None else day_partition(day)
        manifest = warehouse.manifest(name, partition)
        if manifest is not None:
            found = True
            yield manifest
    if not found and (table is not None or day is not None):
        remedy = f"Tables at hand: {', '.join(tables) or 'none'}; `limelight status` shows their days"
        wanted = day.isoformat() if day is not None else None
        raise NotReadyError([Problem(table=table, day=wanted, what="was not computed yet", remedy=remedy)])


def worst_findings(manifest: PartitionManifest, most: int | None = WORST) -> Sequence[Finding]:
    """Findings of a partition: what stops first, then those furthest above their threshold."""
    findings = manifest.checks.findings if manifest.checks is not None else ()
    ordered = sorted(findings, key=lambda found: (found.severity != "stop", -found.figure / (found.threshold or 1)))
    return ordered[:most]


def findings_table(manifests: Sequence[PartitionManifest]) -> Table:
    """The worst findings of each partition, and how many more there are."""
    table = Table("checked", "day", "findings", "", "column", "what")
    for manifest in manifests:
        worst = worst_findings(manifest)
        day = manifest.partition.removeprefix("dt=")
        number = str(len(manifest.checks.findings)) if manifest.checks is not None else ""
        table.add_row(manifest.table, day, number, "", "", reference_words(manifest))
        for found in worst:
            table.add_row("", "", "", MARKS[found.severity], found.column or "", escape(found.what))
    return table


def reference_words(manifest: PartitionManifest) -> str:
    """What the figures of a partition rest on."""
    checks = manifest.checks
    if checks is None:
        return "not checked: no stage of days wrote it, or one from before there were checks"
    if not checks.reference:
        return "no reference: no day before it was committed with checks"
    first, last = (checks.reference[at].removeprefix("dt=") for at in (0, -1))
    return f"compared with {len(checks.reference)} days, {first} to {last}, {checks.reference_rows:,} rows"


def carried_words(manifest: PartitionManifest) -> str:
    """Of a carried partition: what of it was computed, and what is not judged; nothing of others."""
    seen = manifest.checks.carried if manifest.checks is not None else None
    if seen is None:
        return ""
    return (
        f"carried from {manifest.carried_from}: {seen.touched:,} keys touched, {seen.born:,} new, {seen.died:,} gone; "
        "distributions and distinct keys are judged at the next base"
    )


def columns_table(manifest: PartitionManifest) -> Table:
    """Every figure of every column of one partition; the histogram from its third bin on."""
    checks = manifest.checks or BorderChecks()
    distinct = "" if checks.distinct_keys is None else f", about {checks.distinct_keys:,} distinct keys"
    words = "; ".join(part for part in (reference_words(manifest), carried_words(manifest)) if part)
    title = f"{manifest.table} {manifest.partition}: {manifest.rows:,} rows{distinct}; {words}"
    table = Table("column", "nulls", "low", "high", "positive", "psi", "histogram", "finding", title=title)
    for name, seen in checks.columns.items():
        found = "; ".join(f"{f.kind} ({f.severity})" for f in checks.findings if f.column == name)
        table.add_row(name, *_figures(seen), found)
    return table


def _figures(seen: ColumnSeen) -> tuple[str, ...]:
    def said(figure: float | None, digits: str) -> str:
        return "" if figure is None else format(figure, digits)

    return (
        f"{seen.nulls:,}",
        said(seen.low, ".6g"),
        said(seen.high, ".6g"),
        said(seen.rate, ".4f"),
        said(seen.psi, ".4f"),
        bars(seen.histogram[2:]),
    )


def bars(counts: Sequence[int]) -> str:
    """A histogram as one sign per bin: its height in eighths of the fullest bin, a dot where it is empty."""
    signs = "▁▂▃▄▅▆▇█"
    fullest = max(counts, default=0)
    return "".join("·" if count == 0 else signs[(len(signs) * count - 1) // fullest] for count in counts).rstrip("·")
