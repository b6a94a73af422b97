"""`limelight score --requests` on a computed world: the raw features of the samples, and so the scores of training."""

from __future__ import annotations

import datetime
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from features.encoding import Encoder
from features.errors import DataError, ExitCode, NotReadyError
from features.manifest import TrainSet
from features.schema import load_catalog, sequence_name
from features.spec import Entity
from jobs.cli import app
from jobs.score_requests import Served, joined_requests
from pipeline.config import TrainDays
from pipeline.plan import stage
from pipeline.stages.names import serving_table
from pipeline.tables import Warehouse
from pipeline.trainset import TrainSetBuilder, load
from tests.features.random_logs import random_logs
from tests.oracle.sequences import expected_sequences
from tests.pipeline.raw_rows import ZONE
from tests.small_world import SAMPLE_DAYS, SHAPE, context_of
from training.export import export_folder, torch_scores
from training.modeling.base import RankingModel
from training.models import build
from training.raw_rows import open_rows
from training.scorer import Scorer, graph_inputs

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

CATALOG = load_catalog()
EVE, DAY = SAMPLE_DAYS
SETTINGS = ("tasks.min_positives=5", "tasks.min_negatives=5", "leaves.trees=3", "serving.buckets=3")
DIN = {"embedding_dim": 4, "hidden": [8], "candidates": {"category": "category"}}
COLUMNS = ("impression_id", "user_id", "anchor_id", "room_id", "ts", "scene", "device", "position")
SEQUENCES = [sequence_name(s.name, f.name) for s in CATALOG.sequences for f in s.fields]


@dataclass(frozen=True, kw_only=True)
class Platform:
    """The world with serving tables of DAY and a published model.

    Attributes:
        samples: of DAY, by impression_id.
        shown: the raw impressions that they were made of, in the same order.
        predicted: what PyTorch says of the samples, [n].
    """

    warehouse: Path
    folder: Path
    samples: pa.Table
    shown: pa.Table
    predicted: np.ndarray[Any, Any]

    def joined(
        self,
        requests: Path,
        *,
        rows_at_once: int = 100,
        warehouse: Path | None = None,
        date: datetime.date = DAY,
        max_age_days: int = 0,
    ) -> pa.Table:
        where = Served(warehouse=str(warehouse or self.warehouse), date=date, max_age_days=max_age_days)
        rows = joined_requests(open_rows(str(requests)), Scorer.open(str(self.folder)), where, "local", rows_at_once)
        return pa.concat_tables(rows.batches(rows_at_once, {}))


@pytest.fixture(scope="module")
def platform(spark: SparkSession, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Platform:
    warehouse = Path(shutil.copytree(world, tmp_path_factory.mktemp("platform") / "warehouse"))
    context = context_of(spark, warehouse, *SETTINGS)
    serve = stage("serving").run
    assert serve is not None
    serve(context, [EVE, DAY])
    days = TrainDays(fit=(EVE,), train=(EVE,), valid=(EVE,), gate=DAY)  # the figures do not matter here
    tables = Warehouse(str(warehouse))
    TrainSetBuilder(spark, tables, CATALOG, context.conf, "test").build("one", days)
    trainset, root = load(tables, "one")
    samples = pa.concat_tables([pq.read_table(url) for url in trainset.splits["gate"].sample_files])
    samples = samples.sort_by("impression_id")
    model = loud_model(trainset)
    folder = tmp_path_factory.mktemp("model") / "published"
    export_folder(model, trainset, root, samples, {"name": "din"}, folder)
    inputs = graph_inputs(Encoder.load(trainset, root).encode(samples), trainset)
    return Platform(
        warehouse=warehouse,
        folder=folder,
        samples=samples,
        shown=raw_impressions(warehouse, samples["impression_id"]),
        predicted=torch_scores(model, trainset, inputs)[1][:, 0],
    )


def loud_model(trainset: TrainSet) -> RankingModel:
    """Untrained, with weights so large that scores differ by all that it reads."""
    model = build("din", trainset, DIN, seed=1)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=draw))
    return model


def raw_impressions(warehouse: Path, ids: pa.ChunkedArray) -> pa.Table:
    files = sorted((warehouse / "raw" / "impressions").glob("dt=*/*.parquet"))
    rows = pa.concat_tables([pq.ParquetFile(file).read(list(COLUMNS)) for file in files])
    return rows.filter(pc.is_in(rows["impression_id"], value_set=ids.combine_chunks())).sort_by("impression_id")


def written(rows: pa.Table, folder: Path) -> Path:
    path = folder / "requests.parquet"
    pq.write_table(rows, path)
    return path


def served_sequences(shown: pa.Table) -> list[dict[str, list[Any]]]:
    """What the oracle says of requests that know the actions that arrived before DAY."""
    logs = random_logs(11, SHAPE)
    impressions, actions = logs["impressions"], logs["actions"]
    logs["impressions"] = impressions[impressions["impression_id"].isin(shown["impression_id"].to_pylist())]
    logs["actions"] = actions[actions["dt"] < DAY]
    found = expected_sequences(CATALOG, logs, 30, 7)
    return [found[row] for row in shown["impression_id"].to_pylist()]


@pytest.mark.parametrize("rows_at_once", [7, 1000])
def test_requests_get_the_raw_features_of_the_samples(platform: Platform, tmp_path: Path, rows_at_once: int) -> None:
    rows = platform.joined(written(platform.shown, tmp_path), rows_at_once=rows_at_once)
    assert rows["impression_id"].to_pylist() == platform.samples["impression_id"].to_pylist()
    compared = [name for name in rows.column_names if name not in SEQUENCES]
    assert len(compared) > 80
    for name in compared:
        assert rows[name].to_pylist() == platform.samples[name].to_pylist(), name
    wanted = served_sequences(platform.shown)
    for name in SEQUENCES:
        assert rows[name].to_pylist() == [row[name] for row in wanted], name
    assert sum(map(len, rows["watched_anchor"].to_pylist())) > 300
    for name in ("user_enters_7d", "anchor_enters_30d", "user_anchor_impressions_7d", "room_viewers", "room_content"):
        assert len({str(value) for value in rows[name].to_pylist()}) > 5, f"{name} is all alike: it shows nothing"


def test_scores_are_those_of_training_where_requests_know_as_much(platform: Platform, tmp_path: Path) -> None:
    """A sample also sees the actions of its own day that came before it; the tables of its morning do not."""
    out = tmp_path / "scores.parquet"
    code, said = limelight(written(platform.shown, tmp_path), platform, "--date", str(DAY), "--out", str(out))
    assert code == ExitCode.OK, said
    scores = pq.read_table(out)
    assert scores["impression_id"].to_pylist() == platform.samples["impression_id"].to_pylist()
    wanted = served_sequences(platform.shown)
    samples = platform.samples.select(SEQUENCES).to_pylist()
    same = np.array([row == sample for row, sample in zip(wanted, samples, strict=True)])
    assert 0.2 < same.mean() < 1, "both kinds must be there"
    given = scores["enter"].to_numpy()
    np.testing.assert_allclose(given[same], platform.predicted[same], rtol=0, atol=1e-5)
    assert np.abs(given[~same] - platform.predicted[~same]).max() > 1e-5, "the model must read sequences"
    assert len(np.unique(given.round(4))) > 50


def limelight(requests: Path, platform: Platform, *arguments: str) -> tuple[int, str]:
    places = ["--serving", str(platform.warehouse), "--folder", str(platform.folder)]
    done = CliRunner().invoke(app, ["score", "--requests", str(requests), *places, *arguments])
    return done.exit_code, " ".join(done.output.split())


def test_a_room_says_whose_it_is(platform: Platform, tmp_path: Path) -> None:
    rows = platform.joined(written(platform.shown.drop(["anchor_id", "position"]), tmp_path))
    found, wanted = (np.array(table["anchor_id"].to_pylist()) for table in (rows, platform.samples))
    assert np.array_equal(found[found > 0], wanted[found > 0])
    assert 0.2 < (found > 0).mean() < 1
    started = np.array(platform.samples["room_age_minutes"].to_pylist()) >= 0
    assert np.array_equal(found > 0, started), "a room that has not started is not known yet"
    assert rows["anchor_enters_30d"].to_pylist() == [
        value if known else 0
        for value, known in zip(platform.samples["anchor_enters_30d"].to_pylist(), found > 0, strict=True)
    ]


def test_strangers_have_the_defaults_and_are_told(platform: Platform, tmp_path: Path) -> None:
    lines = [{"user_id": 10**9, "room_id": 10**9, "ts": f"{DAY}T21:05:00+08:00"}]
    lines += [{"user_id": 1, "anchor_id": 1, "room_id": 10**9, "ts": f"{DAY}T21:06:00+08:00", "room_viewers": 77}]
    path, out = tmp_path / "requests.jsonl", tmp_path / "scores.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    stranger, known = platform.joined(path).to_pylist()
    for feature in CATALOG.features:
        if feature.entity in (Entity.USER, Entity.ANCHOR, Entity.USER_ANCHOR, Entity.USER_CATEGORY, Entity.ROOM):
            assert stranger[feature.name] == feature.default, feature.name
    assert (stranger["hour"], stranger["weekday"], stranger["scene"]) == (21, DAY.weekday(), "")
    assert all(stranger[name] == [] for name in SEQUENCES)
    assert known["room_viewers"] == 77, "what a request brings counts"
    assert known["user_impressions_7d"] > 0
    code, said = limelight(path, platform, "--out", str(out))
    assert code == ExitCode.OK, said
    assert [json.loads(line)["row"] for line in out.read_text().splitlines()] == [0, 1]
    assert f"serving tables of {DAY}" in said, "the newest there are"
    for what, count in (("user", 1), ("anchor", 1), ("room", 2)):
        assert f"{count} requests whose {what} no table knows" in said
    assert "no column scene, device" in said


def moment(day: datetime.date, hour: int = 12) -> datetime.datetime:
    return datetime.datetime.combine(day, datetime.time(hour), ZoneInfo(ZONE))


def requests(*rows: dict[str, Any], ts: pa.DataType | None = None) -> pa.Table:
    filled = [{"user_id": 1, "room_id": 1, "ts": moment(DAY)} | row for row in rows]
    table = pa.Table.from_pylist(filled)
    return table.set_column(table.column_names.index("ts"), "ts", table["ts"].cast(ts or pa.timestamp("us", tz="UTC")))


def test_a_request_is_of_the_day_of_its_tables(platform: Platform, tmp_path: Path) -> None:
    day_after, eve = DAY + datetime.timedelta(days=1), DAY - datetime.timedelta(days=1)
    path = written(requests({}, {"ts": moment(eve, 23)}, {"ts": moment(day_after, 0)}), tmp_path)
    with pytest.raises(DataError) as error:
        platform.joined(path)
    before, after = error.value.problems
    assert "before the day of the serving tables" in before.what
    assert before.examples == [f"row 1 at {moment(eve, 23).isoformat()}"]
    assert "after the day of the serving tables" in after.what
    assert after.examples == [f"row 2 at {moment(day_after, 0).isoformat()}"]
    with pytest.raises(DataError, match="row 1 at") as error:
        platform.joined(path, max_age_days=1)
    assert len(error.value.problems) == 1, "older tables may serve; the future never may"
    later = written(requests({"ts": moment(day_after)}), tmp_path)
    stale = platform.joined(later, max_age_days=1).to_pylist()[0]
    fresh = platform.joined(written(requests({}), tmp_path)).to_pylist()[0]
    assert stale["dt"] == day_after
    assert stale["user_enters_7d"] == fresh["user_enters_7d"]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{}, {"user_id": 2}, {}], "repeated requests (1); e.g. row 2"),
        ([{"impression_id": 3}, {"impression_id": 3, "user_id": 2}], "column=impression_id: repeated requests (1)"),
        ([{"user_id": None}, {"user_id": 2}], "column=user_id: null (1); e.g. row 0"),
        ([{"user_id": float("nan")}], "column=user_id: type double where bigint is wanted"),
        ([{"room_viewer": 3}], "unknown columns (1); e.g. room_viewer"),
        ([{"room_viewers": "many"}], "column=room_viewers: type string where bigint is wanted"),
    ],
)
def test_what_is_no_request_is_named(platform: Platform, tmp_path: Path, rows: list[dict[str, Any]], says: str) -> None:
    path, out = written(requests(*rows), tmp_path), tmp_path / "out" / "scores.jsonl"
    code, said = limelight(path, platform, "--out", str(out))
    assert code == ExitCode.BAD_DATA
    assert says in said
    assert not out.parent.exists()


def test_one_room_may_be_shown_twice_in_an_instant_where_rows_have_ids(platform: Platform, tmp_path: Path) -> None:
    rows = platform.joined(written(requests({"impression_id": 1}, {"impression_id": 2}), tmp_path))
    assert rows["impression_id"].to_pylist() == [1, 2]


def test_times_name_their_zone_and_columns_are_there(platform: Platform, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="times that name no zone"):
        platform.joined(written(requests({}, ts=pa.timestamp("us")), tmp_path))
    with pytest.raises(DataError, match=r"columns are missing \(2\); e.g. room_id, ts"):
        platform.joined(written(requests({}).drop(["room_id", "ts"]), tmp_path))
    with pytest.raises(DataError, match="there is no row"):
        platform.joined(written(requests({}).slice(0, 0), tmp_path))


def test_tables_that_are_not_there_are_named(platform: Platform, tmp_path: Path) -> None:
    path = written(requests({}), tmp_path)
    with pytest.raises(NotReadyError, match=f"limelight serving -w .* --date {DAY + datetime.timedelta(days=9)}"):
        platform.joined(path, date=DAY + datetime.timedelta(days=9))
    with pytest.raises(NotReadyError) as error:
        platform.joined(path, warehouse=tmp_path / "empty")
    assert [problem.table for problem in error.value.problems] == [
        serving_table(entity) for entity in (Entity.USER, Entity.ANCHOR, Entity.USER_CATEGORY, Entity.USER_ANCHOR)
    ]


def test_without_raw_logs_only_what_requests_bring_is_known_of_rooms(platform: Platform, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    for table in platform.warehouse.glob("serving_*"):
        shutil.copytree(table, alone / table.name)
    path = written(requests({"anchor_id": 2, "category": "dance"}), tmp_path)
    bare, full = (platform.joined(path, warehouse=where).to_pylist()[0] for where in (alone, platform.warehouse))
    assert bare["room_viewers"] == 0
    assert bare["category"] == full["category"] == "dance"
    assert bare["user_category_impressions_30d"] == full["user_category_impressions_30d"]
