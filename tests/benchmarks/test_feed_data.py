"""The rows that the feed is measured on: a function of the seed, in the files that the trainset stage would write."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.feed_data import Shape, write_rows
from features import manifest as m
from pipeline.config import ExportConf
from training.feed_plan import list_row_groups

SMALL = Shape(name="small", rows=1003, ids=3, dense=2, lists=2, length=5, keys=20)


def test_files_are_those_that_the_manifest_lists_and_row_groups_fill_the_shards(tmp_path: Path) -> None:
    written: list[int] = []
    root = write_rows(SMALL, tmp_path, written.append)
    trainset = m.TrainSet.model_validate_json((root / m.TRAINSET_FILE).read_text(encoding="utf-8"))
    assert sum(written) == trainset.splits["train"].rows == SMALL.rows
    groups = list_row_groups(trainset.splits["train"].files)
    assert len(groups) % ExportConf().logical_shards == 0
    assert {group.rows for group in groups[:-1]} == {63}
    for file in trainset.splits["train"].files:
        metadata = pq.read_metadata(root / file.path)
        assert tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)) == file.row_groups
        assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_rows_are_a_function_of_the_seed_and_written_once(tmp_path: Path) -> None:
    roots = [write_rows(SMALL, tmp_path / name, lambda _rows: None) for name in ("a", "b")]
    tables = [pq.read_table(root / "train") for root in roots]
    assert tables[0].equals(tables[1])
    assert len(set(tables[0]["row_id"].to_pylist())) == SMALL.rows
    before = {path: path.stat().st_mtime_ns for path in roots[0].rglob("*.parquet")}
    written: list[int] = []
    write_rows(SMALL, tmp_path / "a", written.append)
    assert written == [SMALL.rows]
    assert {path: path.stat().st_mtime_ns for path in roots[0].rglob("*.parquet")} == before


def test_every_value_is_what_the_contract_asks_for(tmp_path: Path) -> None:
    table = pq.read_table(write_rows(SMALL, tmp_path, lambda _rows: None) / "train")
    for name in table.column_names:
        assert table[name].null_count == 0
    assert {str(table[f"c__{name}"].type) for name in SMALL.fields} == {"int32"}
    lists = table["s__watched__l0"]
    assert {len(values) for values in lists.to_pylist()} == {SMALL.length}
    ids = [value for values in lists.to_pylist() for value in values]
    assert min(ids) == m.FIRST_KEY_ID
    assert max(ids) == SMALL.keys - 1
