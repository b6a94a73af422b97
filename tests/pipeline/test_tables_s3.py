"""The commit protocol on a store that knows neither rename nor folders. No Spark: pyspark brings no hadoop-aws."""

from __future__ import annotations

import datetime
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features import storage
from features.errors import HeldError
from pipeline import leases
from pipeline.manifests import DataFile, PartitionManifest
from pipeline.tables import Warehouse

DAY = "dt=2025-03-01"


def written(warehouse: Warehouse, generation: int, attempt: str, keys: list[int]) -> PartitionManifest:
    """A data file of one attempt, and the manifest that would name it."""
    path = f"data/{attempt}/written=2025-03-01/part-0.parquet"
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"key": keys}), sink)
    content = bytes(sink.getvalue())
    storage.write_bytes(f"{warehouse.table_url('t')}/{path}", content)
    return PartitionManifest(
        table="t",
        partition=DAY,
        generation=generation,
        attempt=attempt,
        files=(DataFile(path=path, rows=len(keys), bytes=len(content)),),
        rows=len(keys),
        digest=attempt,
        schema=(("key", "bigint"),),
        created_at=datetime.datetime.now(datetime.UTC),
    )


def keys_of(warehouse: Warehouse) -> list[int]:
    manifest = warehouse.manifest("t", DAY)
    assert manifest is not None
    found: list[int] = []
    for url in warehouse.file_urls(manifest):
        with storage.open_input(url) as source:
            found += pq.read_table(source)["key"].to_pylist()
    return found


def test_of_two_writers_of_one_generation_one_wins(s3: str) -> None:
    warehouse = Warehouse(f"{s3}/warehouse")
    first, second = written(warehouse, 1, "first", [1, 2]), written(warehouse, 1, "second", [3])
    warehouse.commit([second])
    with pytest.raises(HeldError, match="another run committed generation 1 first"):
        warehouse.commit([first])
    assert warehouse.manifest("t", DAY) == second
    assert keys_of(warehouse) == [3]


def test_generations_partitions_and_tables_are_listed(s3: str) -> None:
    warehouse = Warehouse(f"{s3}/warehouse")
    assert warehouse.tables() == []
    assert warehouse.manifest("t", DAY) is None
    for generation, keys in ((1, [1]), (2, [1, 2])):
        warehouse.commit([written(warehouse, generation, f"attempt{generation}", keys)])
    assert warehouse.generations("t", DAY) == [1, 2]
    assert (warehouse.tables(), warehouse.partitions("t")) == (["t"], [DAY])
    assert keys_of(warehouse) == [1, 2]


def test_a_lease_holds_until_it_is_released(s3: str) -> None:
    warehouse = Warehouse(f"{s3}/warehouse")
    held = r"t dt=2025-03-01 is held by run first \(host .*, pid \d+, since "
    with warehouse.lease("t", [DAY], "first"), pytest.raises(HeldError, match=held):
        warehouse.lease("t", [DAY], "second").__enter__()
    with warehouse.lease("t", [DAY], "second") as lease:
        lease.check()
    names = [entry.name for entry in storage.list_files(f"{s3}/warehouse/t/leases/{DAY}")]
    assert names == ["lease.000001", "lease.000002", "released.000001", "released.000002"]


def test_a_lease_without_heartbeat_expires_by_the_marks_of_the_store(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    warehouse = Warehouse(f"{s3}/warehouse")
    elsewhere = {"holder": "dead", "host": "elsewhere", "pid": 1, "since": "2025-03-01", "machine": "other"}
    storage.create_exclusively(f"{s3}/warehouse/t/leases/{DAY}/lease.000001", json.dumps(elsewhere).encode())
    with pytest.raises(HeldError, match="held by run dead"):
        warehouse.lease("t", [DAY], "heir").__enter__()
    monkeypatch.setattr(leases, "EXPIRY_SECONDS", -5.0)  # S3's marks are whole seconds
    with warehouse.lease("t", [DAY], "heir"):
        assert storage.exists(f"{s3}/warehouse/t/leases/{DAY}/lease.000002")
