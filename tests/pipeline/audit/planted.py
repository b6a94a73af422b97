"""Leaks planted in copies of the world: each in at most 1 % of the rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.audit.report import Finding, Verdict
from pipeline.manifests import PartitionManifest
from pipeline.tables import Warehouse

Change = Callable[[dict[str, Any]], dict[str, Any]]


def copy_of(world: Path, target: Path) -> Path:
    """A warehouse of its own to plant in; modification marks are kept, so that nothing looks replaced."""
    shutil.copytree(world, target)
    return target


def files_of(warehouse: Path, table: str, partition: str) -> tuple[PartitionManifest, list[Path]]:
    """The manifest of a partition, and its files."""
    opened = Warehouse(str(warehouse))
    manifest = opened.manifest(table, partition)
    assert manifest is not None
    return manifest, [Path(url) for url in opened.file_urls(manifest)]


def plant_in_rows(warehouse: Path, table: str, partition: str, keys: Iterable[int], change: Change) -> int:
    """Changes the rows with these impression ids in place; returns how many."""
    wanted, planted = set(keys), 0
    for path in files_of(warehouse, table, partition)[1]:
        rows = pq.read_table(path)
        changed = [row | change(row) if row["impression_id"] in wanted else row for row in rows.to_pylist()]
        planted += sum(row["impression_id"] in wanted for row in changed)
        pq.write_table(pa.Table.from_pylist(changed, schema=rows.schema), path)
    return planted


def plant_in_manifest(warehouse: Path, table: str, partition: str, inputs: dict[str, str]) -> None:
    """Adds inputs to the newest manifest of a partition."""
    newest = max((warehouse / table / "manifests" / partition).glob("manifest.*"))
    content = json.loads(newest.read_text())
    content["inputs"] |= inputs
    newest.write_text(json.dumps(content))


def alarms(findings: Iterable[Finding]) -> dict[str, Verdict]:
    """Subject → verdict of everything that leaks or is suspected to."""
    alarming = (Verdict.LEAK, Verdict.SUSPECT)
    return {finding.subject: finding.verdict for finding in findings if finding.verdict in alarming}


def finding(findings: Iterable[Finding], subject: str) -> Finding:
    """The one finding of a subject."""
    found = [finding for finding in findings if finding.subject == subject]
    assert len(found) == 1, f"{len(found)} findings of {subject}"
    return found[0]


def ignore(_: str) -> None:
    """Progress that nobody reads."""
