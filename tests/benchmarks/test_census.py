"""Census-Income as `limelight fit` gets it: labels are no inputs, splits share no row, fit reads the settings."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks import census
from training import models
from training.config import TrainConf
from training.samples.schema import SampleSchema

COLUMNS = (*census.COUNTS, *census.AMOUNTS, "sex", *census.DROPPED)
ROWS = 64


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    (source / census.COLUMNS_FILE).write_text("\n".join(COLUMNS), encoding="utf-8")
    with gzip.open(source / census.DATA_FILE, "wt") as stream:
        for row in range(ROWS):
            marital, income = ("Never married", "50000+.") if row % 4 == 0 else ("Widowed", "- 50000.")
            stream.write(", ".join(["7"] * 6 + [str(row), "Female", marital, income, "1700.09"]) + "\n")
    out = source / "out"
    assert census.main([str(source), str(out)]) == 0
    return out


def test_every_row_is_in_one_split(written: Path) -> None:
    splits = {name: pq.read_table(written / f"{name}.parquet") for name in ("train", "valid", "test")}
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 49, "valid": 7, "test": 8}
    seen = [value for rows in splits.values() for value in rows[COLUMNS[6]].to_pylist()]
    assert sorted(seen) == list(range(ROWS))
    for rows in splits.values():
        assert rows["income"].to_pylist() == [value % 4 == 0 for value in rows[COLUMNS[6]].to_pylist()]


def test_labels_and_weights_are_no_inputs(written: Path) -> None:
    schema = SampleSchema.load(written / "schema.yaml")
    assert set(schema.columns) == set(pq.read_schema(written / "train.parquet").names)
    assert not set(schema.columns) & set(census.DROPPED)
    labels = [name for name, column in schema.columns.items() if column.role == "label"]
    assert labels == list(census.TASKS)


@pytest.mark.parametrize("name", census.MODELS)
def test_settings_are_those_that_fit_reads(name: str) -> None:
    conf = TrainConf.of(census.settings_of(name, seed=3))
    assert conf.seed == 3
    models.check_conf(conf.model.name, conf.model.conf)


def test_a_folder_without_the_files_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        census.main([str(tmp_path), str(tmp_path / "out")])
    assert f"lacks {census.DATA_FILE} and {census.COLUMNS_FILE}" in capsys.readouterr().err
