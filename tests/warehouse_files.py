"""What lies in a warehouse on the local disk, read without the code that wrote it where that is what a test asks."""

from __future__ import annotations

import datetime
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.manifests import PartitionManifest, day_partition
from pipeline.tables import Warehouse


def manifests(warehouse: Path) -> dict[str, PartitionManifest]:
    """`table/partition` → the current manifest of everything that was committed."""
    opened = Warehouse(str(warehouse))
    found = {}
    for table in opened.tables():
        for partition in opened.partitions(table):
            manifest = opened.manifest(table, partition)
            assert manifest is not None
            found[f"{table}/{partition}"] = manifest
    return found


def busiest_user(warehouse: Path, day: datetime.date) -> int:
    """The user with most samples of a day."""
    found = Warehouse(str(warehouse))
    manifest = found.manifest("samples", day_partition(day))
    assert manifest is not None
    users = Counter(user for url in found.file_urls(manifest) for user in pq.read_table(url)["user_id"].to_pylist())
    return int(users.most_common(1)[0][0])


def files_with(warehouse: Path, user: int) -> list[str]:
    """Every Parquet file outside raw/ that has the user, whatever the column is called."""
    found = []
    for path in sorted(warehouse.rglob("*.parquet")):
        if path.relative_to(warehouse).parts[0] == "raw":
            continue
        table = pq.ParquetFile(path).read()
        held = [name for name in ("user_id", "group") if name in table.column_names]
        if any(user in table[name].to_pylist() for name in held):
            found.append(str(path.relative_to(warehouse)))
    return found


def rows_in_files(warehouse: Path, manifest: PartitionManifest) -> int:
    """Rows that the footers of a partition's files say; a missing file is an error."""
    folder = warehouse / manifest.table
    return sum(pq.read_metadata(folder / file.path).num_rows for file in manifest.files)
