"""Files of raw rows → files of scores: the scores of training, in any batches, whole or not at all."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.errors import ConfError, DataError
from features.manifest import ROW_ID_COLUMN
from tests.training.raw_trainset import GATE_DAY, RawTrainset, write_raw_trainset
from training.config import TrainConf
from training.evaluation import score_column
from training.export import export_folder
from training.published import EXAMPLES_FILE, Contents, seal, verify
from training.raw_rows import open_rows
from training.result import load_model
from training.run import train
from training.sample_rows import to_rows
from training.scorer import Scorer
from training.scoring import FileScorer, Wanted

CONF = TrainConf.of(
    {
        "model": {"name": "deepfm", "embedding_dim": 4, "hidden": [8], "task": "enter"},
        "batch_size": 64,
        "epochs": 1,
        "threads": 1,
        "calibration": {"kind": "platt"},
        "optim": {"embedding": {"learning_rate": 0.3}, "dense": {"learning_rate": 0.05}},
    }
)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> RawTrainset:
    """A train set whose gate day is also what is trained and validated on: the figures do not matter here."""
    made = write_raw_trainset(tmp_path_factory.mktemp("trainset"), gate_rows=600)
    split = made.trainset.splits["gate"]
    splits = dict.fromkeys(("train", "valid", "gate"), split)
    trainset = made.trainset.model_copy(update={"splits": splits})
    (Path(made.root) / "trainset.json").write_text(trainset.model_dump_json())
    return RawTrainset(root=made.root, trainset=trainset, samples=made.samples, encoded=made.encoded)


@pytest.fixture(scope="module")
def run(raw: RawTrainset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training on it."""
    out = tmp_path_factory.mktemp("run")
    train(CONF, raw.root, str(out), show_progress=False)
    return out


@pytest.fixture(scope="module")
def folder(raw: RawTrainset, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "published"
    model, trainset = load_model(str(run))
    export_folder(model, trainset, raw.root, raw.samples, {"name": "deepfm"}, path)
    return path


@pytest.fixture(scope="module")
def scorer(folder: Path) -> Scorer:
    return Scorer.open(str(folder), examples=True)


def written(raw: RawTrainset, folder: Path, ending: str) -> Path:
    """The gate day's raw rows as somebody would hand them in."""
    path = folder / f"rows{ending}"
    if ending == ".parquet":
        pq.write_table(raw.samples, path)
    else:
        path.write_text("".join(json.dumps(row) + "\n\n" for row in to_rows(raw.samples)))
    return path


def read(path: Path) -> pa.Table:
    if path.suffix == ".parquet":
        return pq.read_table(path)
    return pa.Table.from_pylist([json.loads(line) for line in path.read_text().splitlines()])


@pytest.mark.parametrize("rows_at_once", [7, 10_000])
@pytest.mark.parametrize("given", [".parquet", ".jsonl"])
@pytest.mark.parametrize("wanted", [".parquet", ".jsonl"])
def test_scores_are_those_that_the_training_wrote_down(
    raw: RawTrainset, run: Path, scorer: Scorer, tmp_path: Path, given: str, wanted: str, rows_at_once: int
) -> None:
    """predictions-gate.parquet came from encoded files through PyTorch; these come from raw rows through the folder."""
    out = tmp_path / f"scores{wanted}"
    advanced: list[int] = []
    files = FileScorer(scorer=scorer, rows_at_once=rows_at_once, advance=advanced.append)
    assert files.score(open_rows(str(written(raw, tmp_path, given))), out) == sum(advanced) == 600
    assert max(advanced) <= rows_at_once
    scores = read(out).sort_by("impression_id")
    predicted = pq.read_table(run / "predictions-gate.parquet").sort_by(ROW_ID_COLUMN)
    assert scores["impression_id"].to_pylist() == predicted[ROW_ID_COLUMN].to_pylist()
    theirs = predicted[score_column("enter")].to_numpy()
    np.testing.assert_allclose(scores["enter"].to_numpy(), theirs, rtol=0, atol=1e-5)
    assert len(np.unique(theirs.round(4))) > 100, "scores that are all alike would show nothing"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"rows{given}", out.name])


def test_rows_without_an_id_are_numbered_and_labels_are_told_and_not_read(
    raw: RawTrainset, scorer: Scorer, tmp_path: Path
) -> None:
    told: list[str] = []
    rows = raw.samples.drop(["impression_id", "position", "mask_enter", "label_gift", "mask_gift"])
    pq.write_table(rows, tmp_path / "rows.parquet")
    FileScorer(scorer=scorer, rows_at_once=100, told=told.append).score(
        open_rows(str(tmp_path)), tmp_path / "scores.jsonl"
    )
    scores = read(tmp_path / "scores.jsonl")
    assert scores["row"].to_pylist() == list(range(600))
    np.testing.assert_allclose(scores["enter"].to_numpy(), scorer.score(raw.samples)["enter"], rtol=0, atol=1e-6)
    assert told == ["columns that the model does not read (1), e.g. label_enter"]


def test_types_that_hold_the_same_values_are_taken(raw: RawTrainset, scorer: Scorer, tmp_path: Path) -> None:
    rows = raw.samples
    changes: dict[str, Callable[[pa.ChunkedArray], pa.ChunkedArray]] = {
        "hour": lambda c: c.cast(pa.float64()),  # as pandas writes integers that have nulls
        "anchor_id": lambda c: c.cast(pa.int32()),
        "user_city": lambda c: c.cast(pa.large_string()).dictionary_encode(),
        "dt": lambda c: c.cast(pa.string()),
        "watched_anchor": lambda c: c.cast(pa.large_list(pa.int32())),
    }
    for name, change in changes.items():
        rows = rows.set_column(rows.column_names.index(name), name, change(rows[name]))
    pq.write_table(rows, tmp_path / "rows.parquet")
    FileScorer(scorer=scorer).score(open_rows(str(tmp_path / "rows.parquet")), tmp_path / "out.parquet")
    scores = pq.read_table(tmp_path / "out.parquet")["enter"].to_numpy()
    np.testing.assert_array_equal(scores, scorer.score(raw.samples)["enter"])


def test_the_day_can_be_given(raw: RawTrainset, scorer: Scorer, tmp_path: Path) -> None:
    pq.write_table(raw.samples.drop(["dt"]), tmp_path / "rows.parquet")
    files = FileScorer(scorer=scorer, day=GATE_DAY)
    files.score(open_rows(str(tmp_path / "rows.parquet")), tmp_path / "out.parquet")
    scores = pq.read_table(tmp_path / "out.parquet")["enter"].to_numpy()
    np.testing.assert_array_equal(scores, scorer.score(raw.samples)["enter"])


def refused(scorer: Scorer, rows: Path) -> str:
    """The message, once it is certain that nothing was written."""
    out = rows.parent / "out" / "scores.parquet"
    with pytest.raises(DataError) as error:
        FileScorer(scorer=scorer, rows_at_once=100).score(open_rows(str(rows)), out)
    assert not list((rows.parent / "out").glob("*"))
    return str(error.value)


def test_missing_and_wrong_columns_are_named_together(raw: RawTrainset, scorer: Scorer, tmp_path: Path) -> None:
    rows = raw.samples.drop(["user_city", "watched_anchor"])
    wrong = pa.array(["noon"] * len(rows))
    rows = rows.set_column(rows.column_names.index("hour"), "hour", wrong)
    halves = pa.array(np.arange(len(rows)) + 0.5)
    rows = rows.set_column(rows.column_names.index("anchor_id"), "anchor_id", halves)
    pq.write_table(rows, tmp_path / "rows.parquet")
    message = refused(scorer, tmp_path / "rows.parquet")
    assert "missing (rows 0 to 99) (2); e.g. user_city, watched_anchor" in message
    assert "column=hour: type string where int is wanted (text and numbers" in message
    assert "column=anchor_id: type double where bigint is wanted" in message


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_no_number_where_the_model_needs_one_is_named_by_row(
    raw: RawTrainset, scorer: Scorer, tmp_path: Path, value: float | None
) -> None:
    """In the second batch: what the first one gave is not left behind either."""
    viewers = raw.samples["room_viewers"].to_pylist()
    viewers[150] = viewers[163] = value
    place = raw.samples.column_names.index("room_viewers")
    rows = raw.samples.set_column(place, "room_viewers", pa.array(viewers, pa.float64()))
    pq.write_table(rows, tmp_path / "rows.parquet")
    message = refused(scorer, tmp_path / "rows.parquet")
    assert "column=room_viewers: null, NaN or infinite (2); e.g. row 150, row 163" in message


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"user_id": 1,\n', "line 3 of"),
        (b"[1, 2]\n", "is no JSON object (a list)"),
        (b'{"hour": "noon"}\n', "column=hour"),
        (b"\xff\xfe\n", "no text in UTF-8"),
    ],
)
def test_broken_lines_are_named(raw: RawTrainset, scorer: Scorer, tmp_path: Path, line: bytes, says: str) -> None:
    rows = to_rows(raw.samples.slice(0, 2))
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows) + line)
    assert says in refused(scorer, path)


def test_a_column_that_no_row_has_is_missing_and_one_that_some_lack_is_null(
    raw: RawTrainset, scorer: Scorer, tmp_path: Path
) -> None:
    rows = to_rows(raw.samples.slice(0, 4))
    del rows[1]["user_city"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    FileScorer(scorer=scorer).score(open_rows(str(tmp_path / "rows.jsonl")), tmp_path / "out.jsonl")
    null = to_rows(raw.samples.slice(1, 1))[0] | {"user_city": None}
    (tmp_path / "null.jsonl").write_text(json.dumps(null) + "\n")
    FileScorer(scorer=scorer).score(open_rows(str(tmp_path / "null.jsonl")), tmp_path / "of_null.jsonl")
    one, other = read(tmp_path / "out.jsonl")["enter"][1], read(tmp_path / "of_null.jsonl")["enter"][0]
    assert one.as_py() == pytest.approx(other.as_py(), abs=1e-6)
    for row in rows:
        row.pop("user_city", None)
    (tmp_path / "none.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "e.g. user_city" in refused(scorer, tmp_path / "none.jsonl")


def test_an_older_output_stays_when_scoring_fails(raw: RawTrainset, scorer: Scorer, tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    out.write_text("of yesterday")
    pq.write_table(raw.samples.drop(["hour"]), tmp_path / "rows.parquet")
    with pytest.raises(DataError):
        FileScorer(scorer=scorer).score(open_rows(str(tmp_path / "rows.parquet")), out)
    assert out.read_text() == "of yesterday"


def test_other_endings_are_refused(scorer: Scorer, raw: RawTrainset, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b")
    with pytest.raises(ConfError, match=r"no \.parquet file"):
        open_rows(str(tmp_path / "rows.csv"))
    with pytest.raises(ConfError, match=r"no \.parquet file"):
        open_rows(str(tmp_path / "nothing.parquet"))
    rows = open_rows(str(written(raw, tmp_path, ".parquet")))
    with pytest.raises(ConfError, match=r"\.parquet or \.jsonl"):
        FileScorer(scorer=scorer).score(rows, tmp_path / "scores.csv")


def test_examples_that_get_other_scores_are_found(folder: Path, tmp_path: Path) -> None:
    """A folder that was sealed again by whoever changed the examples: every digest is right."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    lines = [json.loads(line) for line in (copy / EXAMPLES_FILE).read_text().splitlines()]
    lines[3]["expected"]["enter"] += 2e-5
    (copy / EXAMPLES_FILE).write_text("\n".join(map(json.dumps, lines)) + "\n")
    (copy / "MANIFEST.json").unlink()
    contents: Contents = seal(copy, "deepfm", verify(folder).outputs)
    assert contents.model == "deepfm"
    Scorer.open(str(copy))
    with pytest.raises(DataError, match=r"differ by (1\.9\d|2)e-05"):
        Scorer.open(str(copy), examples=True)


def test_scoring_files_imports_neither_torch_nor_spark() -> None:
    program = (
        "import sys; import training.scoring; print(sorted({'torch', 'pyspark', 'petastorm'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_is_wanted_of_a_row(scorer: Scorer) -> None:
    wanted = Wanted.of(scorer)
    assert set(wanted.needed) == {*scorer.encoder.columns()} - {"impression_id"}, "user_id is a feature, too"
    assert set(wanted.numbers) == {"user_watch_ms_7d", "room_viewers"}
    assert set(wanted.optional) == {"impression_id", "dt"}
