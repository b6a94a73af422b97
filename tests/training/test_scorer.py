"""The scorer alone: no torch, no Spark, and nothing is scored with a folder that changed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from features.errors import DataError
from tests.training.raw_trainset import GATE_DAY, TRAIN_DAY, RawTrainset, publish, write_raw_trainset
from training.published import MANIFEST_FILE, verify
from training.sample_rows import schema_of, to_rows, to_table
from training.scorer import Scorer


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> RawTrainset:
    return write_raw_trainset(tmp_path_factory.mktemp("trainset"), gate_rows=300)


@pytest.fixture(scope="module")
def folder(raw: RawTrainset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(raw, tmp_path_factory.mktemp("model") / "published", "deepfm")


def test_scores_do_not_depend_on_how_rows_are_grouped(raw: RawTrainset, folder: Path) -> None:
    scorer = Scorer.open(folder.as_uri())
    whole = scorer.score(raw.samples)["enter"]
    assert whole.dtype == np.float64
    assert len(np.unique(whole)) > 100
    alone = [scorer.score(raw.samples.slice(i, 1))["enter"][0] for i in range(20)]
    np.testing.assert_allclose(alone, whole[:20], rtol=0, atol=1e-6)
    assert scorer.score(raw.samples.slice(0, 0))["enter"].shape == (0,)


def test_labels_and_position_are_not_needed_and_change_nothing(raw: RawTrainset, folder: Path) -> None:
    scorer = Scorer.open(str(folder))
    bare = raw.samples.select([*scorer.encoder.columns(), "dt"])
    assert "position" not in bare.column_names
    np.testing.assert_array_equal(scorer.score(bare)["enter"], scorer.score(raw.samples)["enter"])


def test_the_day_decides_which_ids_are_known(raw: RawTrainset, folder: Path) -> None:
    scorer = Scorer.open(str(folder))
    own = scorer.score(raw.samples)["enter"]
    np.testing.assert_array_equal(own, scorer.score(raw.samples, GATE_DAY)["enter"])
    assert (own != scorer.score(raw.samples.drop(["dt"]))["enter"]).any()


def test_an_evicted_key_scores_as_one_that_was_never_seen(tmp_path: Path) -> None:
    user = 10**14 + 2
    raw = write_raw_trainset(tmp_path / "trainset", gate_rows=300, evicted={"user": [user]})
    scorer = Scorer.open(str(publish(raw, tmp_path / "published", "deepfm")))
    users = raw.samples["user_id"].to_numpy()
    assert (users == user).any()
    other = pa.array(np.where(users == user, 10**14 + 1, users))
    stranger = raw.samples.set_column(raw.samples.column_names.index("user_id"), "user_id", other)
    np.testing.assert_array_equal(scorer.score(raw.samples)["enter"], scorer.score(stranger)["enter"])
    known = scorer.score(raw.samples, TRAIN_DAY)["enter"] != scorer.score(stranger, TRAIN_DAY)["enter"]
    np.testing.assert_array_equal(known, users == user)


def test_missing_columns_are_named_all_at_once(raw: RawTrainset, folder: Path) -> None:
    with pytest.raises(DataError, match=r"missing \(2\); e.g. hour, watched_anchor"):
        Scorer.open(str(folder)).score(raw.samples.drop(["hour", "watched_anchor"]))


def test_a_folder_that_changed_is_not_used(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "booster.ubj").write_bytes(b"another booster")
    (copy / "vocabularies" / "user.parquet").unlink()
    (copy / "notes.txt").write_text("stray")
    with pytest.raises(DataError) as broken:
        Scorer.open(str(copy))
    for words in ("changed (1); e.g. booster.ubj", "missing (1); e.g. vocabularies/user.parquet", "e.g. notes.txt"):
        assert words in str(broken.value)
    (folder / "x").mkdir(exist_ok=True)  # an empty folder is no file
    verify(folder)


def test_a_folder_that_was_never_finished_is_not_used(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / MANIFEST_FILE).unlink()
    with pytest.raises(DataError, match="never finished"):
        Scorer.open(str(copy))


def test_scoring_imports_neither_torch_nor_spark(folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from training.scorer import Scorer, read_examples;"
        f"rows, _ = read_examples(Path({str(folder)!r})); Scorer.open({str(folder)!r}).score(rows);"
        "print(sorted({'torch', 'pyspark', 'petastorm', 'horovod'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_rows_survive_json_with_their_types(raw: RawTrainset) -> None:
    rows = raw.samples.slice(0, 50)
    back = to_table(to_rows(rows), schema_of(rows))
    for name in rows.column_names:
        assert back[name].to_pylist() == rows[name].to_pylist(), name
    nothing = rows.set_column(rows.column_names.index("content"), rows.schema.field("content"), pa.nulls(
        len(rows), rows.schema.field("content").type))  # fmt: skip
    assert to_table(to_rows(nothing), schema_of(nothing)).schema == nothing.schema


def test_rows_of_the_wrong_type_are_named_by_column() -> None:
    with pytest.raises(DataError) as wrong:
        to_table([{"hour": "noon", "dt": "yesterday"}], {"hour": "int", "dt": "date", "n": "double"})
    assert "column=hour" in str(wrong.value)
    assert "column=dt" in str(wrong.value)
    with pytest.raises(DataError, match="unknown column type 'decimal'"):
        to_table([], {"x": "decimal"})
